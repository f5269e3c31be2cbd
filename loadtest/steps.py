"""The order of stages of the Locust shapes, as generators of ticks (one per second)."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from time import perf_counter

import gevent
from locust.runners import WORKER_REPORT_INTERVAL, MasterRunner, Runner

from loadtest.recorder import RECORDER, Tally
from loadtest.stage import Stage
from loadtest.usage import read_usage

Tick = tuple[int, float]
READY_S = 60
SETTLE_S = 0.3  # for replies to requests that were due in the stage


class Stages:
    """Runs stages one after another and keeps their figures."""

    def __init__(self, runner: Runner | None, host: str, options: Namespace) -> None:
        self._runner, self._host, self._options = runner, host, options
        self.done: list[Stage] = []
        self._last: tuple[int, bool] | None = None

    def stage(self, users: int, floor: bool, seconds: int) -> Iterator[Tick]:
        """A second to spawn and settle if anything changes (more until all users are there), then the measured ones."""
        tick = users, float(max(users, 100))
        options, name = self._options, f"stage {len(self.done)}"
        if self._last != (users, floor):
            RECORDER.announce(self._runner, "", floor)
            yield tick
        self._last = users, floor
        waited = 0
        while (
            getattr(self._runner, "user_count", users) < users and waited < READY_S
        ):  # workers draw their slates first
            waited += 1
            yield tick
        before = None if floor else read_usage(self._host)
        began = perf_counter()
        RECORDER.announce(self._runner, name, floor)
        for _ in range(seconds):
            yield tick
        RECORDER.announce(self._runner, "", floor)
        elapsed = perf_counter() - began
        after = None if floor else read_usage(self._host)
        if isinstance(self._runner, MasterRunner):
            for _ in range(int(WORKER_REPORT_INTERVAL) + 1):  # the workers' reports are still to come
                yield tick
        else:
            gevent.sleep(SETTLE_S)
        cores = None if before is None or after is None else (after.cpu_s - before.cpu_s) / (after.at - before.at)
        memory = None if after is None else after.memory_bytes
        tally = RECORDER.tallies.pop(name, Tally())
        server, offered = "floor" if floor else "ctrank", users * options.user_rate
        self.done.append(figures(server, offered, elapsed, tally, cores, memory))


def figures(
    server: str, offered_per_s: float, elapsed_s: float, tally: Tally, cores: float | None, memory: float | None
) -> Stage:
    """The stage that a tally makes."""
    latencies = tally.latencies
    p50, p90, p99, p999 = (latencies.quantile_ms(q) for q in (0.5, 0.9, 0.99, 0.999))
    return Stage(
        server,
        offered_per_s,
        latencies.count / elapsed_s,
        p50,
        p90,
        p99,
        p999,
        seconds=elapsed_s,
        requests=latencies.count,
        errors=tally.faults.total(),
        lost_contexts=tally.lost,
        faults=dict(tally.faults),
        cores_used=cores,
        memory_bytes=memory,
    )
