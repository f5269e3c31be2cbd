"""What the hot routes have in common: body in, status and JSON out; every failure becomes a problem document."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Protocol, TypeAlias

import msgspec

from service.body import ClientDisconnected, Receive, Scope, Send, check_text, read_body, send_problem, send_reply
from service.errors import ServiceError
from service.ranking_errors import RankingError
from service.routes.problems import as_problem
from service.routes.timing import RouteTimers

logger = logging.getLogger("ctrank")

Reply: TypeAlias = tuple[int, bytes]
"""Status and body."""


class Answer(Protocol):
    """Body and time of its arrival (`perf_counter` seconds) -> the reply's JSON, or a promise of it."""

    def __call__(self, body: bytes, started: float) -> bytes | Awaitable[bytes]:
        """The reply of one request; raises `ServiceError` or `RankingError`."""
        ...


AtOnce: TypeAlias = Callable[[bytes, float], bytes | None]
"""Body and time of its arrival -> the reply, already counted, or `None` if `Answer` has to make it."""


class HotRoute:
    """A route: check, `answer`, count. `HotProtocol` calls `reply`; as an ASGI application it does the same."""

    def __init__(
        self, answer: Answer, timers: RouteTimers, max_body_bytes: int, at_once: AtOnce = lambda body, started: None
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self._answer, self._timers, self._at_once = answer, timers, at_once

    def reply(self, body: bytes) -> Reply | Awaitable[Reply]:
        """The reply to a complete body that came with the right headers; never raises."""
        started = perf_counter()
        try:
            check_text(body)
            at_once = self._at_once(body, started)
            if at_once is not None:
                return 200, at_once
            answer = self._answer(body, started)
        except Exception as error:
            return self.problem(error)
        if type(answer) is bytes:
            self._timers.finish(started, perf_counter())
            return 200, answer
        return self._later(answer, started)  # type: ignore[arg-type]

    async def _later(self, answer: Awaitable[bytes], started: float) -> Reply:
        try:
            body = await answer
        except Exception as error:
            return self.problem(error)
        self._timers.finish(started, perf_counter())
        return 200, body

    def problem(self, error: Exception) -> Reply:
        """The problem document of a failure, counted."""
        if isinstance(error, RankingError):
            found = as_problem(error)
        elif isinstance(error, ServiceError):
            found = error
        else:
            logger.error("unexpected error", exc_info=error)
            found = ServiceError("an unexpected error; the server's log has the details")
        self._timers.count(found.status)
        return found.status, msgspec.json.encode(found.problem())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request as an ASGI application."""
        try:
            body = await read_body(scope, receive, self.max_body_bytes)
        except ServiceError as error:
            self._timers.count(error.status)
            await send_problem(send, error)
            return
        except ClientDisconnected:
            return
        reply = self.reply(body)
        await send_reply(send, *(reply if type(reply) is tuple else await reply))  # type: ignore[misc]
