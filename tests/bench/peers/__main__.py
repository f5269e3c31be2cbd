"""ctrank beside its peers, in one run on this machine.

    python -m venv .venv-peers && .venv-peers/bin/pip install . -r tests/bench/peers/requirements.txt
    .venv-peers/bin/python -m tests.bench.peers --out tests/bench/peers/results

from the root of a checkout. Servers run one at a time on loopback, each started and stopped here, for a bounded time;
a peer that is not installed is left out, and the report says so. Writes peers.json, peers.md and peers.png.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from service.bench.machine import describe
from service.bench.subprocess_run import measure_apart
from tests.bench.peers.http_load import Traffic, best_of, measure_server
from tests.bench.peers.report import draw, render
from tests.bench.peers.servers import SERVERS, running
from tests.bench.peers.workload import SIZES, Workload, draw_requests

PACKAGES = ("uvicorn", "onnxruntime", "mosec", "bentoml", "ray", "vowpalwabbit")
REQUESTS = {100: 600, 1_000: 300, 10_000: 60}
CHECKED = 3


def main(argv: list[str] | None = None) -> int:
    """Measure and report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--budget-s", type=float, default=1.0, help="seconds of load per cell and pass (default 1)")
    parser.add_argument("--passes", type=int, default=2, help="times that each server is measured (default 2)")
    parser.add_argument("--rounds", type=int, default=20, help="turns of the in-process scorers (default 20)")
    parser.add_argument("--only", nargs="*", default=None, help="servers whose name contains one of these")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="peers-", dir="/tmp") as name:
        found = compare(Path(name) / "registry", arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "peers.json").write_text(json.dumps(found, indent=2) + "\n")
    text = render(found)
    (arguments.out / "peers.md").write_text(text)
    draw(found, arguments.out / "peers.png")
    print(text)
    return 1 if found["failed"] else 0


def compare(registry: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures, ready for JSON."""
    only = arguments.only
    workload = Workload.publish(registry)
    requests = {size: list(draw_requests(size, REQUESTS[size])) for size in SIZES}
    traffic = Traffic(requests, {size: [workload.expected(r) for r in requests[size][:CHECKED]] for size in SIZES})
    _say("scorers in one process")
    functions = measure_apart("tests.bench.peers.functions", str(registry), "--rounds", str(arguments.rounds))
    passes: dict[str, list[dict[str, Any]]] = {}
    missing, failed = {}, {}
    for server in SERVERS * arguments.passes:
        if only is not None and not any(part in server.name for part in only):
            continue
        reason = server.missing(workload.artefact.path)
        if reason is not None:
            missing[server.name] = reason
            continue
        _say(server.name)
        try:
            with running(server, registry, traffic.bodies[100][0]) as (pid, port):
                found = measure_server(server, pid, port, traffic, arguments.budget_s)
            passes.setdefault(server.name, []).append(found)
        except RuntimeError as error:
            failed[server.name] = str(error)
            _say(f"FAILED: {error}")
    return {
        "machine": describe(),
        "versions": {package: _version(package) for package in PACKAGES},
        "budget_s": arguments.budget_s,
        "functions": functions["scorers"],
        "servers": {name: best_of(found) for name, found in passes.items()},
        "missing": {**functions["missing"], **missing},
        "failed": failed,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _say(text: str) -> None:
    print(f"peers: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
