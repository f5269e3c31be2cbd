"""What the users of a Locust run measured, by stage: shared by users, shapes and, over several processes, by master and
workers.

A stage is an interval of constant load on one server. A request belongs to the stage in which it was *due*; one that
was due before the stage began, or outside of any, is not counted.
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import Any

from locust.runners import MasterRunner, Runner, WorkerRunner

from loadtest.latencies import Latencies

MESSAGE = "ctrank_stage"


class Tally:
    """Latencies, faults and lost contexts of one stage."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.faults: Counter[str] = Counter()
        self.lost = 0

    def merge(self, found: dict[str, Any]) -> None:
        """Add what another process counted."""
        self.latencies.merge(found["buckets"])
        self.faults.update(found["faults"])
        self.lost += found["lost"]

    def to_dict(self) -> dict[str, Any]:
        """For a message."""
        return {"buckets": dict(self.latencies.buckets), "faults": dict(self.faults), "lost": self.lost}


class Recorder:
    """The stage under way, and the tallies of all."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new run begins."""
        self.floor = False  # whether users go to the floor application
        self.stage = ""  # the stage that counts now, or none
        self.changes = 0  # of stage or server: users make a new schedule after each
        self.tallies: dict[str, Tally] = {}

    def announce(self, runner: Runner | None, stage: str, floor: bool) -> None:
        """Begin (or, with an empty name, end) a stage, in this process and all workers."""
        self._set(stage, floor)
        if isinstance(runner, MasterRunner):
            runner.send_message(MESSAGE, {"stage": stage, "floor": floor})

    def listen(self, runner: Runner | None) -> None:
        """As a worker, follow the master's stages."""
        if isinstance(runner, WorkerRunner):
            runner.register_message(MESSAGE, lambda environment, msg, **_: self._set(**msg.data))

    def _set(self, stage: str, floor: bool) -> None:
        if floor != self.floor:
            self.changes += 1
        self.stage, self.floor, self.began = stage, floor, perf_counter()

    def add(self, stage: str, due: float, seconds: float, fault: str | None, lost: bool) -> None:
        """Count one request of a stage: when it was due, and the time from then to its reply."""
        if not stage or (stage == self.stage and due < self.began):
            return
        tally = self.tallies.setdefault(stage, Tally())
        tally.latencies.add(seconds)
        tally.lost += lost
        if fault is not None:
            tally.faults[fault] += 1

    def take(self) -> dict[str, Any]:
        """The tallies since the last call, for the master."""
        found, self.tallies = {k: t.to_dict() for k, t in self.tallies.items()}, {}
        return found

    def merge(self, found: dict[str, Any]) -> None:
        """Add what a worker sent."""
        for stage, tally in found.items():
            self.tallies.setdefault(stage, Tally()).merge(tally)


RECORDER = Recorder()
