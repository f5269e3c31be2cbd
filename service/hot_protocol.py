"""uvicorn's HTTP protocol with a short cut for the hot routes: from the parser straight to the handler and back.

For `POST /rank` and `POST /score` no ASGI scope, task, event and message is made: when the body is complete the route's
handler is called, and its reply leaves in one write. A reply that has to wait (Redis, a thread, a model being loaded)
becomes a task, with uvicorn's own bookkeeping for pipelined requests and for a graceful end. Everything else, and
everything while an access log is wanted, goes the ordinary way; `HotRoute` answers the same there.

Clients send the same few heads again and again. The head of a hot request that the parser has read in full is
remembered byte for byte; one that arrives again, with the whole body behind it, is not parsed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.body import check_headers
from service.errors import MEDIA_TYPE, BodyTooLarge, ServiceError
from service.routes.hot_route import HotRoute, Reply

_TYPES = {200: b"content-type: application/json\r\ncontent-length: "}
_PROBLEM = b"content-type: " + MEDIA_TYPE.encode() + b"\r\ncontent-length: "
_CLOSE = b"\r\nconnection: close\r\n\r\n"
_HEAD_END = b"\r\n\r\n"
_LONGEST_HEAD, _MOST_HEADS = 1024, 4096


class _Pending:
    """A hot request whose reply is not there yet, as uvicorn sees the request under way."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.message_event = asyncio.Event()


class HotProtocol(HttpToolsProtocol):
    """One connection."""

    _default_headers: list[tuple[bytes, bytes]] | None = None
    _head = b""
    _success = b""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        routes: dict[str, HotRoute] = getattr(self.config.loaded_app, "hot", {})
        plain = not self.access_log and self.limit_concurrency is None and not self.root_path
        self._routes = {path.encode(): route for path, route in routes.items()} if plain else {}
        # Head -> route and length of the body, of all connections.
        self._heads: dict[bytes, tuple[HotRoute, int]] = getattr(self.config.loaded_app, "known_heads", {})
        self._route: HotRoute | None = None
        self._keep_alive = True
        self._chunks: list[bytes] = []
        self._size = 0
        self._replied = False
        self._closing = False
        self._data = b""  # what the parser is reading
        self._between = True  # the parser has read whole messages only
        self._active_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Answer a request whose head is known at once; give everything else to the parser."""
        if self._between and self.timeout_keep_alive_task is not None:  # not the first one, and none under way
            size = data.find(_HEAD_END) + 4
            known = self._heads.get(data[:size])
            if known is not None and known[1] == len(data) - size:
                reply = known[0].reply(data[size:])
                if type(reply) is tuple:
                    self._active_at = perf_counter()
                    self.server_state.total_requests += 1
                    self._send(reply, True)
                else:
                    self._unset_keepalive_if_required()
                    self._await_reply(reply, True)  # type: ignore[arg-type]
                return
        self._data = data
        super().data_received(data)
        self._data = b""

    def timeout_keep_alive_handler(self) -> None:
        """The timer of an idle connection, which known heads do not restart: close, or wait for what is left."""
        left = self._active_at + self.timeout_keep_alive - perf_counter()
        if left <= 0.0:
            super().timeout_keep_alive_handler()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)

    def _remember_head(self, route: HotRoute, body: bytes) -> None:
        """The parser has read a hot request; if it came in one piece, its head is good for others."""
        data = self._data
        size = len(data) - len(body)
        in_one_piece = 0 < size <= _LONGEST_HEAD and data.find(_HEAD_END) + 4 == size
        if in_one_piece and data.endswith(body) and self._keep_alive and not self.expect_100_continue:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[data[:size]] = route, len(body)

    # -- parser callbacks ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Collect URL and headers; the scope is made only if the request is not a hot one."""
        self._between = False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Take the short cut, or hand on to uvicorn."""
        route = self._routes.get(self.url)
        idle = self.cycle is None or self.cycle.response_complete
        if route is None or not idle or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expects
            self.headers.extend(headers)  # the scope holds this list
            super().on_headers_complete()
            return
        self._route = route
        self._keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        self._chunks, self._size, self._replied = [], 0, False
        try:
            check_headers(self.headers, route.max_body_bytes)
        except ServiceError as error:
            self._refuse(route, error)
        else:
            if self.expect_100_continue:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect the body, up to the limit."""
        route = self._route
        if route is None:
            super().on_body(body)
        elif not self._replied:
            self._chunks.append(body)
            self._size += len(body)
            if self._size > route.max_body_bytes:
                self._refuse(route, BodyTooLarge.over(route.max_body_bytes))

    def on_message_complete(self) -> None:
        """Answer."""
        self._between = True
        route = self._route
        if route is None:
            super().on_message_complete()
            return
        self._route = None
        if self._replied:  # refused before its end
            return
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._remember_head(route, body)
        reply = route.reply(body)
        keep_alive = self._keep_alive and not self._closing
        if type(reply) is tuple:
            self._send(reply, keep_alive)
            self.on_response_complete()
        else:
            self._await_reply(reply, keep_alive)  # type: ignore[arg-type]

    def _await_reply(self, reply: Awaitable[Reply], keep_alive: bool) -> None:
        pending = _Pending(keep_alive)
        self.cycle = pending  # type: ignore[assignment]
        task = self.loop.create_task(self._send_later(pending, reply))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    # -- replies ------------------------------------------------------------------------------------------------------

    async def _send_later(self, pending: _Pending, reply: Awaitable[Reply]) -> None:
        answer = await reply
        pending.response_complete = True
        if not pending.disconnected:
            self._send(answer, pending.keep_alive)
        self.on_response_complete()

    def _refuse(self, route: HotRoute, error: ServiceError) -> None:
        """Reply before the request's end; what is left of its body is read and dropped."""
        self._chunks = []
        self._replied = True
        self._send(route.problem(error), self._keep_alive and not self._closing)
        self.on_response_complete()

    def _send(self, reply: Reply, keep_alive: bool) -> None:
        status, body = reply
        default = self.server_state.default_headers
        if default is not HotProtocol._default_headers:  # a new list every second
            HotProtocol._default_headers = default
            HotProtocol._head = b"".join(b"%b: %b\r\n" % header for header in default)
            HotProtocol._success = STATUS_LINE[200] + HotProtocol._head + _TYPES[200]
        if status == 200 and keep_alive:
            self.transport.write(b"%b%d\r\n\r\n%b" % (HotProtocol._success, len(body), body))
            return
        end = b"\r\n\r\n" if keep_alive else _CLOSE
        kind = _TYPES.get(status, _PROBLEM)
        self.transport.write(b"%b%b%b%d%b%b" % (STATUS_LINE[status], HotProtocol._head, kind, len(body), end, body))
        if not keep_alive:
            self.transport.close()

    def shutdown(self) -> None:
        """A graceful end: a request whose body is still coming is answered first."""
        if self._route is not None and not self._replied:
            self._closing = True
        else:
            super().shutdown()
