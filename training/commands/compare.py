"""Families and ranks side by side: accuracy against measured serving latency and artefact size.

Trains FM, FwFM, pruned FwFM and DPLR of rank 1 to --max-rank, and RaFM of three pairs of ranks, each with the defaults
of 'fit'. Then every trained model is exported and its compiled kernel timed on slates of 1,000 items, all models in
turn: with the items' fields inline (each field is scored) and with catalogue ids (the item side is precomputed).

Written to DIR: compare_NAME.md (the table), .json and .png (the chart), with the Pareto fronts marked: the models that
no other beats in both accuracy on the validation split and cost. For each of them the table has the command that
publishes it. Test figures stand beside them, to be reported and not to choose by.

Runs are kept in DIR/runs: the same command again trains what is missing and measures all latencies anew. So train
first, and measure by running it again when the machine is quiet.

examples::

  ctrank-train compare prepared --out comparison
  ctrank-train compare prepared --out comparison --models fm dplr --max-rank 8 --seeds 3 --metric log_loss
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.commands.types import integer

MODELS = ("fm", "fwfm", "pruned_fwfm", "dplr", "rafm")
METRICS = ("auc", "log_loss", "mse", "rmse")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``compare``."""
    parser.usage = "%(prog)s PREPARED --out DIR [--models FAMILY ...] [--seeds N] [--metric METRIC] [options]"
    parser.add_argument("prepared", type=Path, metavar="PREPARED", help="folder of 'ctrank-train prepare'")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of runs and report (continued)")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=MODELS, metavar="FAMILY",
        help=f"families to compare, of {', '.join(MODELS)} (default all)",
    )  # fmt: skip
    parser.add_argument(
        "--max-rank", type=integer(1, 64), default=4, help="dplr and pruned_fwfm: ranks 1 to this (default 4)"
    )
    parser.add_argument("--dim", type=integer(1, 512), default=8, help="length of the vectors (default 8)")
    parser.add_argument(
        "--seeds", type=integer(1, 100), default=1, metavar="N", help="runs of each, seeds 1 to N (default 1)"
    )
    parser.add_argument(
        "--metric", choices=METRICS, default=None, metavar="METRIC",
        help="accuracy on the chart: auc (default) or log_loss of clicks, mse (default) or rmse of ratings",
    )  # fmt: skip
    parser.add_argument("--epochs", type=integer(1), default=20, help="most epochs of a run (default 20)")
    parser.add_argument("--jobs", type=integer(1, 256), default=1, help="runs at a time, one process each (default 1)")
    parser.add_argument(
        "--repetitions", type=integer(1), default=500, metavar="N", help="turns of each model's timing (default 500)"
    )


def run(args: argparse.Namespace) -> None:
    """Compare families and ranks."""
    from training.comparison import candidates, compare, find_metric
    from training.comparison_report import write_report
    from training.prepared import Prepared
    from training.progress import Progress

    prepared = Prepared.open(args.prepared)
    metric, loss = find_metric(args.metric, prepared.task)
    ranks = range(1, args.max_rank + 1)
    wanted = candidates(args.models, ranks, args.dim, loss, len(prepared.fields), epochs=args.epochs)
    progress = Progress()
    progress.line(f"{len(wanted)} models, {args.seeds} seed(s) each: {', '.join(c.label for c in wanted)}")
    result = compare(
        prepared, wanted, range(1, args.seeds + 1), metric, args.out,
        jobs=args.jobs, repetitions=args.repetitions, progress=progress,
    )  # fmt: skip
    print(write_report(result, args.out))
