"""Measure a finished run on its validation or test split.

Logistic loss: AUC, log loss, accuracy, calibration. Squared loss: MSE, RMSE. Pairwise methods: Recall and NDCG at 10
and 20 over all items, those of the splits before left out.

example::

  ctrank-train evaluate run
  ctrank-train evaluate run --split valid --json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``evaluate``."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of 'ctrank-train fit'")
    parser.add_argument(
        "--prepared", type=Path, default=None, metavar="DIR", help="the run's prepared data, if they were moved"
    )
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test", help="default test")
    parser.add_argument(
        "--bins", type=int, choices=range(2, 101), default=10, metavar="N", help="of the reliability table"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Evaluate a run."""
    from dataclasses import asdict

    from training.batches import Layout
    from training.errors import UsageError
    from training.evaluation import COUNTS
    from training.metrics import reliability
    from training.run import Run, labelled, measure
    from training.trainers.plain import predict

    run = Run.open(args.run_folder)
    prepared = run.open_prepared(args.prepared)
    if not prepared.rows(args.split):
        raise UsageError(f"--split {args.split}: expected rows in {prepared.path}, found none")
    model, feature_table = run.restore(Layout.of(prepared.fields))
    metrics = measure(prepared, args.split, run.settings, run.calibration, model, feature_table)
    table = []
    if run.settings.loss == "logistic":
        split = labelled(prepared, args.split)
        score = predict(model, feature_table, split)
        table = reliability(split.label, run.calibration.probability(score), args.bins)
    if args.json:
        document = {
            "run": str(args.run_folder), "model": run.settings.model, "rank": run.settings.rank, "split": args.split,
            "metrics": metrics, "reliability": [asdict(b) for b in table],
        }  # fmt: skip
        print(json.dumps(document, indent=2))
        return
    rank = f" rank {run.settings.rank}" if run.settings.rank else ""
    rank = f" ranks {', '.join(map(str, run.settings.ranks))}" if run.settings.ranks else rank
    counts = ", ".join(f"{int(metrics.pop(name)):,} {name}" for name in COUNTS if name in metrics)
    print(f"{run.settings.model}{rank}, {args.split} split, {counts}")
    for name, value in metrics.items():
        print(f"  {name:22s} {value:.5f}")
    if table:
        print("  probability      rows   predicted   observed")
        for b in table:
            print(f"  {b.low:.2f} to {b.high:.2f} {b.count:9,}   {b.mean_probability:9.4f}  {b.positive_rate:9.4f}")
