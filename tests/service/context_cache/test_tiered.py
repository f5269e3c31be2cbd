"""Who may answer what, with a shared tier under the test's control and a clock that it moves."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.context_cache import ContextKey, build_cache
from service.context_cache.memory import MemoryTier
from service.context_cache.record import HASH_MASK, pack
from service.context_cache.stats import CacheStats
from service.context_cache.store import Reason, Source, StoreMiss, Write
from service.context_cache.tiered import TieredCache
from tests.service.context_cache.conftest import DIGEST, Clock, cache, key, state

pytestmark = pytest.mark.timed


class FakeStore:
    """A shared tier in a dictionary; writes land when `land` is called; `gate` holds reads back."""

    source: Source = "redis"

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.queued: dict[bytes, Write | None] = {}
        self.asked = 0
        self.fails: Reason | None = None
        self.gate: asyncio.Event | None = None

    async def open(self) -> None:
        return

    async def get(self, name: bytes) -> bytes | None:
        self.asked += 1
        value = self.values.get(name)
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise StoreMiss(self.fails)
        return value

    def write(self, name: bytes, write: Write | None) -> None:
        self.queued[name] = write

    def pending(self, name: bytes) -> tuple[bool, Write | None]:
        return name in self.queued, self.queued.get(name)

    async def landed(self, name: bytes, timeout_s: float) -> bool:
        return name not in self.queued

    async def close(self, timeout_s: float) -> None:
        return

    def land(self) -> None:
        for name, write in self.queued.items():
            if write is None:
                self.values.pop(name, None)
            else:
                self.values[name] = write.packed(name)
        self.queued.clear()

    def set(self, which: ContextKey, context_hash: int, first: float) -> None:
        """What another worker wrote."""
        self.values[which.encoded()] = pack(which.encoded(), which.digest16, context_hash, state(first))


def tiered(store: FakeStore | None, clock: Clock, ttl_s: float = 3600, max_age_s: float = 1.0) -> TieredCache:
    stats = CacheStats()
    return TieredCache(MemoryTier(100, 1 << 20, stats), store, stats, ttl_s, max_age_s, clock)


A = key("a")


def test_id_alone_is_answered_from_memory_until_max_age_then_the_shared_tier_is_asked(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        await contexts.put(A, 1, state(1))
        store.land()
        store.set(A, 2, 2)  # another worker replaces it
        clock.seconds += 1.0
        hit = await contexts.get(A)
        assert hit is not None and (hit.source, hit.hash) == ("memory", 1) and store.asked == 0
        clock.seconds += 0.001
        hit = await contexts.get(A)
        assert hit is not None and (hit.source, hit.hash) == ("redis", 2) and store.asked == 1
        np.testing.assert_array_equal(hit.state, state(2))
        clock.seconds += 1.0  # fresh again: counted from the read
        hit = await contexts.get(A)
        assert hit is not None and (hit.source, hit.hash) == ("memory", 2) and store.asked == 1

    asyncio.run(run())


@pytest.mark.parametrize("reason", ["timeout", "error", "breaker_open"])
def test_id_alone_and_too_old_is_a_miss_when_the_shared_tier_is_away(clock: Clock, reason: Reason) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        await contexts.put(A, 1, state(1))
        store.fails = reason
        clock.seconds += 1.001
        assert await contexts.get(A) is None
        assert getattr(contexts.stats, f"misses_{reason}") == 1
        hit = await contexts.get(A, 1)  # the context proves it, however old it is
        assert hit is not None and hit.source == "memory" and store.asked == 1

    asyncio.run(run())


def test_same_hash_never_asks_the_shared_tier_however_old(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        await contexts.put(A, -7, state(1))
        clock.seconds += 1e6
        for expected in (-7, -7 & HASH_MASK):
            hit = await contexts.get(A, expected)
            assert hit is not None and hit.source == "memory" and hit.hash == -7 & HASH_MASK
        assert store.asked == 0

    asyncio.run(run())


def test_another_hash_is_a_miss_and_replaces_in_every_tier(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        await contexts.put(A, 1, state(1))
        store.land()
        assert await contexts.get(A, 2) is None
        assert contexts.stats.misses_hash_mismatch == 1 and store.asked == 0
        await contexts.put(A, 2, state(2))
        store.land()
        hit = await contexts.get(A)
        assert hit is not None and hit.hash == 2
        hit = await tiered(store, clock).get(A)
        assert hit is not None and hit.hash == 2

    asyncio.run(run())


def test_another_hash_in_the_shared_tier_is_a_miss(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.set(A, 1, 1)
        assert await contexts.get(A, 2) is None
        assert contexts.stats.misses_hash_mismatch == 1

    asyncio.run(run())


def test_a_sent_context_starts_a_new_life_in_the_shared_tier(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.set(A, 1, 1)
        assert await contexts.get(A, 1) is not None
        assert store.queued  # read from the shared tier and proven
        store.land()
        clock.seconds += 0.5
        assert await contexts.get(A, 1) is not None
        assert not store.queued  # young enough
        clock.seconds += 0.6
        assert await contexts.get(A, 1) is not None
        assert store.queued
        store.land()
        clock.seconds += 2
        assert await contexts.get(A) is not None  # an id alone does not lengthen the life
        assert not store.queued

    asyncio.run(run())


def test_without_a_shared_tier_memory_answers_until_the_ttl(clock: Clock) -> None:
    async def run() -> None:
        contexts = tiered(None, clock, ttl_s=60)
        await contexts.put(A, 1, state(1))
        clock.seconds += 59
        assert await contexts.get(A) is not None
        assert await contexts.get(A, 1) is not None  # the context again: a new life
        clock.seconds += 60
        assert await contexts.get(A) is not None
        clock.seconds += 0.001
        assert await contexts.get(A) is None
        assert contexts.stats.misses_expired == 1
        assert await contexts.get(A) is None
        assert contexts.stats.misses_absent == 1
        assert await contexts.landed(A, 0)

    asyncio.run(run())


def test_max_age_does_not_outlive_the_ttl(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock, ttl_s=2, max_age_s=1000)
        await contexts.put(A, 1, state(1))
        store.land()
        store.values.clear()  # expired there
        clock.seconds += 2.001
        assert await contexts.get(A) is None

    asyncio.run(run())


def test_ask_shared_false_stays_in_the_process(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.set(A, 1, 1)
        assert await contexts.get(A, 1, ask_shared=False) is None
        assert store.asked == 0 and contexts.stats.misses_absent == 1

    asyncio.run(run())


def test_a_queued_write_wins_over_what_the_shared_tier_still_holds(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.set(A, 1, 1)
        await contexts.put(A, 2, state(2))  # queued
        clock.seconds += 5
        hit = await contexts.get(A)
        assert hit is not None and hit.hash == 2

    asyncio.run(run())


def test_a_queued_delete_is_a_miss_before_it_lands(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.set(A, 1, 1)
        assert await contexts.get(A) is not None
        await contexts.delete(A)
        assert await contexts.get(A) is None and contexts.stats.misses_absent == 1
        store.land()
        assert await contexts.get(A) is None and not store.values

    asyncio.run(run())


def test_a_read_overtaken_by_a_delete_does_not_resurrect(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.set(A, 1, 1)
        store.gate = asyncio.Event()
        read = asyncio.create_task(contexts.get(A))
        await asyncio.sleep(0)
        await contexts.delete(A)
        store.land()
        store.gate.set()
        assert await read is None
        assert await contexts.get(A) is None

    asyncio.run(run())


def test_a_read_overtaken_by_a_put_answers_with_the_put(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.set(A, 1, 1)
        store.gate = asyncio.Event()
        alone, proven = asyncio.create_task(contexts.get(A)), asyncio.create_task(contexts.get(A, 1))
        await asyncio.sleep(0)
        await contexts.put(A, 2, state(2))
        store.land()
        store.gate.set()
        hit = await alone
        assert hit is not None and hit.hash == 2
        assert await proven is None
        hit = await contexts.get(A)
        assert hit is not None and hit.hash == 2

    asyncio.run(run())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("delete"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("proven"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("alone"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(1, 15)),
        st.tuples(st.just("away"), st.just(0), st.integers(0, 1)),
    ),
    max_size=60,
)


@given(STEPS)
def test_staleness_is_bounded_whatever_two_workers_do(steps: list[tuple[str, int, int]]) -> None:
    """An id alone is answered with what was true within the last `max_age_s`, in the shared tier or by a request."""

    async def run() -> None:
        clock, store = Clock(), FakeStore()
        workers = [tiered(store, clock, max_age_s=1.0), tiered(store, clock, max_age_s=1.0)]
        held: list[tuple[float, int | None]] = [(clock.seconds, None)]  # since when the shared tier holds which hash
        sent: list[tuple[float, int]] = []  # when a request came with which context

        def true_lately() -> set[int | None]:
            since = clock.seconds - 1.0 - 1e-9
            ends = [start for start, _ in held[1:]] + [clock.seconds]
            return {h for (_, h), end in zip(held, ends, strict=True) if end >= since} | {
                h for at, h in sent if at >= since
            }

        for step, which, number in steps:
            worker = workers[which]
            if step == "put":
                await worker.put(A, number, state(number))
                sent.append((clock.seconds, number))
            elif step == "delete":
                await worker.delete(A)
            elif step == "wait":
                clock.seconds += 0.1 * number
            elif step == "away":
                store.fails = "timeout" if number else None
            elif step == "proven":
                hit = await worker.get(A, number)
                assert hit is None or hit.hash == hit.state[0] == number
                if hit is not None:
                    sent.append((clock.seconds, number))
            else:
                hit = await worker.get(A)
                assert hit is None or (hit.state[0] == hit.hash and hit.hash in true_lately())
            if not store.fails:
                store.land()
            value = store.values.get(A.encoded())
            held.append((clock.seconds, None if value is None else int.from_bytes(value[16:24], "little")))

    asyncio.run(run())


def test_a_cancelled_read_leaves_nothing_behind(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.gate = asyncio.Event()
        read = asyncio.create_task(contexts.get(A))
        await asyncio.sleep(0)
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
        assert not contexts._reads

    asyncio.run(run())


def test_a_flipped_byte_is_a_counted_miss_and_not_kept(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.set(A, 1, 1)
        value = bytearray(store.values[A.encoded()])
        value[40] ^= 0x10
        store.values[A.encoded()] = bytes(value)
        assert await contexts.get(A) is None and await contexts.get(A, 1) is None
        assert contexts.stats.misses_corrupt == 2 and contexts.stats.memory_entries == 0

    asyncio.run(run())


def test_value_of_another_digest_or_key_is_corrupt(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        store.values[A.encoded()] = pack(A.encoded(), "f" * 16, 1, state(1))
        assert await contexts.get(A) is None
        store.set(key("b"), 1, 1)
        store.values[A.encoded()] = store.values[key("b").encoded()]
        assert await contexts.get(A) is None
        assert contexts.stats.misses_corrupt == 2

    asyncio.run(run())


def test_gone_from_the_shared_tier_is_gone_from_memory(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        await contexts.put(A, 1, state(1))
        store.queued.clear()
        clock.seconds += 2
        assert await contexts.get(A) is None and contexts.stats.memory_entries == 0

    asyncio.run(run())


def test_put_copies_the_state() -> None:
    async def run() -> None:
        async with cache() as contexts:
            scratch = state(1)
            await contexts.put(A, 1, scratch)
            scratch[:] = 0
            hit = await contexts.get(A)
            assert hit is not None
            np.testing.assert_array_equal(hit.state, state(1))

    asyncio.run(run())


def test_every_hit_and_miss_is_counted_once(clock: Clock) -> None:
    async def run() -> None:
        store = FakeStore()
        contexts = tiered(store, clock)
        for i in range(20):
            await contexts.get(key(str(i % 7)), i % 3 or None)
            await contexts.put(key(str(i % 5)), i % 2, state(i))
            clock.seconds += 0.4
            store.land()
        stats = contexts.stats
        hits = stats.hits_memory + stats.hits_shared + stats.hits_redis
        misses = sum(getattr(stats, name) for name in stats.__slots__ if name.startswith("misses_"))
        assert hits and misses and hits + misses == 20

    asyncio.run(run())


def test_versions_do_not_meet() -> None:
    async def run() -> None:
        async with cache() as contexts:
            await contexts.put(A, 1, state(1))
            assert await contexts.get(key("a", "f" * 16)) is None

    asyncio.run(run())


@pytest.mark.parametrize("context_id", ["", "ä:b c\r\n", "\ud800", "x" * 5000, "\x00"])
def test_any_context_id_is_a_key(context_id: str) -> None:
    name = key(context_id).encoded()
    assert name.startswith(f"ctrank:movielens:{DIGEST}:".encode())


def test_bad_url_is_an_error_at_the_start() -> None:
    with pytest.raises(ValueError, match=re.escape("redis://")):
        build_cache(redis_url="http://127.0.0.1")
