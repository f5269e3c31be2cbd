"""The second tier in Redis: never on a request's path for longer than its budget, writes in the background.

A read waits at most `timeout_s` for connecting, sending and the reply together. Failures and timeouts in a row open
the breaker (`breaker.py`), and so does a server that says that it cannot serve: both connections are dropped, reads
return at once, writes wait in their bounded queue, and a probe in the background brings everything back. Values are set
with a time to live; Redis does the expiring.

One `RedisStore` is one server, or the master that Sentinels name; a cluster has one for each of its masters
(`redis_cluster.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis.exceptions import ResponseError

from service.context_cache.breaker import Breaker, log
from service.context_cache.redis_endpoint import BACKGROUND_TIMEOUT_S, Endpoint
from service.context_cache.redis_pipe import Part, PipeBroken, RedisPipe
from service.context_cache.stats import CacheStats
from service.context_cache.store import Source, StoreMiss, Write
from service.context_cache.write_queue import Batch, WriteQueue

# A deadline that is noticed later than this was missed by this process itself.
OWN_PAUSE_S = 0.001
# Turns of the event loop in which a reply that is in the socket already reaches its caller.
GRACE_TURNS = 3
# Error replies that are about the server, not about the command. (A probe asks for the same; see `_verify`.)
UNABLE = ("LOADING ", "READONLY ", "MASTERDOWN ", "CLUSTERDOWN The cluster is down")
REDIRECTIONS = ("MOVED ", "ASK ")

# Follows the redirection (the error reply) of a write: True once the write has landed elsewhere.
Follow = Callable[[bytes, Write | None, str], Awaitable[bool]]


class RedisStore:
    """GET on the request's path, SET with EX and DEL behind it. Used from one event loop.

    `name` is for the log and the statistics. For a cluster's node `follow` is given, and `on_open` is called when its
    breaker opens.
    """

    source: Source = "redis"

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        timeout_s: float,
        ttl_s: int,
        stats: CacheStats,
        max_queued: int = 16_384,
        follow: Follow | None = None,
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._endpoint, self._timeout_s, self._ttl_s, self._stats = endpoint, timeout_s, ttl_s, stats
        self._follow, self._on_open = follow, on_open
        self._breaker = Breaker(name, self._probe, self._drop, stats)
        self._reads: RedisPipe | None = None
        self._writes: RedisPipe | None = None
        self._queue = WriteQueue(self._flush, lambda: self._breaker.is_closed, self._breaker.closed, stats, max_queued)
        self._refused = False

    @property
    def is_closed(self) -> bool:
        """Whether the breaker is closed: requests may ask the server."""
        return self._breaker.is_closed

    async def open(self) -> None:
        """Connect ahead of the first request. A server that is away opens the breaker; nothing is raised."""
        try:
            await self._probe()
        except Exception as error:
            self._breaker.trip(str(error) or type(error).__name__)

    async def get(self, key: bytes) -> bytes | None:
        """The value or None. Raises `StoreMiss`: "timeout", "error" (its text is the error reply) or "breaker_open"."""
        return await self.get_by(key, asyncio.get_running_loop().time() + self._timeout_s)

    async def get_by(self, key: bytes, due: float, asking: bool = False) -> bytes | None:
        """The same, until `due` on the event loop's clock; `asking` is how a cluster's ASK redirection is followed."""
        if not self._breaker.is_closed:
            raise StoreMiss("breaker_open")
        if self._reads is None or self._reads.broken:
            self._reads = self._pipe()
        if asking:
            reply = self._reads.request_all([(b"ASKING",), (b"GET", key)])[1]
        else:
            reply = self._reads.request(b"GET", key)
        timer = asyncio.get_running_loop().call_at(due, self._expire, reply, due)
        try:
            value: bytes | None = await reply
        except TimeoutError:
            self._breaker.failure(f"no reply within {1000 * self._timeout_s:g} ms")
            raise StoreMiss("timeout") from None
        except PipeBroken as error:
            self._breaker.failure(str(error))
            raise StoreMiss("error", str(error)) from None
        except ResponseError as error:
            if str(error).startswith(UNABLE):
                self._breaker.trip(str(error))
            else:  # the server is there, and says no
                self._breaker.success()
            raise StoreMiss("error", str(error)) from None
        finally:
            timer.cancel()
        self._breaker.success()
        return value

    def write(self, key: bytes, write: Write | None) -> None:
        """Queue a put, or a delete for None."""
        self._queue.add(key, write)

    def pending(self, key: bytes) -> tuple[bool, Write | None]:
        """Whether a write of this key has not landed yet, and which."""
        return self._queue.pending(key)

    async def landed(self, key: bytes, timeout_s: float) -> bool:
        """Wait until no write of this key is pending; False when `timeout_s` passes first or the breaker is open."""
        if not self._breaker.is_closed:
            return not self._queue.pending(key)[0]
        return await self._queue.landed(key, timeout_s)

    def take_out(self, is_foreign: Callable[[bytes], bool]) -> Batch:
        """Remove and return the pending writes of some keys."""
        return self._queue.take_out(is_foreign)

    async def write_asking(self, key: bytes, write: Write | None) -> bool:
        """Write at once, as the target of an ASK redirection; whether it landed."""
        pipe = self._write_pipe()
        _, reply = pipe.request_all([(b"ASKING",), self._command(key, write)])
        await asyncio.wait([reply], timeout=BACKGROUND_TIMEOUT_S)
        return reply.done() and reply.exception() is None

    async def close(self, timeout_s: float) -> None:
        """Send what is queued, for at most `timeout_s` (not at all while the breaker is open), and disconnect."""
        await self._queue.close(timeout_s if self._breaker.is_closed else 0.0)
        await self._breaker.close()
        self._disconnect()

    def _pipe(self) -> RedisPipe:
        return RedisPipe(self._endpoint)

    def _write_pipe(self) -> RedisPipe:
        if self._writes is None or self._writes.broken:
            self._writes = self._pipe()
        return self._writes

    def _drop(self) -> None:
        self._disconnect()
        self._on_open()

    def _disconnect(self) -> None:
        for pipe in (self._reads, self._writes):
            if pipe is not None:
                pipe.close()
        self._reads = self._writes = None

    def _expire(self, reply: asyncio.Future[object], due: float | None) -> None:
        """Fail the reply, unless this process itself is late: its own pause must not be taken for the server's.

        When a large slate held the event loop beyond the deadline, the command may not even have been sent: the reply
        gets its time once more. When the loop is merely busy, the reply may wait in the socket: it gets some turns.
        """
        loop = asyncio.get_running_loop()
        if due is not None and loop.time() - due > OWN_PAUSE_S:
            loop.call_later(self._timeout_s, self._expire, reply, None)
        else:
            loop.call_soon(self._give_up, reply, GRACE_TURNS)

    def _give_up(self, reply: asyncio.Future[object], turns: int) -> None:
        if reply.done():
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._give_up, reply, turns - 1)
        else:
            reply.set_exception(TimeoutError())

    async def _probe(self) -> None:
        pipe = self._pipe()
        try:
            async with asyncio.timeout(BACKGROUND_TIMEOUT_S):
                await self._verify(pipe)
        except BaseException:
            pipe.close()
            raise
        self._reads = pipe  # the next request finds it connected

    async def _verify(self, pipe: RedisPipe) -> None:
        """Raise for a server that cannot serve. One that refuses to tell (access lists, proxies) can."""
        questions = [(b"PING",), (b"CLUSTER", b"INFO") if self._follow else (b"ROLE",)]
        for reply in pipe.request_all(questions):
            try:
                answer = await reply
            except ResponseError as error:
                if str(error).startswith(UNABLE):
                    raise
                continue
            if isinstance(answer, list) and answer[:1] == [b"slave"]:
                raise ResponseError("it is a replica, not a master")
            if isinstance(answer, bytes) and b"cluster_state:fail" in answer:
                raise ResponseError("its cluster is down")

    def _command(self, key: bytes, write: Write | None) -> tuple[Part, ...]:
        return (b"DEL", key) if write is None else (b"SET", key, write.packed(key), b"EX", self._ttl_s)

    def _flush(self, batch: Batch) -> Awaitable[None]:
        pipe = self._write_pipe()
        commands = [self._command(key, write) for key, write in batch.items()]
        return self._confirm(pipe, batch, dict(zip(batch, pipe.request_all(commands), strict=True)))

    async def _confirm(self, pipe: RedisPipe, batch: Batch, replies: dict[bytes, asyncio.Future[object]]) -> None:
        """Take out of the batch what landed or was refused. What has left it meanwhile belongs to another server."""
        await asyncio.wait(replies.values(), timeout=BACKGROUND_TIMEOUT_S)
        failure = "" if all(reply.done() for reply in replies.values()) else f"no reply within {BACKGROUND_TIMEOUT_S} s"
        if failure:
            pipe.close(failure)
        unable = ""
        redirected: dict[bytes, str] = {}
        for key, reply in replies.items():
            error = reply.exception()
            text = str(error)
            if error is None:
                self._stats.writes += 1
            elif isinstance(error, PipeBroken):
                failure = text
                continue
            elif text.startswith(UNABLE):
                unable = text
                continue
            elif self._follow is not None and text.startswith(REDIRECTIONS):
                redirected[key] = text
                continue
            else:
                self._refuse(text)
            batch.pop(key, None)
        if self._follow is not None:
            for key, text in redirected.items():
                if key in batch and await self._follow(key, batch[key], text):
                    self._stats.writes += 1
                    batch.pop(key, None)
        if unable:
            self._breaker.trip(unable)
        elif failure:
            self._breaker.failure(failure)
        else:
            self._breaker.success()
        if unable or failure:
            raise StoreMiss("error", unable or failure)

    def _refuse(self, error: str) -> None:
        self._stats.write_errors += 1
        if not self._refused:  # once: out of memory would repeat it for every write
            self._refused = True
            hint = "; for a Redis Cluster, the URL begins with redis+cluster://" if error.startswith("MOVED ") else ""
            log.warning(
                "context cache: Redis refuses a write: %s%s (further ones are counted, not logged)", error, hint
            )
