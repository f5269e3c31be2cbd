"""Where a connection leads: to one server, or to whichever server the Sentinels call the master just then.

redis-py connects (TLS, user, password, database); who uses the connection is no matter of this module.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError

# Off the request path: a server may be slow here without being away.
BACKGROUND_TIMEOUT_S = 1.0


class Address(NamedTuple):
    """Host and port of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Endpoint(Protocol):
    """What a connection is made to."""

    async def connect(self) -> Any:
        """A connected redis-py connection. Raises `RedisError`, `OSError` or `TimeoutError`."""
        ...


class Server:
    """One server, by the redis-py connection class and its options."""

    def __init__(self, connection_class: type[Any], options: dict[str, Any]) -> None:
        self._class, self._options = connection_class, options

    @classmethod
    def from_url(cls, url: str) -> Server:
        """The server of a URL that redis-py knows (redis://, rediss://, unix://). Raises `ValueError` for a bad one.

        What a pipe relies on is set after the URL was read, so that no query argument can undo it: no timeouts of
        redis-py's own (a deadline belongs to the caller, and its timed writes could reorder commands), bytes in and
        out, and no retries.
        """
        fixed: dict[str, Any] = {
            "socket_timeout": None,
            "socket_connect_timeout": BACKGROUND_TIMEOUT_S,
            "decode_responses": False,
            "health_check_interval": 0,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
        }
        pool = ConnectionPool.from_url(url, **fixed)
        server = cls(pool.connection_class, pool.connection_kwargs | fixed)
        try:
            server._connection()
        except Exception as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            raise ValueError(
                f"option {unknown[1]!r}: expected one of a redis-py connection (ssl_ options need a rediss scheme)"
                if unknown
                else f"the options do not make a connection: {error}"
            ) from None
        return server

    def at(self, address: Address) -> Server:
        """Another server of the same user, password and TLS options."""
        return Server(self._class, self._options | {"host": address.host, "port": address.port})

    @property
    def address(self) -> Address:
        """Host and port; not of a Unix socket."""
        return Address(self._options["host"], self._options["port"])

    async def connect(self) -> Any:
        """A connected redis-py connection."""
        connection = self._connection()
        try:
            await connection.connect()
        except asyncio.CancelledError:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def ask(self, *command: str) -> Any:
        """The reply to one command over a connection of its own, within `BACKGROUND_TIMEOUT_S`."""
        async with asyncio.timeout(BACKGROUND_TIMEOUT_S):
            connection = await self.connect()
            try:
                await connection.send_command(*command)
                return await connection.read_response()
            finally:
                await connection.disconnect(nowait=True)

    def _connection(self) -> Any:
        return self._class(**self._options)


class SentinelMaster:
    """The master `name` of a group of Sentinels; `server` has the options of connections to it.

    Every connection begins with the question who is the master, to all Sentinels at once: the first answer counts, so
    that a Sentinel that died together with the master costs no time. An answer may be out of date; the probe of a
    `RedisStore` finds out.
    """

    def __init__(self, sentinels: Sequence[Server], name: str, server: Server) -> None:
        self._sentinels, self._name, self._server = sentinels, name, server

    async def connect(self) -> Any:
        """A connected redis-py connection to the master of this moment."""
        return await self._server.at(await self._address()).connect()

    async def _address(self) -> Address:
        asking = [asyncio.create_task(self._ask(sentinel)) for sentinel in self._sentinels]
        failures = []
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    return await answer
                except (RedisError, OSError, TimeoutError) as error:
                    failures.append(str(error) or type(error).__name__)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        raise NoConnection(f"no Sentinel names a master {self._name!r}: {'; '.join(failures)}")

    async def _ask(self, sentinel: Server) -> Address:
        reply = await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        if reply is None:
            raise NoConnection(f"{sentinel.address} does not know it")
        host, port = reply
        return Address(host.decode(), int(port))
