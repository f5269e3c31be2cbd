"""Write a seeded click log whose true click probabilities are known.

Also writes the spec, the items and truth.json, which states the log loss and AUC that no model can beat.

example::

  ctrank-train synth --rows 1_000_000 --out synthetic
  ctrank-train prepare synthetic/spec.toml --out prepared
  ctrank-train fit prepared --model fm --method bpr --out run     # or any other model and method
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.commands.types import integer


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``synth``."""
    parser.add_argument("--rows", type=integer(1), required=True, help="number of log lines")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument("--seed", type=integer(0), default=0, help="same seed, same log (default 0)")
    parser.add_argument("--users", type=integer(1), default=None, help="default rows / 20, from 100 to 1,000,000")
    parser.add_argument("--items", type=integer(1), default=None, help="default rows / 100, from 100 to 100,000")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="default csv")


def run(args: argparse.Namespace) -> None:
    """Synthesize a log."""
    from training.progress import Progress
    from training.synthetic import synthesize

    truth = synthesize(
        args.rows,
        args.out,
        seed=args.seed,
        users=args.users,
        items=args.items,
        form=args.format,
        progress=Progress(),
    )
    shown = ", ".join(f"{k} {v:.4f}" for k, v in truth.items() if k in ("click_rate", "auc", "log_loss"))
    print(f"wrote {args.rows:,} rows to {args.out}{f' (truth: {shown})' if shown else ''}")
    print(f"next: ctrank-train prepare {args.out}/spec.toml --out prepared")
