"""`locust -f loadtest/locustfile.py,loadtest/steps_shape.py`: raise the load until the p99 objective breaks.

Each step has `--step-growth` times the users of the one before. Where there is a floor application, it gets the same
load first, for the same time: that is what client and web server cost, and where it breaks, the client is the limit. A
load that misses the objective is measured again; it takes two misses to break.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from locust import LoadTestShape

from loadtest.outcome import OUTCOME
from loadtest.stage import capacity, loads, undecided
from loadtest.steps import Stages, Tick


class StepShape(LoadTestShape):
    """Steps until the service's p99 is above the objective, or it does not keep up, or there are enough users."""

    def reset_time(self) -> None:
        """A run begins."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._ticks = self._steps()

    def tick(self) -> Tick | None:
        """Users and spawn rate of the next second; `None` ends the run."""
        return next(self._ticks, None)

    def _steps(self) -> Iterator[Tick]:
        runner: Any = self.runner
        options = runner.environment.parsed_options
        stages = Stages(runner, runner.environment.host, options)
        OUTCOME.begin("steps", stages.done)
        users = float(options.step_users)
        while users <= options.most_users:
            for floor in (True, False) if options.floor_host else (False,):
                here = len(stages.done)
                while undecided(stages.done[here:], options.objective_ms, pass_at_once=True):
                    yield from stages.stage(round(users), floor, options.stage_seconds)
                    print(stages.done[-1], flush=True)
            if not loads(stages.done[here:], "ctrank", options.objective_ms)[0].meets(options.objective_ms):
                break
            users *= options.step_growth
        print(capacity(stages.done, options.objective_ms).describe(), flush=True)
