"""Runs an experiment: a run per row and seed, resumed where they were interrupted, and the figures that they leave.

    OUT/NAME.work/data              the log, prepared with the experiment's split seed (data-S: one per seed)
    OUT/NAME.work/ROW-S             one run folder per row and seed; figure.json in it once it is measured

Seed S sets the first weights and the order of the batches. Every choice is made on the validation split.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.errors import UsageError
from training.experiment import Experiment, slug
from training.prepare import prepare
from training.prepared import Prepared
from training.progress import Progress
from training.provenance import machine
from training.reproduction_run import RunFigure, RunTask, figure_of, run_all

#: ``--quick`` takes so many rows of each file of the log.
QUICK_ROWS = 2000


@dataclass(frozen=True)
class Reproduction:
    """All figures of an experiment. ``data``: facts about the prepared log; ``work``: where the runs are."""

    experiment: Experiment
    quick: bool
    figures: tuple[RunFigure, ...]
    data: dict[str, Any]
    machine: dict[str, Any]
    work: Path

    @property
    def file_name(self) -> str:
        """Of the report's files, without their ending."""
        return self.experiment.name + (".quick" if self.quick else "")

    def of_row(self, label: str) -> list[RunFigure]:
        """A row's figures, by seed."""
        return [figure for figure in self.figures if figure.label == label]

    def values(self, label: str, metric: str) -> dict[int, float]:
        """Test figures of a row by seed."""
        return {figure.seed: figure.test[metric] for figure in self.of_row(label)}

    def mean_and_sd(self, label: str, metric: str) -> tuple[float, float]:
        """Mean and standard deviation over the row's seeds (0 for one seed)."""
        values = list(self.values(label, metric).values())
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0

    def published(self, label: str, column: str, metric: str) -> float | None:
        """A published figure of a row; None if there is none."""
        return self.experiment.row(label).figures.get(column, {}).get(metric)

    def run_folder(self, label: str, seed: int) -> Path:
        """The run folder of a row and seed."""
        return self.work / f"{slug(label)}-{seed}"


def reproduce(
    experiment: Experiment,
    data: Path | None,
    out: Path,
    *,
    seeds: int | None,
    quick: bool,
    jobs: int,
    progress: Progress,
) -> Reproduction:
    """Run everything that is not there yet. ``seeds``: at most so many for each row; ``quick``: one seed, the rows'
    quick settings, the first rows of the log. ``jobs``: runs at a time.
    """
    work = out / f"{experiment.name}{'.quick' if quick else ''}.work"
    limit = 1 if quick else seeds or len(experiment.seeds)
    wanted = [
        (seed, row) for i, seed in enumerate(experiment.seeds[:limit]) for row in experiment.rows if i < row.seeds
    ]
    used = list(dict.fromkeys(seed for seed, _ in wanted))
    prepared = {seed: _prepared(experiment, seed, data, work, quick, progress) for seed in used}
    tasks = [
        RunTask(
            row.label, seed, prepared[seed].path, prepared[seed].fingerprint,
            replace(row.quick if quick else row.settings, seed=seed), work / f"{slug(row.label)}-{seed}",
            experiment.metrics, experiment.best_epoch == "each metric", min(jobs, len(wanted)),
        )
        for seed, row in wanted
    ]  # fmt: skip
    there = {task.key: figure for task in tasks if (figure := figure_of(task)) is not None}
    missing = [task for task in tasks if task.key not in there]
    if there:
        progress.line(f"{len(there)} of {len(tasks)} runs are there already")
    if missing:
        there |= run_all(missing, jobs, progress)
    return Reproduction(
        experiment, quick, tuple(there[task.key] for task in tasks), _facts(list(prepared.values())), machine(), work
    )


def _prepared(
    experiment: Experiment, seed: int, data: Path | None, work: Path, quick: bool, progress: Progress
) -> Prepared:
    split = seed if experiment.split_seed is None else experiment.split_seed
    folder = work / ("data" if experiment.split_seed is not None else f"data-{split}")
    if not (folder / "prepared.json").exists():
        rows = QUICK_ROWS if quick else None
        prepare(experiment.spec, data, folder, seed=split, first_rows=rows, progress=progress)
    found = Prepared.open(folder)
    if found.info["split"]["seed"] != split:
        raise UsageError(f"{folder}: expected data split with seed {split}, found another; delete {work}")
    return found


def _facts(prepared: Sequence[Prepared]) -> dict[str, Any]:
    """What the figures were measured on."""
    first = prepared[0]
    return {
        "name": first.name,
        "fingerprints": list(dict.fromkeys(p.fingerprint for p in prepared)),
        "rows": {split: first.rows(split) for split in ("train", "valid", "test")},
        "features": sum(field.size for field in first.fields),
        "fields": [field.name for field in first.fields],
        "source": first.info["source"],
    }
