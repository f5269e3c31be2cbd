"""What a user sees of training: a bar per epoch on a terminal, and a line per epoch anywhere."""

from __future__ import annotations

from contextlib import ExitStack

from training.progress import Progress, Task
from training.trainers.plain import EpochReport


def epoch_line(report: EpochReport, best: bool) -> str:
    """``epoch 3: train loss 0.5301, valid loss 0.5450, AUC 0.7893, 1,840,000 rows/s *`` (the star: best so far)."""
    valid = f"valid loss {report.valid_loss:.5f}"
    if report.valid_auc is not None:
        valid += f", AUC {report.valid_auc:.5f}"
    if report.valid_ranking is not None:
        valid = "valid " + ", ".join(f"{k} {v:.5f}" for k, v in report.valid_ranking.items() if "@" in k)
    return (
        f"epoch {report.epoch:2d}: train loss {report.train_loss:.5f}, {valid}, "
        f"{report.rows_per_second:,.0f} rows/s{' *' if best else ''}"
    )


class EpochBars:
    """Callbacks for ``training.run.fit``: ``tick`` moves the epoch's bar, ``epoch_done`` closes it and writes the
    line.
    """

    def __init__(self, progress: Progress, rows: int) -> None:
        self._progress, self._rows = progress, rows
        self._open = ExitStack()
        self._task: Task | None = None

    def tick(self, rows: int) -> None:
        """``rows`` more training rows are done."""
        if not self._progress.stream.isatty():
            return
        if self._task is None:
            self._task = self._open.enter_context(self._progress.task("epoch", self._rows))
        self._task.advance(rows)

    def epoch_done(self, report: EpochReport, best: bool) -> None:
        """An epoch ended."""
        self._open.close()
        self._task = None
        self._progress.line(epoch_line(report, best))
