"""The five-minute tour behind ``make demo``: a click log -> DPLR-FwFM and FM -> registry -> a ranked slate over HTTP.

It runs the same commands that a user would type, prints them, and stops at the first that fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models_export.registry import Registry
from training.examples import ExampleReader
from training.prepared import Prepared
from training.raw_log import Rejected, open_log
from training.spec import load_spec

MODEL = "movielens"
DPLR = ("dplr", "--rank", "2")
SYNTHETIC_ROWS = 400_000
READY_TIMEOUT_S = 120.0


def main() -> int:
    """Run the tour; returns the exit code of the first command that fails, else 0."""
    parser = argparse.ArgumentParser(prog="python -m training.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything it makes (default demo)")
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="REGISTRY",
        help="train and publish alone, in this registry and only if it has no such model: a container's first start",
    )
    arguments = parser.parse_args()
    out = arguments.out
    started = time.monotonic()
    try:
        if arguments.publish is not None:
            publish(out, arguments.publish)
            return 0
        tour(out)
    except subprocess.CalledProcessError as failed:
        return int(failed.returncode)
    print(f"\nDone in {time.monotonic() - started:.0f} s. Next:\n")
    print("  make serve                               # http://127.0.0.1:8000/docs")
    print(f"  ctrank-train fit {out}/prepared --model dplr --rank 3 --out {out}/rank3")
    print(f"  ctrank-train export {out}/rank3 --registry {out}/registry --name {MODEL} --activate")
    return 0


def tour(out: Path) -> None:
    """Prepare, train, publish and rank under ``out``; what is there already is kept (training resumes)."""
    spec, data = find_data(out)
    prepared = prepare(spec, data, out)
    for model, *options in (DPLR, ("fm",)):
        fit(prepared, model, options, out)
    print("\nTest split, same data, same number of factors (k = 8):")
    print(f"  {'':18s}{'AUC':>8s}{'log loss':>10s}")
    for model, title in (("dplr", "DPLR-FwFM rank 2"), ("fm", "FM")):
        found = json.loads(train("evaluate", str(out / model), "--json", show=False))["metrics"]
        print(f"  {title:18s}{found['auc']:8.4f}{found['log_loss']:10.4f}")
    registry = out / "registry"
    export(out, registry)
    rank(Prepared.open(prepared), first_context(spec, data), registry)


def publish(out: Path, registry: Path) -> None:
    """Train the DPLR model under ``out`` and publish it in ``registry``, unless one is active there."""
    active = Registry(registry).active(MODEL)
    if active is not None:
        print(f"{registry}: {MODEL} {active} is active, nothing to do")
        return
    model, *options = DPLR
    fit(prepare(*find_data(out), out), model, options, out)
    export(out, registry)


def prepare(spec: str, data: Path, out: Path) -> Path:
    """The prepared data's folder, made if it is not there."""
    prepared = out / "prepared"
    if not (prepared / "prepared.json").exists():
        train("prepare", spec, "--data", str(data), "--out", str(prepared))
    return prepared


def fit(prepared: Path, model: str, options: Sequence[str], out: Path) -> None:
    """Train the run ``out/model``, or continue it."""
    train("fit", str(prepared), "--model", model, *options, "--out", str(out / model), "--resume")


def export(out: Path, registry: Path) -> None:
    """Publish and activate the DPLR run."""
    train("export", str(out / DPLR[0]), "--registry", str(registry), "--name", MODEL, "--activate")


def find_data(out: Path) -> tuple[str, Path]:
    """MovieLens-1M where it is, else a synthetic log under ``out``: spec and data folder."""
    folders = [Path(os.environ["CTRANK_DATA"])] if "CTRANK_DATA" in os.environ else [Path("../shared/data")]
    for folder in folders:
        if (folder / "ml-1m").is_dir():
            return "movielens-1m", folder
    log = out / "log"
    print(f"MovieLens-1M is not in {folders[0]}/ml-1m (set CTRANK_DATA to its parent); using a synthetic click log.")
    if not (log / "spec.toml").exists():
        train("synth", "--rows", str(SYNTHETIC_ROWS), "--out", str(log))
    return str(log / "spec.toml"), log


def train(*arguments: str, show: bool = True) -> str:
    """Run ``ctrank-train`` with ``arguments``, showing command and output; returns the output if not shown."""
    if show:
        print(f"\n$ ctrank-train {shlex.join(arguments)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "training", *arguments], check=True, text=True, stdout=None if show else subprocess.PIPE
    )
    return done.stdout or ""


def first_context(spec: str, data: Path) -> dict[str, Any]:
    """The raw context fields of the log's first line, as a request would carry them."""
    rules = load_spec(spec)
    reader = ExampleReader(rules, open_log(rules, data))
    examples = next(reader(Rejected()))
    context = {f.name: examples.columns[f.name][0].as_py() for f in reader.fields if f.side == "context"}
    return {name: value for name, value in context.items() if value is not None}


def rank(prepared: Prepared, context: dict[str, Any], registry: Path) -> None:
    """Serve the registry and rank for ``context``: the whole catalogue, then a slate of 1,000 candidates."""
    assert prepared.items is not None  # both of the demo's specs have a catalogue
    ids = [item for item, _ in zip(prepared.items.ids, range(1000), strict=False)]
    with server(registry) as url:
        body = {"context": context, "top_k": 10}
        print(f"\n$ curl {url}/rank -H 'content-type: application/json' -d '{json.dumps(body)}'")
        best = post(url, body)
        for place, item in enumerate(best["items"], 1):
            title = prepared.titles.get(item["id"], "")
            print(f"  {place:2d}  {item['probability']:.4f}  {item['id']:>6s}  {title}")
        whole = min(post(url, body)["took_ms"] for _ in range(50))
        slate = min(post(url, {**body, "item_ids": ids})["took_ms"] for _ in range(50))
        print(f"  took_ms {whole:.3f} for the whole catalogue of {len(prepared.items):,} items")
        print(f"  took_ms {slate:.3f} for a slate of {len(ids):,} candidates (best of 50 requests each)")


@contextmanager
def server(registry: Path) -> Iterator[str]:
    """``ctrank-serve run`` on a free port until the block ends; yields its address once it is ready."""
    print(f"\n$ ctrank-serve run --registry {registry}", flush=True)
    command = [sys.executable, "-m", "service", "run", "--registry", str(registry), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"listening on (http://\S+)", line):
                wait_until_ready(found.group(1), process)
                yield found.group(1)
                return
        raise subprocess.CalledProcessError(process.wait() or 1, command)
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    """Return at the first 200 of ``/readyz``; ``TimeoutError`` after two minutes, or if the server ends before."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz"):
                return
        except OSError:  # not listening yet, or 503: still loading
            time.sleep(0.05)
    raise TimeoutError(f"{url}: expected to be ready within {READY_TIMEOUT_S:.0f} s")


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """``POST /rank``."""
    request = urllib.request.Request(f"{url}/rank", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        found: dict[str, Any] = json.loads(reply.read())
    return found


if __name__ == "__main__":
    sys.exit(main())
