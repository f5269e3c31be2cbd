"""Search settings on the validation split; interrupted searches continue.

Optuna's TPE (seed 42): learning rate log-uniform in [1e-4, 0.2], L2 log-uniform in [1e-8, 1e-3]; for families with a
field matrix its first spread in [0.01, 0.5] and its share of the learning rate in [0.001, 1]; for mixfm and smfm the
shares' Beta parameter, for apr and sharpcf the weight of their second loss, for apr its step too, for llfm (rates in
[0.01, 4]) beta or L/C and the anchors' share of the rate; and what --range names. The first trial has the values that
the other options name, or their defaults. Hopeless trials are cut short; the best are trained again
with two more seeds. The test split is not read.

Written to STUDY: study.db (the search), best.json (the winner's settings), and winner.toml, the winner as an
experiment file that 'ctrank-train reproduce' trains with fresh seeds and measures on the test split.

examples::

  ctrank-train tune prepared --model dplr --rank 2 --trials 50 --out study
  ctrank-train tune prepared --model fm --objective auc --range learning_rate 0.01 0.1 --range dim 4 32 --out study-fm
  ctrank-train reproduce study/winner.toml --data DATA
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.commands.fit_options import model_arguments
from training.commands.fit_settings import settings_of
from training.commands.types import integer
from training.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``tune``."""
    parser.usage = "%(prog)s PREPARED --out STUDY [--model FAMILY] [--method METHOD] [--objective METRIC] [options]"
    model_arguments(parser)
    parser.add_argument(
        "--objective", default=None, metavar="METRIC",
        help="what is best on validation: auc, logloss, mse, recall, ndcg (at 10; or recall@N, ndcg@N) or another "
        "metric of the loss (default: the loss itself, ndcg for pairwise methods)",
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=integer(1), default=50, help="trials in all, earlier ones included (default 50)"
    )
    parser.add_argument(
        "--confirm",
        type=integer(1),
        default=3,
        metavar="N",
        help="train the N best again with two more seeds (default 3)",
    )
    parser.add_argument(
        "--range", nargs=3, action="append", default=[], metavar=("SETTING", "LOW", "HIGH"),
        help="search a setting between limits, or change its default limits (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="STUDY", help="study folder (continued if it exists)"
    )


def run(args: argparse.Namespace) -> None:
    """Tune a model."""
    from training.prepared import Prepared
    from training.progress import Progress
    from training.tuned_experiment import write_winner
    from training.tuning import find_objective, tune

    prepared = Prepared.open(args.prepared)
    base = settings_of(args, prepared)
    name = find_objective(args.objective, base).name
    ranges = {setting: (_limit(setting, low), _limit(setting, high)) for setting, low, high in args.range}
    progress = Progress()

    def on_trial(number: int, value: float | None, params: dict[str, float]) -> None:
        shown = ", ".join(f"{setting} {chosen:.3g}" for setting, chosen in params.items())
        progress.line(f"trial {number}: {'cut short' if value is None else f'valid {name} {value:.5f}'} ({shown})")

    result = tune(
        prepared, base, args.trials, args.out,
        objective=args.objective, ranges=ranges, confirm=args.confirm, on_trial=on_trial,
    )  # fmt: skip
    winner = write_winner(result, prepared, args.out)
    seeds = f"mean of {len(result.seeds)} seeds" if len(result.seeds) > 1 else f"seed {result.seeds[0]}"
    print(
        f"best validation {result.objective} {result.value:.5f}, {seeds} "
        f"({result.finished} trials finished, {result.pruned} cut short)"
    )
    settings = result.settings.to_json()
    print("  " + ", ".join(f"{setting} {settings[setting]:g}" for setting in result.searched))
    print(f"next: ctrank-train reproduce {winner} --data DATA")


def _limit(setting: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--range {setting}: expected two numbers, found {text!r}") from None
