"""`locust -f loadtest/locustfile.py,loadtest/soak_shape.py`: constant load; do latency and memory drift?

`--soak-slices` slices of `--stage-seconds` each, with `--soak-users` users throughout. Where there is a floor
application, it gets a slice before each, and drift is that of the ratio: what slows down both is not the service's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from locust import LoadTestShape

from loadtest.outcome import OUTCOME
from loadtest.steps import Stages, Tick


class SoakShape(LoadTestShape):
    """Slices of equal load, one after another."""

    def reset_time(self) -> None:
        """A run begins."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._ticks = self._slices()

    def tick(self) -> Tick | None:
        """Users and spawn rate of the next second; `None` ends the run."""
        return next(self._ticks, None)

    def _slices(self) -> Iterator[Tick]:
        runner: Any = self.runner
        options = runner.environment.parsed_options
        stages = Stages(runner, runner.environment.host, options)
        OUTCOME.begin("soak", stages.done)
        for _ in range(options.soak_slices):
            for floor in (True, False) if options.floor_host else (False,):
                yield from stages.stage(options.soak_users, floor, options.stage_seconds)
                print(stages.done[-1], flush=True)
