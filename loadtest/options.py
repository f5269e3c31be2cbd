"""The load test's own options of the `locust` command: flags, `LOADTEST_` variables, fields of the web UI."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from loadtest.checks import Limits
from loadtest.traffic import REALISTIC, THOUSAND

TRAFFIC = {"realistic": REALISTIC, "thousand": THOUSAND}


def add_options(parser: Any) -> None:
    """Add them to Locust's parser (`events.init_command_line_parser`)."""

    def add(name: str, default: Any, help: str, **options: Any) -> None:
        variable = "LOADTEST_" + name.upper().replace("-", "_")
        parser.add_argument(f"--{name}", env_var=variable, default=default, help=help, **options)

    limits = Limits()
    add("model", "", "model to rank with (default: the server's default)")
    add("registry", "", "registry folder of the served model, for real field values (default: numbers)")
    add("traffic", "realistic", "realistic: all kinds of requests; thousand: 1,000 candidates each", choices=TRAFFIC)
    add("seed", 0, "seed of the traffic", type=int)
    add("user-rate", 10.0, "requests per second of each user, at random times (Poisson)", type=float)
    add("floor-host", "", "floor application to measure beside the service (default: none)")
    add("objective-ms", limits.objective_ms, "largest p99 in milliseconds", type=float)
    add("min-capacity", limits.min_capacity_per_s, "smallest capacity in requests per second", type=float)
    add("max-error-share", limits.max_error_share, "largest share of errors and wrong answers", type=float)
    add("max-lost-share", limits.max_lost_share, "largest share of contexts unknown by their id", type=float)
    add("max-p99-over-floor", limits.max_p99_over_floor, "largest p99 over the floor's", type=float)
    add("max-p99-drift", limits.max_p99_drift, "soak: largest p99 at the end over that at the beginning", type=float)
    add("max-memory-growth", limits.max_memory_growth, "soak: largest growth of the service's memory", type=float)
    add("stage-seconds", 5, "seconds that a step or a slice of the soak is measured", type=int)
    add("step-users", 20, "steps: users of the first one", type=int)
    add("step-growth", 1.5, "steps: each has so many times the users of the one before", type=float)
    add("most-users", 2000, "steps: stop at so many", type=int)
    add("soak-users", 20, "soak: users", type=int)
    add("soak-slices", 12, "soak: number of slices", type=int)
    add("result", "", "file for the figures and checks as JSON", include_in_web_ui=False)


def limits_of(options: Namespace) -> Limits:
    """The limits that the options set."""
    return Limits(
        options.objective_ms,
        options.min_capacity,
        options.max_error_share,
        options.max_lost_share,
        options.max_p99_over_floor,
        options.max_p99_drift,
        options.max_memory_growth,
    )


def registry_of(options: Namespace) -> Path | None:
    """The registry's folder, if given."""
    return Path(options.registry) if options.registry else None
