"""An open-loop client over loopback: requests are sent when they are due, whatever the replies take.

Raw protocols and prebuilt parts, because Locust's own cost per request is many times the service's. The client does
not wait in the event loop, whose timers are too coarse: it looks again and again, and naps in between for 50 us (the
rest of its core is Redis's) or not at all. A request that finds no free
connection waits for one; latency counts from when it was due to the last byte of its reply.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import cast

import numpy as np
import numpy.typing as npt

from loadtest.traffic import Request
from service.bench.load import post

NAP_S = 5e-5
GRACE_S = 1.0  # for replies after the last request was due


@dataclass
class Replies:
    """One entry per request; a request without a reply has a status of 0 and the time that it waited in vain."""

    latencies_s: npt.NDArray[np.float64]
    statuses: list[int]
    bodies: list[bytes]
    late_s: list[float] = field(default_factory=list)  # how late the client was where a connection was free


class _Connection(asyncio.Protocol):
    """Carries one request at a time."""

    def __init__(self, client: _Client) -> None:
        self._client, self._received, self._head, self._end = client, b"", 0, -1
        self.index = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, index: int) -> None:
        """Send a request; this connection is busy until its reply is complete."""
        self.index = index
        request = self._client.requests[index]
        self.transport.write(post(request.path, request.body))

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if self._end < 0:
            self._head = self._received.find(b"\r\n\r\n") + 4
            if self._head < 4:
                return
            lower = self._received[: self._head].lower()
            at = lower.find(b"content-length:") + 15
            self._end = self._head + int(lower[at : lower.find(b"\r", at)])
        if len(self._received) < self._end:
            return
        reply, index = self._received, self.index
        self._received, self._end, self.index = b"", -1, -1
        self._client.answered(self, index, int(reply[9:12]), reply[self._head :])

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost(self)


class _Client:
    """Hands due requests to idle connections."""

    def __init__(self, requests: Sequence[Request], due_s: Sequence[float], nap: bool) -> None:
        self.requests, self._due_s, self._nap = requests, due_s, nap
        self.idle: list[_Connection] = []
        self._waiting: deque[int] = deque()
        self._next = self._answered = 0
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self.replies = Replies(np.zeros(len(requests)), [0] * len(requests), [b""] * len(requests))

    def start(self) -> None:
        """Let time run."""
        self._began = perf_counter()
        self._pump()

    def _pump(self) -> None:
        now = perf_counter() - self._began
        due, n = self._due_s, len(self.requests)
        while self._next < n and due[self._next] <= now:
            if self.idle:
                self.replies.late_s.append(now - due[self._next])
                self.idle.pop().send(self._next)
            else:
                self._waiting.append(self._next)
            self._next += 1
        if self._answered == n or now > due[-1] + GRACE_S:
            self._finish(now)
        else:
            if self._nap:
                sleep(NAP_S)
            else:
                os.sched_yield()
            self._loop.call_soon(self._pump)

    def answered(self, connection: _Connection, index: int, status: int, body: bytes) -> None:
        """Note the reply and send what has waited longest."""
        if self.done.done():
            return
        replies = self.replies
        replies.latencies_s[index] = perf_counter() - self._began - self._due_s[index]
        replies.statuses[index], replies.bodies[index] = status, body
        self._answered += 1
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self.idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        """A closed connection carries no more; without any, nothing is answered."""
        if connection in self.idle:
            self.idle.remove(connection)

    def _finish(self, now: float) -> None:
        for index, status in enumerate(self.replies.statuses):
            if not status:
                self.replies.latencies_s[index] = now - self._due_s[index]
        self.done.set_result(None)


async def _offer(
    port: int, requests: Sequence[Request], due_s: Sequence[float], connections: int, nap: bool
) -> Replies:
    client = _Client(requests, due_s, nap)
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: _Connection(client), "127.0.0.1", port) for _ in range(connections)]
    client.idle = [connection for _, connection in opened]
    client.start()
    await client.done
    for transport, _ in opened:
        transport.close()
    await asyncio.sleep(0)
    return client.replies


def offer(
    port: int, requests: Sequence[Request], due_s: Sequence[float], connections: int = 32, nap: bool = True
) -> Replies:
    """Send `requests[i]` at `due_s[i]` seconds (ascending) from now."""
    import uvloop

    replies: Replies = uvloop.run(_offer(port, requests, due_s, connections, nap))
    return replies
