"""The shared tier in a real Redis Cluster of three masters: where keys go, slots that move, and TLS with a password."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from service.context_cache import ContextKey
from service.context_cache.redis_endpoint import Address
from service.context_cache.redis_slots import redirection, slot_ranges
from service.context_cache.stats import CLOSED, OPEN
from tests.redis_cluster import SLOTS, ClusterNode, RedisCluster
from tests.redis_server import RedisServer
from tests.service.context_cache.conftest import cache, key, state, tls_in_front_of, wait_for_breaker

pytestmark = pytest.mark.timed


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster(masters=3) as running:
        yield running


def test_keys_are_spread_over_the_masters_and_found_by_another_worker(cluster: RedisCluster) -> None:
    async def run() -> None:
        # One seed is enough, and the seed need not be up.
        seeds = f"redis+cluster://127.0.0.1:1,{cluster.masters[1].address}"
        async with cache(redis_url=cluster.url) as one, cache(redis_url=seeds) as other:
            await asyncio.gather(one.open(), other.open())
            ids = [f"spread-{i}" for i in range(300)] + ["{tag}-1", "a{tag}b", "{}x", "}{", "{", "ü{ß}"]
            for i, context_id in enumerate(ids):
                await one.put(key(context_id), i, state(i))
            for i, context_id in enumerate(ids):
                assert await one.landed(key(context_id), 5)
                hit = await other.get(key(context_id))
                assert hit is not None and (hit.source, hit.hash, hit.state[0]) == ("redis", i, i)
            for stats in (one.stats, other.stats):  # never asked the wrong master
                assert stats.misses_error == stats.write_errors == stats.breaker_openings == 0
            assert one.stats.writes == len(ids)
            sizes = [int(str(node.command("DBSIZE"))) for node in cluster.masters]
            assert sum(sizes) == len(ids) and min(sizes) > 60, sizes

    asyncio.run(run())


def test_slots_of_ids_are_even() -> None:
    """Ids that differ in a digit, as session ids and numbers do: a chi-squared of 64 ranges of slots, by chance 63."""
    for form in ("{:d}", "user-{:08d}", "{:032x}"):
        count = Counter(key_slot(key(form.format(i)).encoded()) * 64 // SLOTS for i in range(6400))
        assert sum((count[part] - 100) ** 2 / 100 for part in range(64)) < 63 + 6 * 11.2, form


def test_a_slot_that_migrates_is_followed(cluster: RedisCluster) -> None:
    """MIGRATING: the source has some keys and asks for the others elsewhere; then the slot is the target's."""
    moving = key("moving")

    async def run() -> None:
        async with (
            cache(redis_url=cluster.url, max_age_ms=0) as one,
            cache(redis_url=cluster.url, max_age_ms=0) as other,
        ):
            await asyncio.gather(one.open(), other.open())
            slot = key_slot(moving.encoded())
            source = cluster.owner(moving.encoded())
            target = next(node for node in cluster.masters if node is not source)

            async def write_and_read(context_hash: int) -> None:
                await one.put(moving, context_hash, state(context_hash))
                assert await one.landed(moving, 5)
                hit = await other.get(moving)
                assert hit is not None and (hit.hash, hit.source) == (context_hash, "redis")

            await write_and_read(1)
            cluster.begin_migration(slot, source, target)
            await write_and_read(2)  # still in the source
            cluster.move_keys(slot, source, target)
            hit = await other.get(moving)  # ASK
            assert hit is not None and hit.hash == 2
            await write_and_read(3)
            await one.delete(moving)
            assert await one.landed(moving, 5) and await other.get(moving) is None
            await write_and_read(4)
            cluster.end_migration(slot, source, target)
            hit = await other.get(moving)  # MOVED
            assert hit is not None and hit.hash == 4
            await write_and_read(5)
            for stats in (one.stats, other.stats):
                assert stats.misses_error == stats.misses_timeout == stats.write_errors == 0
                assert stats.breaker_openings == stats.dropped_writes == 0

    asyncio.run(run())


def test_the_last_write_wins_while_its_slot_moves_to_and_fro(cluster: RedisCluster) -> None:
    moving = key("to-and-fro")

    async def run() -> None:
        async with cache(redis_url=cluster.url) as one, cache(redis_url=cluster.url, max_age_ms=0) as other:
            await asyncio.gather(one.open(), other.open())
            slot = key_slot(moving.encoded())
            running, last = True, 0

            async def keep_writing() -> None:
                nonlocal last
                while running:
                    last += 1
                    await one.put(moving, last, state(last))
                    await asyncio.sleep(0.0005)

            writer = asyncio.create_task(keep_writing())
            source = cluster.owner(moving.encoded())
            for target in 2 * [*(node for node in cluster.masters if node is not source), source]:
                await asyncio.to_thread(cluster.migrate, slot, source, target)
                source = target
                await asyncio.sleep(0.02)
            running = False
            await writer
            assert await one.landed(moving, 5)
            hit = await other.get(moving)
            assert hit is not None and hit.hash == last
            assert one.stats.writes > 10 and one.stats.dropped_writes == one.stats.write_errors == 0

    asyncio.run(run())


def test_tls_and_password_reach_every_node_of_a_cluster_that_is_away_at_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The node announces the port of the TLS listener in front of it: that address comes from CLUSTER SLOTS."""

    async def run() -> None:
        node = ClusterNode(password="s3cret")
        async with tls_in_front_of(node.port, tmp_path) as port:
            node.add_options("--cluster-announce-port", str(port))
            url = f"rediss+cluster://:s3cret@127.0.0.1:{port}?ssl_ca_certs={tmp_path}/cert.pem"
            try:
                async with cache(redis_url=url) as one, cache(redis_url=url, max_age_ms=0) as other:
                    await one.open()
                    assert one.stats.breaker_state == OPEN
                    await one.put(key("a"), 1, state(1))
                    assert not await one.landed(key("a"), 0.1)
                    assert await one.get(key("b")) is None and one.stats.misses_breaker_open == 1
                    node.start()  # and is not part of a cluster yet
                    await asyncio.sleep(0.1)
                    assert one.stats.breaker_state != CLOSED
                    node.command("CLUSTER ADDSLOTS", *range(SLOTS))
                    await wait_for_breaker(one, CLOSED)
                    async with asyncio.timeout(5):
                        while not await one.landed(key("a"), 5):  # not while a node says that the cluster is down
                            await asyncio.sleep(0.01)
                    assert one.stats.writes == 1 and one.stats.dropped_writes == 0
                    await other.open()
                    hit = await other.get(key("a"))
                    assert hit is not None and (hit.hash, hit.source) == (1, "redis")
            finally:
                node.kill()

    asyncio.run(run())
    assert "is unavailable" in caplog.text and "answers again" in caplog.text and "s3cret" not in caplog.text


def test_no_task_and_no_connection_outlives_close(cluster: RedisCluster) -> None:
    async def run() -> None:
        before = [len(clients(node)) for node in cluster.masters]
        async with cache(redis_url=cluster.url) as contexts:
            await contexts.put(key("closing"), 1, state(1))  # without open(): the map is asked for now
            assert await contexts.get(key("b")) is None
            async with asyncio.timeout(5):
                while contexts.stats.writes == 0:
                    await asyncio.sleep(0.01)
            await contexts.get(key("b"))
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [len(clients(node)) for node in cluster.masters] == before

    def clients(node: RedisServer) -> list[object]:
        with node.client() as client:
            return [about for about in client.client_list() if about["flags"] == "N"]

    asyncio.run(run())


def test_what_servers_say_of_slots() -> None:
    asked = Address("10.0.0.9", 7000)
    reply = [[0, 99, [b"10.0.0.1", 7001, b"id"], [b"10.0.0.2", 7002, b"id"]], [100, 16383, [None, 7003]]]
    assert slot_ranges(reply, asked) == [(0, 99, ("10.0.0.1", 7001)), (100, 16383, ("10.0.0.9", 7003))]
    assert redirection("MOVED 3999 127.0.0.1:6381", asked) == (3999, ("127.0.0.1", 6381), False)
    assert redirection("ASK 1 ::1:6381", asked) == (1, ("::1", 6381), True)
    assert redirection("MOVED 1 :6381", asked) == (1, ("10.0.0.9", 6381), False)
    for other in ("ERR MOVED 1 a:1", "MOVED 16384 a:1", "MOVED x a:1", "MOVED 1 a", "ASKING 1 a:1", ""):
        assert redirection(other, asked) is None
    for wrong in (None, b"OK", [[0, 1]], [[0, 16384, [b"a", 1]]], [[5, 4, [b"a", 1]]], [["x", 4, [b"a", 1]]]):
        with pytest.raises(ValueError, match="CLUSTER SLOTS"):
            slot_ranges(wrong, asked)


def test_a_key_is_filed_by_its_whole_name() -> None:
    assert key_slot(ContextKey("m", "0" * 16, "a").encoded()) != key_slot(ContextKey("m", "1" * 16, "a").encoded())
