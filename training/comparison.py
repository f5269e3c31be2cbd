"""Families and ranks side by side on one log: what is trained, its accuracy, and what serving it costs.

    OUT/runs/CANDIDATE-S      one run folder per candidate and seed; figure.json in it once it is measured

A candidate is chosen by its validation figure, the mean over the seeds, and is served by the seed whose own figure is
the best. Three costs stand against it: microseconds of a slate with inline fields, of one given by catalogue ids, and
bytes of the artefact; each has its own Pareto front.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.comparison_chart import TITLES
from training.errors import UsageError
from training.experiment import slug
from training.measures import Measure, find_measure
from training.models.pruned import kept_pairs
from training.pareto import pareto_front
from training.prepared import Prepared
from training.progress import Progress
from training.reproduction_run import RunFigure, RunTask, figure_of, run_all
from training.serving_cost import ServingCost, measure_serving
from training.trainers.settings import FitSettings, defaults

OF_LOSS = {"logistic": ("auc", "log_loss"), "squared": ("mse", "rmse")}
#: Costs of a served candidate, each with a Pareto front of its own: attribute of ``ServingCost`` -> short name.
COSTS = {"inline_us": "inline", "ids_us": "ids", "artefact_bytes": "size"}


@dataclass(frozen=True)
class Candidate:
    """One thing to choose: its name in the table, and its settings but for the seed."""

    label: str
    settings: FitSettings


@dataclass(frozen=True)
class Row:
    """A candidate's result. ``chosen``: the seed that would be published; ``fronts``: the costs on whose Pareto front
    it is."""

    candidate: Candidate
    figures: tuple[RunFigure, ...]
    chosen: int
    cost: ServingCost
    fronts: tuple[str, ...] = ()

    def values(self, metric: str, split: str) -> list[float]:
        """The figures of all seeds; ``split`` valid or test."""
        return [getattr(figure, split)[metric] for figure in self.figures]

    def mean_and_sd(self, metric: str, split: str) -> tuple[float, float]:
        """Mean and standard deviation over the seeds (0 for one seed)."""
        values = self.values(metric, split)
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Comparison:
    """All rows of a comparison in the order of the candidates; ``runs``: the folder of run folders."""

    prepared: Prepared
    metric: Measure
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    slate: dict[str, Any]
    runs: Path

    def run_folder(self, row: Row) -> Path:
        """The run that would be published for a row."""
        return self.runs / folder_name(row.candidate, row.chosen)


def folder_name(candidate: Candidate, seed: int) -> str:
    """Of the run folder of a candidate and seed."""
    return f"{slug(candidate.label)}-{seed}"


def find_metric(name: str | None, task: str) -> tuple[Measure, str]:
    """The measure to choose by and the loss to train with; None: AUC of clicks, MSE of ratings. UsageError where the
    labels do not have it."""
    if task == "implicit":
        raise UsageError("compare: expected a log with labels, found implicit feedback (positives only)")
    loss = "logistic" if task == "binary" else "squared"
    chosen = name or OF_LOSS[loss][0]
    if chosen not in OF_LOSS[loss]:
        what = "clicks" if loss == "logistic" else "ratings"
        raise UsageError(f"--metric {chosen}: expected {' or '.join(OF_LOSS[loss])} for labels that are {what}")
    return find_measure(chosen), loss


def candidates(
    models: Sequence[str], ranks: Sequence[int], dim: int, loss: str, n_fields: int, **more: Any
) -> list[Candidate]:
    """What is compared: ``fm`` and ``fwfm`` once, ``dplr`` at every rank below the number of fields, ``pruned_fwfm`` at
    every rank that leaves less than all interactions, ``rafm`` at ranks {dim/4, dim}, {dim/2, dim} and {dim, 2 dim}.

    All train with their family's defaults; ``more``: settings for all of them. UsageError where nothing is left to
    compare.
    """

    def one(label: str, model: str, **own: Any) -> Candidate:
        start = defaults(model, loss, "adagrad") | {"dim": dim, "rank": None, "loss": loss}
        calibration = "platt" if loss == "logistic" else "none"
        return Candidate(label, FitSettings(**start | more | own | {"model": model, "calibration": calibration}))

    found = []
    for model in dict.fromkeys(models):
        title = TITLES[model]
        if model == "rafm":
            pairs = dict.fromkeys(((max(dim // 4, 1), dim), (max(dim // 2, 1), dim), (dim, 2 * dim)))
            found += [one(f"{title} {a}, {b}", model, ranks=(a, b), dim=b) for a, b in pairs if a < b]
        elif model in ("fm", "fwfm"):
            found.append(one(title, model))
        else:
            every = n_fields * (n_fields - 1) // 2
            useful = [r for r in ranks if (r < n_fields if model == "dplr" else kept_pairs(n_fields, r) < every)]
            found += [one(f"{title} rank {rank}", model, rank=rank) for rank in useful]
    if not found:
        raise UsageError(f"--models {' '.join(models)}: expected a rank that {n_fields} fields leave room for")
    return found


def compare(
    prepared: Prepared,
    wanted: Sequence[Candidate],
    seeds: Sequence[int],
    metric: Measure,
    out: Path,
    *,
    jobs: int,
    repetitions: int,
    progress: Progress,
) -> Comparison:
    """Train what is not trained yet, ``jobs`` runs at a time, then measure what serving the chosen runs costs."""
    runs, metrics = out / "runs", OF_LOSS[wanted[0].settings.loss]
    tasks = [
        RunTask(
            candidate.label, seed, prepared.path, prepared.fingerprint, replace(candidate.settings, seed=seed),
            runs / folder_name(candidate, seed), (*metrics, "parameters"), False, min(jobs, len(wanted) * len(seeds)),
        )
        for seed in seeds
        for candidate in wanted
    ]  # fmt: skip
    figures = {task.key: figure for task in tasks if (figure := figure_of(task)) is not None}
    if figures:
        progress.line(f"{len(figures)} of {len(tasks)} runs are there already")
    figures |= run_all([task for task in tasks if task.key not in figures], jobs, progress)
    chosen = {c.label: _best_seed([figures[c.label, seed] for seed in seeds], metric) for c in wanted}
    folders = {c.label: runs / folder_name(c, chosen[c.label]) for c in wanted}
    costs, slate = measure_serving(prepared, folders, repetitions, progress)
    rows = [
        Row(c, tuple(figures[c.label, seed] for seed in seeds), chosen[c.label], costs[c.label]) for c in wanted
    ]  # fmt: skip
    return Comparison(prepared, metric, metrics, tuple(seeds), _with_fronts(rows, metric), slate, runs)


def _best_seed(figures: Sequence[RunFigure], metric: Measure) -> int:
    best = figures[0]
    for figure in figures[1:]:
        best = figure if metric.better(figure.valid[metric.name], best.valid[metric.name]) else best
    return best.seed


def _with_fronts(rows: Sequence[Row], metric: Measure) -> tuple[Row, ...]:
    sign = 1.0 if metric.lower_is_better else -1.0
    loss = [sign * row.mean_and_sd(metric.name, "valid")[0] for row in rows]
    on: list[list[str]] = [[] for _ in rows]
    for cost in COSTS:
        values = [getattr(row.cost, cost) for row in rows]
        if None in values:
            continue
        for fronts, is_on in zip(on, pareto_front(list(zip(values, loss, strict=True))), strict=True):
            if is_on:
                fronts.append(cost)
    return tuple(replace(row, fronts=tuple(fronts)) for row, fronts in zip(rows, on, strict=True))
