"""The Locust entry: `locust -f loadtest/locustfile.py --host http://localhost:8000`, headless or with the web UI.

Without a shape the run has the users that you give it (`-u`, or the web UI), each asking `--user-rate` times a second;
with `loadtest/steps_shape.py` or `loadtest/soak_shape.py` after it (`-f a,b`) the shape leads. Every option of
`loadtest.options` has a `LOADTEST_` variable. The exit code is 1 if a check failed or no target was found.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from time import perf_counter
from typing import Any

import gevent
from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

from loadtest.options import TRAFFIC, add_options, registry_of
from loadtest.outcome import OUTCOME
from loadtest.ranking_user import RankingUser
from loadtest.recorder import RECORDER, Tally
from loadtest.steps import figures
from loadtest.target import TargetError, find_target
from loadtest.traffic import Traffic

__all__ = ["RankingUser"]

WHOLE_RUN = "the whole run"
_began = 0.0

events.init_command_line_parser.add_listener(add_options)  # type: ignore[no-untyped-call]


@events.init.add_listener
def _connect(environment: Environment, **_: Any) -> None:
    """Workers follow the master's stages and send it their tallies."""
    RECORDER.listen(environment.runner)


@events.report_to_master.add_listener
def _report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    data["ctrank_tallies"] = RECORDER.take()


@events.worker_report.add_listener
def _merge(client_id: str, data: dict[str, Any], **_: Any) -> None:
    RECORDER.merge(data.get("ctrank_tallies", {}))


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    global _began
    options: Any = environment.parsed_options
    RECORDER.tallies.clear()
    try:
        target = find_target(environment.host or "", options.model, registry_of(options))
        RankingUser.traffic = Traffic(target, TRAFFIC[options.traffic], options.seed, partial(gevent.sleep, 0))
        RankingUser.numbers = count()
    except TargetError as error:
        print(f"load test: {error}", flush=True)
        environment.process_exit_code = 1
        assert environment.runner is not None
        environment.runner.quit()
        return
    if environment.shape_class is None:
        OUTCOME.begin("plain", [])
        RECORDER.announce(environment.runner, WHOLE_RUN, floor=False)
    _began = perf_counter()


@events.test_stop.add_listener
def _stop(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    if isinstance(environment.runner, WorkerRunner) or environment.process_exit_code:
        return
    if environment.shape_class is None:
        elapsed, tally = perf_counter() - _began, RECORDER.tallies.pop(WHOLE_RUN, Tally())
        offered = getattr(environment.runner, "target_user_count", 0) * options.user_rate
        OUTCOME.stages.append(figures("ctrank", offered, elapsed, tally, None, None))
    if not OUTCOME.judge(options):
        environment.process_exit_code = 1
