"""The Redis tier against a real server: what it stores, and what happens when the server dies, hangs or lies."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import uvloop
from redis import Redis

from service.context_cache import ContextCache, build_cache
from service.context_cache.record import pack
from service.context_cache.stats import CLOSED, OPEN, CacheStats
from tests.redis_server import RedisServer
from tests.service.context_cache.conftest import DIGEST, cache, key, state, tls_in_front_of, wait_for_breaker

pytestmark = pytest.mark.timed

BUDGET_MS = 5.0
SLACK_MS = 20.0  # the promise: no request longer than its Redis budget plus this for Redis's sake
A = key("a")


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def event_loop_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs on the standard event loop and on the one that serves."""
    if request.param == "uvloop":
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    yield
    asyncio.set_event_loop_policy(None)


def client(server: RedisServer) -> Redis:
    return Redis.from_url(server.url)


def test_round_trip_between_two_workers(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url) as one, cache(redis_url=redis_server.url) as other:
            await one.open()
            await one.put(A, 7, state(1))
            assert await one.landed(A, 1)
            hit = await other.get(A)
            assert hit is not None and (hit.source, hit.hash) == ("redis", 7)
            np.testing.assert_array_equal(hit.state, state(1))
            hit = await other.get(A, 7)
            assert hit is not None and hit.source == "memory"
            assert (one.stats.writes, other.stats.hits_redis, other.stats.hits_memory) == (1, 1, 1)
            assert await other.get(key("b")) is None and other.stats.misses_absent == 1

    asyncio.run(run())


def test_key_value_and_time_to_live_are_the_documented_ones(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url, ttl_s=77) as contexts:
            await contexts.put(A, 7, state(1))
            assert await contexts.landed(A, 1)
            name = f"ctrank:movielens:{DIGEST}:a"
            with client(redis_server) as redis:
                assert redis.keys() == [name.encode()]
                assert redis.get(name) == pack(name.encode(), DIGEST, 7, state(1))
                assert 75 <= redis.ttl(name) <= 77

    asyncio.run(run())


def test_another_hash_replaces(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url) as one, cache(redis_url=redis_server.url) as other:
            await one.put(A, 1, state(1))
            assert await one.landed(A, 1)
            assert await other.get(A, 2) is None and other.stats.misses_hash_mismatch == 1
            await other.put(A, 2, state(2))
            assert await other.landed(A, 1)
            async with cache(redis_url=redis_server.url) as third:
                hit = await third.get(A)
                assert hit is not None and hit.hash == 2

    asyncio.run(run())


def test_a_flipped_byte_is_a_counted_miss(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url) as one, cache(redis_url=redis_server.url) as other:
            await one.put(A, 1, state(1))
            assert await one.landed(A, 1)
            with client(redis_server) as redis:
                value = bytearray(redis.get(A.encoded()))
                for at in range(len(value)):
                    flipped = bytearray(value)
                    flipped[at] ^= 1 << at % 8
                    redis.set(A.encoded(), bytes(flipped))
                    assert await other.get(A) is None
            assert other.stats.misses_corrupt == len(value) and other.stats.breaker_openings == 0

    asyncio.run(run())


def test_delete_reaches_the_server_and_beats_a_queued_put(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url) as contexts:
            for i in range(50):
                await contexts.put(A, i, state(i))
                if i % 10 == 0:
                    await asyncio.sleep(0.002)
            await contexts.delete(A)
            assert await contexts.get(A) is None
            assert await contexts.landed(A, 1)
            with client(redis_server) as redis:
                assert redis.get(A.encoded()) is None
            assert await contexts.get(A) is None

    asyncio.run(run())


def test_writes_are_coalesced_and_pipelined(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url) as contexts:
            for i in range(1000):
                await contexts.put(key(str(i % 10)), i, state(i))
            assert await asyncio.wait_for(all_landed(contexts, 10), 2)
            assert contexts.stats.writes == 11 and contexts.stats.coalesced_writes == 989  # the first left at once
            with client(redis_server) as redis:
                assert redis.dbsize() == 10
                assert redis.get(key("3").encoded()) == pack(key("3").encoded(), DIGEST, 993, state(993))

    async def all_landed(contexts: ContextCache, count: int) -> bool:
        return all([await contexts.landed(key(str(i)), 1) for i in range(count)])

    asyncio.run(run())


def test_close_sends_what_is_queued(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url) as contexts:
            for i in range(2000):
                await contexts.put(key(str(i)), i, state(i))
        assert contexts.stats.dropped_writes == 0
        with client(redis_server) as redis:
            assert redis.dbsize() == 2000

    asyncio.run(run())


@dataclass
class Load:
    """What the callers of one scenario saw."""

    slowest_ms: float = 0.0
    requests: int = 0
    computed: int = 0
    running: bool = True

    async def caller(self, contexts: ContextCache, seed: int) -> None:
        draw = random.Random(seed)
        while self.running:
            which, context_hash = key(str(draw.randrange(10_000))), draw.randrange(2)
            started = time.perf_counter()
            hit = await contexts.get(which, context_hash)
            if hit is None:
                self.computed += 1
                await contexts.put(which, context_hash, state(context_hash))
            else:
                assert hit.state[0] == context_hash
            self.slowest_ms = max(self.slowest_ms, 1000 * (time.perf_counter() - started))
            self.requests += 1
            await asyncio.sleep(0.0005)


async def lose_the_server_under_load(server: RedisServer, failure: str) -> tuple[Load, CacheStats]:
    """16 callers with their contexts, while the server goes, stays away, and comes back."""
    load = Load()
    async with cache(redis_url=server.url, redis_timeout_ms=BUDGET_MS) as contexts:
        await contexts.open()
        callers = [asyncio.create_task(load.caller(contexts, i)) for i in range(16)]
        await asyncio.sleep(0.3)
        getattr(server, failure)()
        await wait_for_breaker(contexts, OPEN, 1)
        await asyncio.sleep(0.7)
        assert contexts.stats.misses_breaker_open > 100
        if failure == "kill":
            server.start()
        else:
            server.resume()
        await wait_for_breaker(contexts, CLOSED)
        await asyncio.sleep(0.5)
        load.running = False
        await asyncio.gather(*callers)
        assert load.requests > 1000 and load.computed
        # Back to normal without a restart, and what was queued meanwhile lands.
        await wait_for_breaker(contexts, CLOSED)
        await contexts.put(A, 1, state(1))
        assert await contexts.landed(A, 5)
        async with cache(redis_url=server.url) as other:
            assert await other.get(A) is not None
        assert contexts.stats.dropped_writes == 0
        return load, contexts.stats


@pytest.mark.parametrize("failure", ["kill", "stop"])
def test_dead_or_hung_server_under_load(
    redis_server: RedisServer, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No caller fails or waits longer than budget and slack; one log line says that it went, one that it came back.

    A machine that is busy otherwise can delay any process by more than that: one undisturbed run of five counts.
    """
    seen = []
    for _ in range(5):
        caplog.clear()
        load, stats = asyncio.run(lose_the_server_under_load(redis_server, failure))
        messages = [record.getMessage() for record in caplog.records if record.name == "ctrank.context_cache"]
        assert len(messages) == 2 * stats.breaker_openings, messages
        assert "is unavailable" in messages[0] and "answers again" in messages[1]
        seen.append((load.slowest_ms, stats.breaker_openings))
        if load.slowest_ms <= BUDGET_MS + SLACK_MS and stats.breaker_openings == 1:
            return
    raise AssertionError(f"slowest request in ms, openings of the breaker: {seen}")


def test_hung_server_with_thousands_of_requests_at_once(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url, redis_timeout_ms=BUDGET_MS) as contexts:
            await contexts.open()
            redis_server.stop()

            async def timed(i: int) -> float:
                started = time.perf_counter()
                assert await contexts.get(key("x" * 400 + str(i))) is None
                return time.perf_counter() - started

            await asyncio.gather(*(timed(i) for i in range(3000)))
            started = time.perf_counter()
            for i in range(1000):
                await timed(i)
            assert time.perf_counter() - started < 0.2  # nobody waits any more
            assert contexts.stats.breaker_openings == 1
            redis_server.resume()
            await wait_for_breaker(contexts, CLOSED)

    asyncio.run(run())


def test_requests_one_by_one_pay_at_most_three_times(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url, redis_timeout_ms=BUDGET_MS) as contexts:
            await contexts.open()
            redis_server.stop()
            for i in range(10):
                await contexts.get(key(str(i)))
            assert (contexts.stats.misses_timeout, contexts.stats.misses_breaker_open) == (3, 7)

    asyncio.run(run())


def test_server_that_is_away_at_the_start_is_found_later(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        redis_server.kill()
        async with cache(redis_url=redis_server.url) as contexts:
            await contexts.open()
            assert contexts.stats.breaker_state == OPEN
            await contexts.put(A, 1, state(1))
            assert not await contexts.landed(A, 1)
            assert await contexts.get(A) is not None  # from memory
            assert await contexts.get(key("b")) is None
            assert contexts.stats.misses_breaker_open == 1
            redis_server.start()
            await wait_for_breaker(contexts, CLOSED)
            assert await contexts.landed(A, 1)
        async with cache(redis_url=redis_server.url) as other:
            assert await other.get(A) is not None

    asyncio.run(run())
    assert len(caplog.records) == 2


def test_the_log_never_shows_the_password(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        redis_server.kill()
        url = redis_server.url.replace("redis://", "redis://user:s3cret@") + "?password=s3cret"
        async with cache(redis_url=url) as contexts:
            await contexts.open()

    asyncio.run(run())
    assert "s3cret" not in caplog.text and f"127.0.0.1:{redis_server.port}" in caplog.text


def test_a_write_only_worker_notices_too(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url) as contexts:
            await contexts.open()
            redis_server.kill()
            for i in range(5):
                await contexts.put(key(str(i)), i, state(i))
                await asyncio.sleep(0.01)
            await wait_for_breaker(contexts, OPEN)
            redis_server.start()
            await wait_for_breaker(contexts, CLOSED)
            assert await contexts.landed(key("4"), 1)
            assert contexts.stats.writes == 5

    asyncio.run(run())


def test_a_pause_of_our_own_is_not_taken_for_the_servers(redis_server: RedisServer) -> None:
    """A large slate may hold the event loop for longer than the budget: the reply is there when it ends."""

    async def run() -> None:
        async with cache(redis_url=redis_server.url) as one:
            await one.put(A, 1, state(1))
            assert await one.landed(A, 1)
            for i in range(10):
                async with cache(redis_url=redis_server.url, redis_timeout_ms=20) as contexts:
                    await contexts.open()
                    read = asyncio.create_task(contexts.get(A))
                    for _ in range(i % 4 + 1):
                        await asyncio.sleep(0)
                    time.sleep(0.05)
                    assert await read is not None
                    assert contexts.stats.misses_timeout == 0

    asyncio.run(run())


def test_cancelled_and_timed_out_reads_never_leak_a_reply_to_another_key(redis_server: RedisServer) -> None:
    """Callers give up at random moments while the server is stopped and resumed; every answer is the asked one's."""

    async def run() -> None:
        count = 64
        async with cache(redis_url=redis_server.url) as writer:
            for i in range(count):
                await writer.put(key(str(i)), i, state(i))
        # No memory to speak of: every read goes to the server.
        bounds = {"memory_entries": 1, "max_age_ms": 0, "redis_timeout_ms": BUDGET_MS}
        async with cache(redis_url=redis_server.url, **bounds) as contexts:
            await contexts.open()
            draw = random.Random(1)
            answered = cancelled = 0

            async def read(i: int) -> None:
                nonlocal answered
                hit = await contexts.get(key(str(i)))
                if hit is not None:
                    assert hit.hash == i and hit.state[0] == i
                    answered += 1

            for turn in range(300):
                if turn % 60 == 30:
                    redis_server.stop()
                if turn % 60 == 33:
                    redis_server.resume()
                    await wait_for_breaker(contexts, CLOSED)
                reads = [asyncio.create_task(read(draw.randrange(count))) for _ in range(20)]
                for _ in range(draw.randrange(4)):
                    await asyncio.sleep(0)
                for task in reads:
                    if draw.random() < 0.4:
                        cancelled += task.cancel()
                results = await asyncio.gather(*reads, return_exceptions=True)
                for result in results:
                    assert result is None or isinstance(result, asyncio.CancelledError), result
            assert answered > 1000 and cancelled > 1000
            assert contexts.stats.misses_corrupt == 0 and contexts.stats.misses_timeout > 0

    asyncio.run(run())


def test_connection_closed_by_the_server_while_idle_costs_nothing(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url, max_age_ms=0) as contexts:
            await contexts.put(A, 1, state(1))
            assert await contexts.landed(A, 1)
            assert await contexts.get(A) is not None
            with client(redis_server) as redis:
                redis.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0.05)
                await contexts.put(A, 2, state(2))
                assert await contexts.landed(A, 1)
                hit = await contexts.get(A)
            assert hit is not None and hit.hash == 2
            assert contexts.stats.misses_error == 0 and contexts.stats.breaker_openings == 0

    asyncio.run(run())


def test_error_replies_are_misses_and_do_not_open_the_breaker(redis_server: RedisServer) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url) as contexts:
            with client(redis_server) as redis:
                redis.rpush(A.encoded(), "not a string")
                for _ in range(10):
                    assert await contexts.get(A) is None
            assert contexts.stats.misses_error == 10 and contexts.stats.breaker_openings == 0

    asyncio.run(run())


def test_refused_writes_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with RedisServer("--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
            async with cache(redis_url=server.url) as contexts:
                for i in range(20):
                    await contexts.put(key(str(i)), i, state(i))
                    await asyncio.sleep(0.002)
                assert await contexts.landed(key("19"), 1)
                assert contexts.stats.write_errors == 20 and contexts.stats.writes == 0
                assert contexts.stats.breaker_openings == 0

    asyncio.run(run())
    assert len(caplog.records) == 1 and "refuses a write" in caplog.text


def test_wrong_password_is_an_unavailable_server(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with RedisServer("--requirepass", "right") as server:
            good = server.url.replace("redis://", "redis://:right@")
            bad = server.url.replace("redis://", "redis://:wrong@")
            async with cache(redis_url=good) as contexts:
                await contexts.put(A, 1, state(1))
                assert await contexts.landed(A, 1)
            async with cache(redis_url=bad) as contexts:
                await contexts.open()
                assert contexts.stats.breaker_state == OPEN
                assert await contexts.get(A) is None

    asyncio.run(run())
    assert "invalid username-password pair" in caplog.text


@pytest.mark.parametrize(
    "query", ["?protocol=3", "?socket_timeout=0.001&decode_responses=true", "?health_check_interval=1"]
)
def test_query_arguments_cannot_undo_what_the_pipe_relies_on(redis_server: RedisServer, query: str) -> None:
    async def run() -> None:
        async with cache(redis_url=redis_server.url + query) as contexts:
            await contexts.put(A, 1, state(1))
            assert await contexts.landed(A, 1)
        async with cache(redis_url=redis_server.url + query) as contexts:
            hit = await contexts.get(A)
            assert hit is not None and hit.hash == 1

    asyncio.run(run())


def test_unix_socket(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        with RedisServer("--unixsocket", f"{tmp_path}/redis.sock") as server:
            assert server.port
            async with cache(redis_url=f"unix://{tmp_path}/redis.sock?db=2") as contexts:
                await contexts.put(A, 1, state(1))
                assert await contexts.landed(A, 1)
            with Redis.from_url(server.url.replace("/0", "/2")) as redis:
                assert redis.dbsize() == 1

    asyncio.run(run())


def test_no_task_and_no_connection_outlives_close(redis_server: RedisServer) -> None:
    async def run() -> None:
        contexts = build_cache(redis_url=redis_server.url)
        await contexts.put(A, 1, state(1))
        await contexts.get(key("b"))
        await contexts.close()
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with client(redis_server) as redis:
            assert len(redis.client_list()) == 1

    asyncio.run(run())


def test_tls(redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with tls_in_front_of(redis_server.port, tmp_path) as port:
            url = f"rediss://127.0.0.1:{port}/0"
            async with cache(redis_url=f"{url}?ssl_ca_certs={tmp_path}/cert.pem") as contexts:
                for i in range(200):
                    await contexts.put(key(str(i)), i, state(i, 1000))
            async with cache(redis_url=f"{url}?ssl_ca_certs={tmp_path}/cert.pem") as contexts:
                await contexts.open()
                hits = await asyncio.gather(*(contexts.get(key(str(i))) for i in range(200)))
                assert [hit and hit.hash for hit in hits] == list(range(200))
                assert contexts.stats.breaker_openings == 0
            async with cache(redis_url=url) as contexts:  # a certificate that nobody vouches for
                await contexts.open()
                assert contexts.stats.breaker_state == OPEN

    asyncio.run(run())
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
