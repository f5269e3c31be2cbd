"""What an experiment may report: each measure's name, unit, direction and how it is written.

    measured on a split   auc, log_loss, accuracy, brier, ece (logistic loss); mse, rmse (squared loss); recall@N,
                          ndcg@N (ranking), over the items that the user has not in the training split
    of the run            parameters (numbers in the served model), interaction_parameters (those of the field matrix),
                          train_s (seconds of training, all epochs), epoch_s (median seconds of an epoch; of apr
                          and sharpcf, after their start)

A new measure is one line here, if ``training.run.measure`` returns it for a split.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from training.errors import UsageError

if TYPE_CHECKING:
    from training.models import Model, Table
    from training.run import Run


@dataclass(frozen=True)
class Measure:
    """``lower_is_better``: None where neither is; ``form``: how a value is written; ``of_run``: computed from a
    finished run and its model, None for what is measured on a split."""

    name: str
    lower_is_better: bool | None
    form: str = ".4f"
    of_run: Callable[[Run, Model, Table], float] | None = None

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is better than ``b``."""
        return a < b if self.lower_is_better else a > b

    def gain(self, a: float, b: float) -> float:
        """By how much ``a`` is better than ``b``, in the measure's unit; negative when it is worse."""
        return b - a if self.lower_is_better else a - b

    def write(self, value: float) -> str:
        """The value for a table."""
        return format(value, self.form)


MEASURES = {
    m.name: m
    for m in (
        Measure("auc", False),
        Measure("log_loss", True),
        Measure("accuracy", False),
        Measure("brier", True),
        Measure("ece", True),
        Measure("mse", True),
        Measure("rmse", True),
        Measure("parameters", True, ",.0f", lambda run, model, table: model.parameter_count(table)),
        Measure("interaction_parameters", True, ",.0f", lambda run, model, table: model.interaction_parameters),
        Measure("train_s", True, ".1f", lambda run, model, table: _seconds(run)),
        Measure("epoch_s", True, ".3f", lambda run, model, table: _epoch_seconds(run)),
    )
}


def _seconds(run: Run) -> float:
    """Seconds of all epochs; a history that tells every n-th of them tells the seconds of one."""
    ends = [0, *(int(epoch["epoch"]) for epoch in run.history)]
    return sum(float(e["seconds"]) * (n - m) for e, (m, n) in zip(run.history, pairwise(ends), strict=True))


def _epoch_seconds(run: Run) -> float:
    """Median seconds of an epoch; of a method that starts later (apr, sharpcf) those after its start, if there are."""
    begins = [0, *(int(epoch["epoch"]) for epoch in run.history)]
    started = [e for e, begin in zip(run.history, begins, strict=False) if begin >= run.settings.start_epoch]
    return statistics.median(float(e["seconds"]) for e in started or run.history)


_AT = re.compile(r"(recall|ndcg)@[1-9][0-9]*")


def find_measure(name: str) -> Measure:
    """The measure called ``name``; UsageError if there is none."""
    if _AT.fullmatch(name):
        return Measure(name, False)
    if name not in MEASURES:
        raise UsageError(f"metric {name!r}: expected one of {', '.join(MEASURES)}, recall@N or ndcg@N")
    return MEASURES[name]
