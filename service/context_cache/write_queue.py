"""The background writer: a bounded queue of writes, one per key, sent in batches by one task.

Idle, a write is on its way before `add` returns: a caller that replies and is asked again through another worker should
find it there. Under load there is a pause between batches, so that a round trip is shared by many writes.

A write of a key that is still queued replaces it, so a delete is never undone by an older put, and a failed batch
goes back into the queue only where nothing newer has come. One batch is in flight at a time: two writes of one key
reach the store in the order in which they were made.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from service.context_cache.stats import CacheStats
from service.context_cache.store import StoreMiss, Write

log = logging.getLogger("ctrank.context_cache")

Batch = dict[bytes, Write | None]


class WriteQueue:
    """Sends batches through `flush`: called, it sends; awaited, it takes out of the batch what landed.

    It raises `StoreMiss` when the rest has not. `is_ready` says whether the store may be asked now, `ready` waits until
    it may. Batches are `interval_s` apart and small enough (64 take about half a millisecond to pack) for requests not
    to notice a backlog that is sent.
    """

    def __init__(
        self,
        flush: Callable[[Batch], Awaitable[None]],
        is_ready: Callable[[], bool],
        ready: Callable[[], Awaitable[None]],
        stats: CacheStats,
        max_queued: int = 16_384,
        max_batch: int = 64,
        interval_s: float = 0.001,
    ) -> None:
        self._flush, self._is_ready, self._ready, self._stats = flush, is_ready, ready, stats
        self._max_queued, self._max_batch, self._interval_s = max_queued, max_batch, interval_s
        self._puts: OrderedDict[bytes, Write] = OrderedDict()
        self._deletes: OrderedDict[bytes, None] = OrderedDict()  # apart: puts are dropped before deletes are
        self._in_flight: Batch = {}
        self._confirmation: Awaitable[None] | None = None  # of the batch in flight
        self._sent_at = 0.0
        self._counted = 0
        self._wake = asyncio.Event()
        self._landed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._puts) + len(self._deletes)

    def add(self, key: bytes, write: Write | None) -> None:
        """Queue a put, or a delete for None. When the queue is full the oldest put is dropped and counted."""
        if self._is_closed:
            self._stats.dropped_writes += 1
            return
        if key in self._puts or key in self._deletes:
            self._stats.coalesced_writes += 1
        self._place(key, write)
        if self._confirmation is None and self._is_ready() and time.monotonic() - self._sent_at >= self._interval_s:
            self._send()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def take_out(self, is_foreign: Callable[[bytes], bool]) -> Batch:
        """Remove and return the pending writes of some keys, in their order; those in flight may land nevertheless."""
        taken: Batch = {}
        for writes in (self._in_flight, self._deletes, self._puts):
            for key in [key for key in writes if is_foreign(key)]:
                taken[key] = writes.pop(key)
        self._count()
        self._landed.set()
        return taken

    def pending(self, key: bytes) -> tuple[bool, Write | None]:
        """Whether a write of this key has not landed yet, and which."""
        if key in self._deletes:
            return True, None
        write = self._puts.get(key)
        if write is not None:
            return True, write
        return key in self._in_flight, self._in_flight.get(key)

    async def landed(self, key: bytes, timeout_s: float) -> bool:
        """Wait until no write of this key is pending; False when `timeout_s` passes first."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.pending(key)[0]:
                    self._landed.clear()
                    await self._landed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, timeout_s: float) -> None:
        """Send what is queued, for at most `timeout_s`; what is left is counted as dropped."""
        self._is_closed = True
        try:
            async with asyncio.timeout(timeout_s):
                while len(self) or self._in_flight:
                    self._landed.clear()
                    await self._landed.wait()
        except TimeoutError:
            pass
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if asyncio.iscoroutine(self._confirmation):
            self._confirmation.close()  # sent, but not awaited yet
        self._stats.dropped_writes += len(self) + len(self._in_flight)
        self._puts.clear()
        self._deletes.clear()
        self._in_flight = {}
        self._count()

    def _place(self, key: bytes, write: Write | None) -> None:
        if write is None:
            self._puts.pop(key, None)
            self._deletes[key] = None
        else:
            self._deletes.pop(key, None)
            self._puts[key] = write
        while len(self) > self._max_queued:
            (self._puts or self._deletes).popitem(last=False)
            self._stats.dropped_writes += 1
        self._count()

    def _take(self) -> Batch:
        batch: Batch = {}
        while self._deletes and len(batch) < self._max_batch:
            batch[self._deletes.popitem(last=False)[0]] = None
        while self._puts and len(batch) < self._max_batch:
            key, write = self._puts.popitem(last=False)
            batch[key] = write
        self._count()
        return batch

    def _count(self) -> None:
        """Several queues, those of a cluster's nodes, share the figures."""
        self._stats.queued_writes += len(self) - self._counted
        self._counted = len(self)

    def _send(self) -> None:
        self._in_flight = self._take()
        try:
            self._confirmation = self._flush(self._in_flight)
        except Exception:
            self._lose()

    def _lose(self) -> None:
        """An unexpected error: the writer must outlive it, and the batch must not come back."""
        log.exception("context cache: %d writes failed", len(self._in_flight))
        self._stats.write_errors += len(self._in_flight)
        self._in_flight = {}

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self._confirmation is None:
                await self._ready()
                await asyncio.sleep(max(0.0, self._sent_at + self._interval_s - time.monotonic()))
            if self._confirmation is None and len(self):  # nobody has been faster meanwhile
                self._send()
            if self._confirmation is not None:
                try:
                    await self._confirmation
                except StoreMiss:
                    pass
                except Exception:
                    self._lose()
            self._confirmation = None
            self._sent_at = time.monotonic()
            unsent, self._in_flight = self._in_flight, {}
            for key, write in unsent.items():
                if key not in self._puts and key not in self._deletes:
                    self._place(key, write)
            if not len(self):
                self._wake.clear()
            self._landed.set()
