"""Run a paper's experiment and print its table beside the published one, with a verdict on each of its claims.

Writes NAME.json, NAME.md and the pictures to the output folder and keeps data and runs in NAME.work there: an
interrupted reproduction continues where it was. What an experiment file says is described in
training/experiments/README.md; committed results are in training/experiments/results.

example::

  ctrank-train reproduce shtoff2024_dplr_movielens1m --data ../shared/data --jobs 2
  ctrank-train reproduce all --quick
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.commands.types import integer


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``reproduce``."""
    parser.add_argument("name", metavar="NAME", help="a shipped experiment, a .toml file, or 'all'")
    parser.add_argument(
        "--data", type=Path, default=None, metavar="DIR", help="data folder (default $CTRANK_DATA, else ../shared/data)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reproductions"), metavar="DIR", help="default ./reproductions"
    )
    parser.add_argument(
        "--seeds", type=integer(1), default=None, help="at most so many seeds per row (default: as the experiment says)"
    )
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs, 2,000 rows: to see that all works")
    parser.add_argument("--jobs", type=integer(1, 256), default=1, help="runs at a time, one process each (default 1)")


def run(args: argparse.Namespace) -> None:
    """Reproduce one experiment or all."""
    import os

    from training.errors import UsageError
    from training.experiment import load_experiment, shipped_experiments
    from training.progress import Progress
    from training.reproduction import reproduce
    from training.reproduction_report import check_claims, write_report

    data = args.data
    if data is None and not os.environ.get("CTRANK_DATA"):
        data = Path("../shared/data")
    names = shipped_experiments() if args.name == "all" else [args.name]
    progress, failed = Progress(), []
    for number, name in enumerate(names, 1):
        if len(names) > 1:
            progress.line(f"experiment {number} of {len(names)}: {name}")
        try:
            result = reproduce(
                load_experiment(name), data, args.out,
                seeds=args.seeds, quick=args.quick, jobs=args.jobs, progress=progress,
            )  # fmt: skip
        except UsageError as error:
            if len(names) == 1:
                raise
            progress.line(f"{name}: {error}")
            failed.append(name)
            continue
        print(write_report(result, args.out))
        verdicts = check_claims(result)
        progress.line(
            f"wrote {args.out / result.file_name}.json, .md and .png; "
            f"{sum(v.holds for v in verdicts)} of {len(verdicts)} claims hold"
        )
    if failed:
        raise UsageError(f"{len(failed)} of {len(names)} experiments could not be run (see above): {', '.join(failed)}")
