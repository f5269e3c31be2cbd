"""Train a model on prepared data with early stopping and checkpoints.

The run folder holds the best epoch's weights, a checkpoint after every epoch, and the calibrated validation and test
metrics. A killed run continues with the same command and --resume, and ends with the same bytes.

example::

  ctrank-train fit prepared --model dplr --rank 2 --out run
  ctrank-train fit prepared --model pruned_fwfm --rank 2 --gradual --out run-pruned
  ctrank-train fit gowalla --model fm --method sharpcf --no-linear --start-epoch 200 --eval-every 10 --out run-cf
  ctrank-train fit prepared --model rafm --ranks 64,256 --out run-rafm
  ctrank-train fit banana --model llfm --locality jo --dim 10 --anchors 50 --out run-local
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.commands.fit_options import model_arguments
from training.commands.fit_settings import settings_of
from training.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``fit``."""
    parser.usage = "%(prog)s PREPARED --out RUN [--model FAMILY] [--method METHOD] [options]"
    model_arguments(parser)
    parser.add_argument(
        "--calibration", choices=("platt", "isotonic", "none"), default="platt",
        help="calibrator fitted on validation, logistic loss only (default platt)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out, or start it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> None:
    """Fit a model."""
    from training.evaluation import COUNTS
    from training.prepared import Prepared
    from training.progress import Progress
    from training.run import fit
    from training.trainers.pairwise import trajectory_bytes
    from training.trainers.report import EpochBars
    from training.trainers.settings import RAGGED

    prepared = Prepared.open(args.prepared)
    settings = settings_of(args, prepared)
    progress = Progress()
    rank = f" rank {settings.rank}" if settings.rank else ""
    rank = f" ranks {', '.join(map(str, settings.rank_list))}" if settings.model in RAGGED else rank
    if settings.model == "llfm":
        rank = f" ({settings.locality}, {settings.anchors} anchors)"
    method = "" if settings.method == "plain" else f" by {settings.method}"
    progress.line(
        f"{settings.model}{rank}{method}, {settings.loss} loss, lr {settings.learning_rate:g}, L2 {settings.l2:g}"
    )
    memory = trajectory_bytes(settings, prepared.rows("train"))
    if memory:
        progress.line(f"past scores of {settings.trajectory_epochs} epochs: {memory / 1e6:.1f} MB of memory")
    bars = EpochBars(progress, settings.rows_per_epoch(prepared.rows("train")))
    try:
        run = fit(prepared, settings, args.out, args.resume, bars.epoch_done, bars.tick)
    except FloatingPointError as error:
        raise UsageError(str(error)) from None
    if args.json:
        print(json.dumps({"run": str(args.out), "best_epoch": run.best_epoch, "metrics": run.metrics}, indent=2))
        return
    for split, found in run.metrics.items():
        print(f"{split}: " + ", ".join(f"{k} {v:.5f}" for k, v in found.items() if k not in COUNTS))
    print(f"wrote {args.out} (best epoch {run.best_epoch}); next: ctrank-train evaluate {args.out}")
