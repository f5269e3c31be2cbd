"""Progress of long work: bars on a terminal, a plain line every few seconds elsewhere, nothing for ``Silent``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from tqdm import tqdm

EVERY_S = 5.0


class Task(Protocol):
    """One piece of work of known or unknown length."""

    def advance(self, amount: float, note: str = "") -> None:
        """``amount`` more units are done; ``note`` is shown beside them."""


class Progress:
    """What long work reports to. ``Progress`` itself chooses by its stream: bars on a terminal, lines elsewhere."""

    def __init__(self, stream: TextIO | None = None, *, every_s: float = EVERY_S) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.every_s = every_s

    def line(self, text: str) -> None:
        """One line of information, above any bar."""
        if self.stream.isatty():
            tqdm.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    @contextmanager
    def task(self, label: str, total: float | None = None, unit: str = "rows") -> Iterator[Task]:
        """Work of ``total`` units (None: unknown) shown under ``label`` until the block ends."""
        if self.stream.isatty():
            scaled = bool(total and total > 10_000)
            bar = tqdm(total=total, desc=label, unit=unit, unit_scale=scaled, file=self.stream, leave=False)
            try:
                yield _Bar(bar)
            finally:
                bar.close()
        else:
            lines = _Lines(self, label, total, unit)
            yield lines
            lines.close()


class Silent(Progress):
    """Shows nothing."""

    def line(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def task(self, label: str, total: float | None = None, unit: str = "rows") -> Iterator[Task]:
        """A task that shows nothing."""
        yield _Nothing()


class _Nothing:
    def advance(self, amount: float, note: str = "") -> None:
        pass


class _Bar:
    def __init__(self, bar: tqdm) -> None:
        self.bar = bar

    def advance(self, amount: float, note: str = "") -> None:
        if note:
            self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(amount)


class _Lines:
    def __init__(self, progress: Progress, label: str, total: float | None, unit: str) -> None:
        self.progress, self.label, self.total, self.unit = progress, label, total, unit
        self.done = 0.0
        self.started = self.shown = time.monotonic()

    def advance(self, amount: float, note: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.shown >= self.progress.every_s:
            self.shown = now
            share = f" ({self.done / self.total:.0%}{self._left(now)})" if self.total else ""
            extra = f", {note}" if note else ""
            self.progress.line(f"{self.label}: {_count(self.done)} {self.unit}{share}{extra}")

    def _left(self, now: float) -> str:
        """At the pace so far; nothing while there is no telling."""
        if not self.total or self.done <= 0:
            return ""
        left = (now - self.started) * (self.total - self.done) / self.done
        return f", {_duration(left)} left" if left >= 1 else ""

    def close(self) -> None:
        took = time.monotonic() - self.started
        self.progress.line(f"{self.label}: {_count(self.done)} {self.unit} in {took:.1f} s")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(amount: float) -> str:
    return f"{int(amount):,}"
