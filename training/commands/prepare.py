"""Read a log, split it, fit the vocabulary on the training split, write encoded arrays.

SPEC is a TOML file of fields, label and split, or the name of a shipped one.

example::

  ctrank-train prepare movielens-1m --data ../shared/data --out prepared
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.commands.types import integer, number


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``prepare``."""
    parser.add_argument("spec", metavar="SPEC", help="spec file, or a shipped name such as movielens-1m")
    parser.add_argument(
        "--data", type=Path, default=None, metavar="DIR",
        help="folder that holds the log's files (default: the spec file's folder, else $CTRANK_DATA)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="PREPARED", help="folder to create")
    parser.add_argument("--seed", type=integer(0), default=None, help="seed of the split (default: the spec's)")
    parser.add_argument(
        "--previous", type=Path, default=None, metavar="DIR",
        help="prepared folder or artefact whose ids are kept; new values are appended (retraining)",
    )  # fmt: skip
    parser.add_argument(
        "--max-rejected", type=number(0), default=None, metavar="SHARE",
        help="fail when more than this share of the lines is malformed (default: the spec's)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Prepare a log."""
    from training.prepare import prepare
    from training.progress import Progress

    report = prepare(
        args.spec, args.data, args.out, previous=args.previous, seed=args.seed, max_rejected=args.max_rejected,
        progress=Progress(),
    )  # fmt: skip
    print(report.summary())
    model = "--model fm --method bpr" if report.info["label"]["task"] == "implicit" else "--model dplr --rank 2"
    print(f"next: ctrank-train fit {args.out} {model} --out run")
