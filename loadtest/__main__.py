"""`python -m loadtest` (`make loadtest`): the load test of a service of its own, in one run.

The answers are first compared with the ranking layer's. Then the open-loop client finds the capacity for 1,000
candidates and for realistic traffic; Locust raises realistic traffic in steps, each on the floor application and on the
service in turn; and Locust soaks the service. Exit code 1 if a check fails, 2 if it cannot be run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from loadtest.checks import Check, Limits, answered, stepped
from loadtest.interference import lost_share
from loadtest.locust_run import locust_run
from loadtest.reference import compare
from loadtest.report import write_report
from loadtest.search import USERS, Plan, Search
from loadtest.servers import Servers, start
from loadtest.target import TargetError
from loadtest.traffic import REALISTIC, THOUSAND, Traffic
from service.bench.machine import describe
from service.bench.redis_process import ServerNotFound

COMPARED = 100  # requests
STEPS = ("--user-rate", "20", "--step-users", "25", "--step-growth", "1.6", "--stage-seconds", "3")
SOAK = ("--user-rate", "20", "--soak-users", "25", "--stage-seconds", "2", "--soak-slices", "10")
LENIENT = Limits(max_p99_over_floor=1e3, max_p99_drift=1e3, max_lost_share=1.0)  # so few requests show little
QUICK = (
    *(
        "--user-rate",
        "10",
        "--stage-seconds",
        "1",
        "--step-users",
        "10",
        "--most-users",
        "10",
        "--soak-users",
        "10",
        "--soak-slices",
        "3",
    ),
    *("--max-p99-over-floor", "1e3", "--max-p99-drift", "1e3", "--max-lost-share", "1"),
)


def main(argv: list[str] | None = None) -> int:
    """Run the load test; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    parser.add_argument("--registry", type=Path, help="registry to serve (default: a synthetic model of 100,000 items)")
    parser.add_argument("--model", help="model to rank with (default: the registry's only or default one)")
    parser.add_argument("--out", type=Path, default=Path("loadtest/report"), help="folder of the report")
    parser.add_argument("--objective-ms", type=float, default=Limits().objective_ms, help="largest p99")
    parser.add_argument("--seed", type=int, default=0, help="seed of the traffic")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that all parts work")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        summary = measure(options)
    except (TargetError, ServerNotFound) as error:
        print(f"load test: {error}", file=sys.stderr)
        return 2
    print(write_report(options.out, summary))
    return 0 if summary["passed"] else 1


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, run all parts; the summary."""
    began = time.monotonic()
    if options.registry and not options.registry.is_dir():
        raise TargetError(f"--registry {options.registry}: expected a folder of published models, found none")
    with tempfile.TemporaryDirectory(prefix="ctrank-loadtest-") as name:
        registry: Path = options.registry or _synthetic(Path(name) / "registry")
        with start(registry, options.model, Path(name) / "items") as servers:
            summary = run_parts(options, servers, registry)
    return {**summary, "seconds": round(time.monotonic() - began, 1)}


def run_parts(options: argparse.Namespace, servers: Servers, registry: Path) -> dict[str, Any]:
    """All parts, and whether the checks of all passed."""
    lost = {str(core): round(lost_share(core), 3) for core in servers.cores}
    parts = _parts(options, servers, registry)
    target = servers.target
    return {
        "passed": all(check["passed"] for part in parts.values() for check in part["checks"]),
        "objective_ms": options.objective_ms,
        "quick": options.quick,
        "seed": options.seed,
        "model": {"name": target.model, "items": len(target.item_ids), "context_fields": len(target.fields)},
        "workers": 1,
        "placement": servers.placement(),
        "lost_to_others": lost,
        "nice": os.nice(0),
        "machine": describe(),
        "parts": parts,
        "traffic": {"realistic": asdict(REALISTIC), "thousand": asdict(THOUSAND)},
    }


def _parts(options: argparse.Namespace, servers: Servers, registry: Path) -> dict[str, dict[str, Any]]:
    """The parts by name, each with its checks."""
    plan = Plan(slice_s=0.3, bisections=0, most_per_s=300, first_per_s=300) if options.quick else Plan()
    thousand, realistic = (Traffic(servers.target, spec, options.seed) for spec in (THOUSAND, REALISTIC))
    requests = list(islice(realistic.interleaved(USERS), COMPARED))
    wrong = compare(servers.ours.port, servers.target, registry, requests)
    found = wrong or f"{len(requests)} requests"
    same = Check("answers are the ranking layer's", wrong is None, found, "equal ids and order, scores to 1e-5")
    common = ["--registry", str(registry), "--model", servers.target.model, "--seed", str(options.seed)]
    common += ["--objective-ms", str(options.objective_ms)]
    floor = ["--floor-host", servers.floor.url]
    quick = QUICK if options.quick else ()
    run = partial(locust_run, host=servers.ours.url, out=options.out)
    return {
        "answers": {"checks": [asdict(same)]},
        "thousand": _search(options, servers, thousand, plan, nap=not servers.apart),
        "realistic": _search(options, servers, realistic, plan, nap=True),
        "steps": run("steps", options=[*common, *floor, *STEPS, *quick]),
        "soak": run("soak", options=[*common, *(() if options.quick else floor), *SOAK, *quick]),
    }


def _search(options: argparse.Namespace, servers: Servers, traffic: Traffic, plan: Plan, nap: bool) -> dict[str, Any]:
    """The capacity by the open-loop client (which naps where it shares its core with Redis or with the servers)."""
    limits = replace(LENIENT if options.quick else Limits(), objective_ms=options.objective_ms)
    search = Search(servers.ours, servers.floor, traffic, nap)
    found = search.run(limits.objective_ms, plan)
    print(f"open-loop client: {found.describe()}", flush=True)
    checks = [*answered(search.stages, limits), *stepped(search.stages, limits)]
    return {
        "capacity": asdict(found),
        "client_late_p99_ms": search.late_p99_ms,
        "stages": [stage.to_dict() for stage in search.stages],
        "checks": [asdict(check) for check in checks],
    }


def _synthetic(registry: Path) -> Path:
    from service.bench.synthetic_model import publish_model

    publish_model(registry)
    return registry


if __name__ == "__main__":
    sys.exit(main())
