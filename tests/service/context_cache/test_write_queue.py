from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from service.context_cache.stats import CacheStats
from service.context_cache.store import StoreMiss, Write
from service.context_cache.write_queue import Batch, WriteQueue
from tests.service.context_cache.conftest import DIGEST, state

pytestmark = pytest.mark.timed


class Sink:
    """Records batches; the first `failures` flushes fail after `gate`, when there is one, has opened."""

    def __init__(self) -> None:
        self.sent: list[dict[bytes, int | None]] = []
        self.failures = 0
        self.gate: asyncio.Event | None = None
        self.ready = asyncio.Event()
        self.ready.set()
        self.stats = CacheStats()

    async def flush(self, batch: Batch) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise StoreMiss("error")
        self.sent.append({name: None if write is None else write.hash for name, write in batch.items()})
        batch.clear()

    async def is_ready(self) -> None:
        await self.ready.wait()

    def queue(self, **bounds: int) -> WriteQueue:
        return WriteQueue(self.flush, self.ready.is_set, self.is_ready, self.stats, **bounds)


def put(context_hash: int) -> Write:
    return Write(DIGEST, context_hash, state(0))


def test_writes_of_one_key_are_coalesced_to_the_last() -> None:
    async def run() -> None:
        sink = Sink()
        queue = sink.queue()
        for i in range(10):
            queue.add(b"a", put(i))
        queue.add(b"b", put(1))
        await queue.close(1)
        assert sink.sent == [{b"a": 0}, {b"a": 9, b"b": 1}]
        assert sink.stats.coalesced_writes == 8 and sink.stats.dropped_writes == 0

    asyncio.run(run())


def test_a_delete_is_not_undone_by_an_older_put_queued_or_in_flight() -> None:
    async def run() -> None:
        sink = Sink()
        sink.gate = asyncio.Event()
        queue = sink.queue()
        queue.add(b"a", put(1))  # in flight, and held
        queue.add(b"b", put(2))
        queue.add(b"b", None)
        queue.add(b"a", None)
        assert queue.pending(b"a") == queue.pending(b"b") == (True, None)
        await asyncio.sleep(0.01)
        sink.gate.set()
        await queue.close(1)
        assert sink.sent == [{b"a": 1}, {b"b": None, b"a": None}]

    asyncio.run(run())


def test_a_failed_batch_goes_back_only_where_nothing_newer_came() -> None:
    async def run() -> None:
        sink = Sink()
        sink.failures, sink.gate = 1, asyncio.Event()
        sink.ready.clear()
        queue = sink.queue()
        queue.add(b"a", put(1))
        queue.add(b"b", put(1))
        queue.add(b"c", put(1))
        sink.ready.set()
        await asyncio.sleep(0.01)
        queue.add(b"a", None)
        queue.add(b"b", put(2))
        sink.gate.set()
        await queue.close(1)
        assert sink.sent == [{b"a": None, b"b": 2, b"c": 1}]

    asyncio.run(run())


def test_overflow_drops_the_oldest_puts_and_keeps_deletes() -> None:
    async def run() -> None:
        sink = Sink()
        sink.ready.clear()
        queue = sink.queue(max_queued=4)
        queue.add(b"gone", None)
        for i in range(10):
            queue.add(b"%d" % i, put(i))
        assert sink.stats.dropped_writes == 7 and sink.stats.queued_writes == 4
        sink.ready.set()
        await queue.close(1)
        assert sink.sent == [{b"gone": None, b"7": 7, b"8": 8, b"9": 9}]

    asyncio.run(run())


def test_batches_are_bounded() -> None:
    async def run() -> None:
        sink = Sink()
        queue = sink.queue(max_batch=4)
        for i in range(10):
            queue.add(b"%d" % i, put(i))
        await queue.close(1)
        assert [len(batch) for batch in sink.sent] == [1, 4, 4, 1]

    asyncio.run(run())


def test_close_stays_within_its_budget_and_counts_what_is_lost() -> None:
    async def run() -> None:
        sink = Sink()
        sink.ready.clear()
        queue = sink.queue()
        for i in range(5):
            queue.add(b"%d" % i, put(i))
        started = asyncio.get_running_loop().time()
        await queue.close(0.05)
        assert asyncio.get_running_loop().time() - started < 0.5
        assert sink.stats.dropped_writes == 5 and sink.stats.queued_writes == 0
        queue.add(b"late", put(1))
        assert sink.stats.dropped_writes == 6 and not sink.sent

    asyncio.run(run())


def test_an_idle_queue_sends_before_add_returns() -> None:
    async def run() -> None:
        sent = []

        def flush(batch: Batch) -> Awaitable[None]:
            sent.append(list(batch))
            return confirm(batch)

        async def confirm(batch: Batch) -> None:
            batch.clear()

        sink = Sink()
        queue = WriteQueue(flush, sink.ready.is_set, sink.is_ready, sink.stats)
        queue.add(b"a", put(1))
        assert sent == [[b"a"]]
        queue.add(b"b", put(1))  # one at a time
        assert sent == [[b"a"]] and queue.pending(b"a")[0] and queue.pending(b"b")[0]
        assert await queue.landed(b"a", 1) and await queue.landed(b"b", 1)
        assert sent == [[b"a"], [b"b"]]
        queue.add(b"c", put(1))
        await queue.close(0)

    asyncio.run(run())


def test_an_error_while_sending_is_not_the_callers() -> None:
    async def run() -> None:
        def flush(batch: Batch) -> Awaitable[None]:
            raise ValueError("a bug")

        sink = Sink()
        queue = WriteQueue(flush, sink.ready.is_set, sink.is_ready, sink.stats)
        for name in (b"a", b"b"):
            queue.add(name, put(1))
            await queue.landed(name, 1)
            await asyncio.sleep(0.005)
        assert sink.stats.write_errors == 2
        await queue.close(1)

    asyncio.run(run())


def test_landed() -> None:
    async def run() -> None:
        sink = Sink()
        sink.gate = asyncio.Event()
        queue = sink.queue()
        assert await queue.landed(b"a", 0)
        queue.add(b"a", put(1))
        assert not await queue.landed(b"a", 0.02)
        waiters = [asyncio.create_task(queue.landed(b"a", 5)) for _ in range(3)]
        await asyncio.sleep(0.01)
        sink.gate.set()
        assert await asyncio.gather(*waiters) == [True] * 3
        await queue.close(1)

    asyncio.run(run())


def test_the_writer_outlives_an_unexpected_error() -> None:
    async def run() -> None:
        sink = Sink()
        broken = True

        async def flush(batch: Batch) -> None:
            if broken:
                raise RuntimeError("a bug")
            await sink.flush(batch)

        queue = WriteQueue(flush, sink.ready.is_set, sink.is_ready, sink.stats)
        queue.add(b"a", put(1))
        await queue.landed(b"a", 1)
        broken = False
        queue.add(b"b", put(1))
        await queue.close(1)
        assert sink.sent == [{b"b": 1}] and sink.stats.write_errors == 1

    asyncio.run(run())
