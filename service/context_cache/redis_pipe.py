"""One Redis connection shared by many requests at once: commands leave together, replies come back in order.

Every command has a future in a queue; the reader gives each reply to the oldest future. A caller that was cancelled
or timed out leaves its future behind, so its late reply is thrown away and can never be taken for another one's.
Compared with one pooled connection per request: no lock, no wait for a free connection, less than half the CPU, and
half the turns of the event loop, each of which costs a busy worker milliseconds.

The endpoint connects (`redis_endpoint.py`); then the pipe takes the connection's transport over and parses replies with
hiredis as they arrive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from service.context_cache.redis_endpoint import Endpoint

Part = bytes | int
_NOT_YET = object()


class PipeBroken(Exception):
    """The connection could not be made or was lost; the command may or may not have been executed."""


class RedisPipe(asyncio.Protocol):
    """A connection that connects by itself; commands issued before it is connected are sent once it is."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connection: Any = None  # kept for as long as its transport is used
        self._reader = hiredis.Reader(replyError=ResponseError, notEnoughData=_NOT_YET)
        self._early: list[tuple[asyncio.Future[Any], bytes]] = []  # issued before there was a connection
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._task = asyncio.get_running_loop().create_task(self._connect())
        self.broken = False

    def request(self, *command: Part) -> asyncio.Future[Any]:
        """The future reply. It fails with `PipeBroken`, or with redis-py's ResponseError for an error reply."""
        return self.request_all([command])[0]

    def request_all(self, commands: Sequence[tuple[Part, ...]]) -> list[asyncio.Future[Any]]:
        """The future replies to commands that leave in one piece."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]  # any length
        if self._transport is not None and self._transport.is_closing():
            self.close("the server closed the connection")  # `connection_lost` is on its way
        if self.broken:
            for future in futures:
                _fail(future, "the connection is closed")
        elif self._transport is None:
            self._early += zip(futures, packed, strict=True)
        else:
            self._waiting += futures
            self._transport.write(b"".join(packed))
        return futures

    def close(self, detail: str = "the connection was closed") -> None:
        """Fail everything that waits and drop the connection, without waiting for the server."""
        if self.broken:
            return
        self.broken = True
        for future in (*self._waiting, *(future for future, _ in self._early)):
            _fail(future, detail)
        self._waiting.clear()
        self._early.clear()
        if self._transport is not None:
            self._transport.abort()
            self._connection._reader = self._connection._writer = None  # nothing of it is left to close
        elif self._task is not asyncio.current_task():
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Give each reply to the oldest future."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOT_YET:
                future = self._waiting.popleft()
                if future.done():
                    continue  # its caller has gone
                if isinstance(reply, ResponseError):
                    future.set_exception(reply)
                    future.exception()  # retrieved: not every caller looks at every reply
                else:
                    future.set_result(reply)
        except hiredis.ProtocolError as error:
            self.close(f"not a Redis reply: {error}")
        except IndexError:
            self.close("a reply that nothing had asked for")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits; the next request makes a new pipe."""
        self.close("the server closed the connection" if exc is None else str(exc))

    async def _connect(self) -> None:
        try:
            self._connection = connection = await self._endpoint.connect()
            transport = connection._writer.transport
            transport.set_protocol(self)
        except Exception as error:  # whatever it is, the callers must hear of it
            self.close(str(error) or type(error).__name__)
            return
        if transport.is_closing():
            self.close("the server closed the connection")
            return
        # A command whose caller has gone before it was sent is not sent at all.
        early = [entry for entry in self._early if not entry[0].done()]
        self._early.clear()
        self._transport = transport
        self._waiting += (future for future, _ in early)
        transport.write(b"".join(packed for _, packed in early))


def _fail(future: asyncio.Future[Any], detail: str) -> None:
    if not future.done():
        future.set_exception(PipeBroken(detail))
        future.exception()  # retrieved: its caller may be gone, and that is no news
