"""The search for the capacity with the open-loop client: rising loads, then bisection.

A load is two or three slices of Poisson arrivals, until two agree whether the objective is met. The floor application
gets the same traffic at each load, before the service; there one slice that meets it is enough.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from loadtest.answer import fault
from loadtest.open_loop import Replies, offer
from loadtest.stage import Capacity, Stage, capacity, loads, undecided
from loadtest.traffic import Request, Traffic
from loadtest.usage import read_usage
from service.bench.server_process import Server

USERS = 500  # whose streams are interleaved


@dataclass(frozen=True)
class Plan:
    """How to search: the first load, its growth, the bisections after the first miss, the length of a slice."""

    first_per_s: float = 1000.0
    growth: float = 2.0
    bisections: int = 4
    slice_s: float = 1.0
    most_per_s: float = 100_000.0


class Search:
    """Measures loads on the service and on the floor."""

    def __init__(self, ours: Server, floor: Server, traffic: Traffic, nap: bool) -> None:
        self._servers = {"ctrank": ours, "floor": floor}
        self._streams = {name: traffic.interleaved(USERS) for name in self._servers}  # each sees whole sessions
        self._rng, self._nap = Random(f"{traffic.seed}/arrivals"), nap
        self.stages: list[Stage] = []
        self.late_p99_ms = 0.0  # of the client itself, the worst of all slices that the service kept up with

    def run(self, objective_ms: float, plan: Plan) -> Capacity:
        """Find the capacity; `stages` has all loads afterwards."""
        low, high = 0.0, plan.first_per_s
        while high <= plan.most_per_s and self._meets(high, objective_ms, plan.slice_s):
            low, high = high, high * plan.growth
        for _ in range(plan.bisections):
            middle = (low + high) / 2
            if self._meets(middle, objective_ms, plan.slice_s):
                low = middle
            else:
                high = middle
        return capacity(self.stages, objective_ms)

    def _meets(self, per_s: float, objective_ms: float, slice_s: float) -> bool:
        for server in ("floor", "ctrank"):
            slices: list[Stage] = []
            while undecided(slices, objective_ms, pass_at_once=server == "floor"):
                slices.append(self.slice(server, per_s, slice_s))
            self.stages += slices
        return loads(slices, "ctrank", objective_ms)[0].meets(objective_ms)

    def slice(self, server: str, per_s: float, seconds: float) -> Stage:
        """One slice: arrivals of a Poisson process for so many seconds."""
        due, at = [], 0.0
        while (at := at + self._rng.expovariate(per_s)) < seconds:
            due.append(at)
        stream = self._streams[server]
        requests = [next(stream) for _ in due]
        target = self._servers[server]
        before = read_usage(target.url) if server == "ctrank" else None
        gc.collect()
        gc.disable()  # a collection would stop the client in the middle of a slice
        try:
            replies = offer(target.port, requests, due, nap=self._nap)
        finally:
            gc.enable()
        after = read_usage(target.url) if server == "ctrank" else None
        faults, lost, unanswered = _faults(server, requests, replies)
        elapsed = max(seconds, float(np.max(replies.latencies_s + np.array(due))))
        p50, p90, p99, p999 = (float(x) * 1e3 for x in np.quantile(replies.latencies_s, (0.5, 0.9, 0.99, 0.999)))
        if replies.late_s and not unanswered:
            self.late_p99_ms = max(self.late_p99_ms, float(np.quantile(replies.late_s, 0.99)) * 1e3)
        used = after.cpu_s - before.cpu_s if before and after and not unanswered else None
        return Stage(
            server,
            per_s,
            (len(requests) - unanswered) / elapsed,
            p50,
            p90,
            p99,
            p999,
            seconds=seconds,
            requests=len(requests),
            errors=faults.total(),
            lost_contexts=lost,
            faults=dict(faults),
            cores_used=None if used is None else used / elapsed,
            memory_bytes=after.memory_bytes if after else None,
        )


def _faults(server: str, requests: Sequence[Request], replies: Replies) -> tuple[Counter[str], int, int]:
    """Faults, lost contexts and requests without a reply (which are no faults: the load was too much)."""
    faults: Counter[str] = Counter()
    lost = unanswered = 0
    for request, status, body in zip(requests, replies.statuses, replies.bodies, strict=True):
        if status == 0:
            unanswered += 1
        elif server == "floor":
            faults.update([f"floor: status {status}"] if status != 200 else [])
        elif status == 404 and request.context:
            lost += 1
        elif found := fault(request, status, body):
            faults[found] += 1
    return faults, lost, unanswered
