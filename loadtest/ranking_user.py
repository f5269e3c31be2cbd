"""The Locust user: replays a stream of seeded traffic at random times of a stated rate, and checks every reply.

The load is open: a user's requests are due at the times of a Poisson process, whatever the replies take, and latency
counts from the time a request was due. A slow server is therefore not asked less often (up to one request in flight
per user), and the wait behind a slow reply is part of the latency of those that wait.
"""

from __future__ import annotations

from itertools import count
from random import Random
from time import perf_counter
from typing import Any, ClassVar

import gevent
from locust import FastHttpUser, constant, task

from loadtest.answer import fault
from loadtest.recorder import RECORDER
from loadtest.traffic import Request, Traffic

_HEADERS = {"content-type": "application/json"}


class RankingUser(FastHttpUser):
    """One of the users; `options` of the run say how often it asks."""

    wait_time = constant(0)
    connection_timeout = network_timeout = 10.0
    traffic: ClassVar[Traffic]  # set before the users of a run start
    numbers: ClassVar[count[int]]

    def on_start(self) -> None:
        """Take the next stream."""
        options: Any = self.environment.parsed_options
        runner: Any = self.environment.runner
        name = f"{getattr(runner, 'worker_index', 0)}-{next(self.numbers)}"
        self._streams = {floor: self.traffic.stream(name) for floor in (False, True)}  # each server sees whole sessions
        self._clock = Random(f"{options.seed}/due/{name}")
        self._rate = float(options.user_rate)
        self._floor_host = options.floor_host.rstrip("/")
        self._changes, self._due = -1, 0.0

    @task
    def next_request(self) -> None:
        """Wait until the next request is due, send it, check and count the reply."""
        now = perf_counter()
        if self._changes != RECORDER.changes:  # another server: what was due before is not owed to it
            self._changes, self._due = RECORDER.changes, now
        self._due += self._clock.expovariate(self._rate)
        if self._due > now:
            gevent.sleep(self._due - now)
        if self._changes == RECORDER.changes:
            self._send(next(self._streams[RECORDER.floor]), RECORDER.stage, RECORDER.floor)

    def _send(self, request: Request, stage: str, floor: bool) -> None:
        url = (self._floor_host if floor else str(self.host)) + request.path
        name = f"floor {request.path}" if floor else f"{request.path} {request.kind}"
        with self.client.post(url, request.body.decode(), name=name, headers=_HEADERS, catch_response=True) as response:
            seconds = perf_counter() - self._due
            response.request_meta["response_time"] = seconds * 1e3
            status, body = response.status_code, response.content or b""
            lost = status == 404 and bool(request.context)
            wrong = None if lost else fault(request, status, body)
            if (
                floor
            ):  # its reply is looked at as well, so that the client's cost is the same, but only its status counts
                wrong = None if status == 200 else f"floor: status {status}"
            if wrong is None:
                response.success()
            else:
                response.failure(wrong)
        if lost:
            self._send(request.with_context(), stage, floor)
        else:
            RECORDER.add(stage, self._due, seconds, wrong, request.kind == "lost")
