"""One run of an experiment, here or in a process of its own: trained or resumed, measured, its figure kept.

figure.json in the run folder holds the figure with the settings, data and metrics that it belongs to, so that it is
taken as it is when nothing has changed, and measured again without training when only the metrics have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any

from training.batches import Layout
from training.errors import UsageError
from training.measures import find_measure
from training.prepared import Prepared
from training.progress import Progress
from training.provenance import commit
from training.run import Run, fit
from training.trainers.checkpoint import write_bytes
from training.trainers.plain import EpochReport
from training.trainers.settings import FitSettings

FIGURE = "figure.json"
SPLITS = ("valid", "test")


@dataclass(frozen=True)
class RunTask:
    """What to run: a row with a seed on prepared data into ``folder``; ``at_once``: how many runs share the machine."""

    label: str
    seed: int
    data: Path
    fingerprint: str
    settings: FitSettings
    folder: Path
    metrics: tuple[str, ...]
    each_metric: bool
    at_once: int

    @property
    def key(self) -> tuple[str, int]:
        """Row and seed."""
        return self.label, self.seed


@dataclass(frozen=True)
class RunFigure:
    """Result of one row with one seed: metric -> figure on test and on validation, metric -> the epoch it was taken at
    (measures of the run itself have the run's best epoch, and no validation figure).

    ``wall_s``: seconds of the last (or only) stretch of the run, evaluation included; ``commit``: of the code then;
    ``at_once``: how many runs shared the machine, which times must be read with.
    """

    label: str
    seed: int
    test: dict[str, float]
    valid: dict[str, float]
    epochs: dict[str, int]
    epochs_run: int
    wall_s: float
    commit: str | None
    at_once: int


def figure_of(task: RunTask) -> RunFigure | None:
    """The figure that an earlier reproduction left for this very task; None if there is none."""
    try:
        found = json.loads((task.folder / FIGURE).read_text(encoding="utf-8"))
        settings = FitSettings.from_json(found["of"].pop("settings"))  # new settings have their defaults
        same = settings == task.settings and found["of"] == _identity(task)
        return RunFigure(**found["figure"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_all(tasks: list[RunTask], jobs: int, progress: Progress) -> dict[tuple[str, int], RunFigure]:
    """Run the tasks, ``jobs`` at a time; shows each figure as it comes, and the time left."""
    figures: dict[tuple[str, int], RunFigure] = {}
    with progress.task("runs", len(tasks), "runs") as bar:

        def done(task: RunTask, figure: RunFigure) -> None:
            figures[task.key] = figure
            shown = ", ".join(f"{name} {find_measure(name).write(value)}" for name, value in figure.test.items())
            progress.line(f"{task.label}, seed {task.seed}: {shown} ({figure.epochs_run} epochs)")

        if jobs == 1:
            for task in tasks:
                done(task, run_one(task, lambda share, label: bar.advance(share, label)))
        else:
            _run_in_processes(tasks, jobs, bar.advance, done)
    return figures


def run_one(task: RunTask, advance: Callable[[float, str], None]) -> RunFigure:
    """Train what is not trained and measure. ``advance(share, label)``: the run's work as shares of 1."""
    start, shown = time.perf_counter(), 0.0
    prepared = Prepared.open(task.data)
    run = Run.open(task.folder, must_be_finished=False) if (task.folder / "run.json").exists() else None

    def on_epoch(report: EpochReport, best: bool) -> None:
        nonlocal shown
        share = max(0.0, min(1.0, report.epoch / task.settings.epochs) - shown)
        shown += share
        advance(share, task.label)

    old = _stored(task.folder)
    if run is None or not run.finished or run.settings != task.settings:
        try:
            each_epoch = SPLITS if task.each_metric else ()
            run = fit(prepared, task.settings, task.folder, resume=True, on_epoch=on_epoch, each_epoch=each_epoch)
        except FloatingPointError as error:
            raise UsageError(f"row {task.label!r}, seed {task.seed}: {error}") from None
        old = {}
    if task.each_metric and not all("metrics" in epoch for epoch in run.history):
        raise UsageError(
            f"{task.folder}: expected figures of every epoch, found a run without; delete it to run it again"
        )
    model, table = run.restore(Layout.of(prepared.fields))
    test, valid, epochs = {}, {}, {}
    for name in task.metrics:
        of_run = find_measure(name).of_run
        if of_run is not None:
            test[name], epochs[name] = float(of_run(run, model, table)), run.best_epoch
        else:
            epochs[name], valid[name], test[name] = _at_best(run, name, task)
    figure = RunFigure(
        task.label, task.seed, test, valid, epochs, int(run.history[-1]["epoch"]),
        old.get("wall_s", round(time.perf_counter() - start, 3)), old.get("commit", commit()),
        old.get("at_once", task.at_once),
    )  # fmt: skip
    content = {"of": _identity(task) | {"settings": task.settings.to_json()}, "figure": asdict(figure)}
    write_bytes(task.folder / FIGURE, (json.dumps(content, indent=2) + "\n").encode())
    advance(1.0 - shown, task.label)
    return figure


def _at_best(run: Run, name: str, task: RunTask) -> tuple[int, float, float]:
    """Epoch, validation and test figure of a metric."""
    if task.each_metric:
        measure, best = find_measure(name), None
        for epoch in run.history:
            found = {split: epoch["metrics"][split].get(name) for split in SPLITS}
            if None not in found.values() and (best is None or measure.better(found["valid"], best[1])):
                best = (int(epoch["epoch"]), found["valid"], found["test"])
        if best is not None:
            return best
        known = sorted(run.history[-1]["metrics"]["test"])
    else:
        there = [run.metrics.get(split, {}) for split in SPLITS]
        if all(name in found for found in there):
            return run.best_epoch, there[0][name], there[1][name]
        known = sorted(run.metrics.get("test", {}))
    raise UsageError(f"row {task.label!r}: metric {name!r}: expected one that its loss has on this data, found {known}")


def _identity(task: RunTask) -> dict[str, Any]:
    """What a figure belongs to, beside the settings."""
    return {"fingerprint": task.fingerprint, "metrics": list(task.metrics), "each_metric": task.each_metric}


def _stored(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, KeyError):
        return dict(json.loads((folder / FIGURE).read_text(encoding="utf-8"))["figure"])
    return {}


_messages: Any = None


def _run_in_processes(
    tasks: list[RunTask],
    jobs: int,
    advance: Callable[[float, str], None],
    done: Callable[[RunTask, RunFigure], None],
) -> None:
    context = get_context("spawn")
    messages = context.Queue()

    def pass_on() -> None:
        while (message := messages.get()) is not None:
            advance(*message)

    reader = Thread(target=pass_on, daemon=True)
    reader.start()
    try:
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_take_queue, initargs=(messages,)) as pool:
            futures: dict[Future[RunFigure], RunTask] = {pool.submit(_in_process, task): task for task in tasks}
            try:
                for future in as_completed(futures):
                    done(futures[future], future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        messages.put(None)
        reader.join()


def _take_queue(messages: Any) -> None:
    global _messages
    _messages = messages


def _in_process(task: RunTask) -> RunFigure:
    return run_one(task, lambda share, label: _messages.put((share, label)))
