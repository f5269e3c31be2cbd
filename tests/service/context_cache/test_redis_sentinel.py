"""The shared tier behind Sentinels: the master dies, its replica is promoted, nothing is restarted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from service.context_cache.stats import CLOSED, OPEN
from tests.redis_sentinel import MASTER, SentinelGroup
from tests.redis_server import RedisServer, wait_until
from tests.service.context_cache.conftest import cache, key, state, wait_for_breaker

pytestmark = pytest.mark.timed


def test_failover_is_followed_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run(group: SentinelGroup) -> None:
        gone = RedisServer()  # a Sentinel that is away costs no time
        url = f"redis+sentinel://127.0.0.1:{gone.port},127.0.0.1:{group.sentinel.port}/{MASTER}/2"
        async with cache(redis_url=url, max_age_ms=0) as one, cache(redis_url=url, max_age_ms=0) as other:
            await one.open()
            assert one.stats.breaker_state == CLOSED
            await one.put(key("before"), 1, state(1))
            assert await one.landed(key("before"), 5)
            with group.second.client(db=2) as replica:
                wait_until(lambda: replica.dbsize() == 1, "the replica has it")
            assert await other.get(key("before")) is not None
            group.first.kill()
            await one.put(key("during"), 2, state(2))
            await wait_for_breaker(one, OPEN)
            assert await one.get(key("before")) is None and one.stats.misses_breaker_open == 1
            await wait_for_breaker(one, CLOSED, 15)
            assert await one.landed(key("during"), 5)  # what was queued meanwhile
            for name, context_hash in (("before", 1), ("during", 2)):
                hit = await other.get(key(name))
                while hit is None:  # its own breaker recovers, too
                    await asyncio.sleep(0.02)
                    hit = await other.get(key(name))
                assert (hit.hash, hit.source) == (context_hash, "redis")
            assert one.stats.breaker_openings == 1 and one.stats.dropped_writes == 0

    with SentinelGroup(tmp_path) as group:
        asyncio.run(run(group))
    assert f"/{MASTER}/2 is unavailable" in caplog.text and f"/{MASTER}/2 answers again" in caplog.text


def test_a_master_that_no_sentinel_knows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run(group: SentinelGroup) -> None:
        url = f"redis+sentinel://:s3cret@127.0.0.1:{group.sentinel.port}/other?sentinel_password=s3cret"
        async with cache(redis_url=url) as contexts:
            await contexts.open()
            assert contexts.stats.breaker_state == OPEN and await contexts.get(key("a")) is None

    with SentinelGroup(tmp_path) as group:
        asyncio.run(run(group))
    assert "no Sentinel names a master 'other'" in caplog.text and "s3cret" not in caplog.text


def test_a_demoted_master_is_left_and_what_it_refused_is_kept(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica answers reads and refuses writes: it is not the server to be connected to."""

    async def run() -> None:
        async with cache(redis_url=redis_server.url) as contexts:
            await contexts.open()
            redis_server.command("REPLICAOF", "127.0.0.1", redis_server.port)
            await contexts.put(key("a"), 1, state(1))
            await wait_for_breaker(contexts, OPEN)
            await asyncio.sleep(0.2)
            assert contexts.stats.breaker_openings == 1  # its PONG does not close the breaker
            redis_server.command("REPLICAOF", "NO", "ONE")
            await wait_for_breaker(contexts, CLOSED)
            assert await contexts.landed(key("a"), 5)
            assert contexts.stats.writes == 1 and contexts.stats.write_errors == 0

    asyncio.run(run())
    assert "READONLY" in caplog.text
