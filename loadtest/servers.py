"""What a load test of its own starts: Redis, the service with one worker, the floor application; and where they run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from loadtest.open_loop import offer
from loadtest.target import Target, find_target
from loadtest.traffic import Traffic
from service.bench.redis_process import RedisProcess
from service.bench.server_process import Server, floor_process, service_process


class Servers(NamedTuple):
    """The servers, the model that they serve, and the cores of servers (the last one) and clients (the others)."""

    ours: Server
    floor: Server
    target: Target
    cores: list[int]

    @property
    def apart(self) -> bool:
        """Whether servers and clients share no core."""
        return len(self.cores) > 1

    def placement(self) -> str:
        """In words."""
        if self.apart:
            return "service and floor on one core, Locust, the open-loop client and Redis on the others"
        return "everything on the same core"


@contextmanager
def start(registry: Path, model: str | None, cache_dir: Path) -> Iterator[Servers]:
    """Start them; where there are two cores, keep the service and the floor to the last, this process (with what it
    starts) and Redis to the others. The floor replies with what the service replied to a request of 10 items."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with RedisProcess() as redis, service_process(registry, cache_dir, redis_url=redis.url) as ours:
        target = find_target(ours.url, model, registry)
        first = [next(Traffic(target).stream("the floor's reply"))]
        with floor_process(offer(ours.port, first, [0.0], connections=1).bodies[0]) as floor:
            assert redis.process is not None
            try:
                if len(cores) > 1:
                    ours.pin(cores[-1:])
                    floor.pin(cores[-1:])
                    for process in (0, redis.process.pid):
                        os.sched_setaffinity(process, cores[:-1])
                yield Servers(ours, floor, target, cores)
            finally:
                if len(cores) > 1:
                    os.sched_setaffinity(0, cores)
