"""The second tier in a Redis Cluster: a `RedisStore` for each master, each with a breaker and a queue of its own.

    key -> slot (CRC16 of the key, or of what it has in braces) -> the slot's master

A master that dies costs its own slots only. The map of slots is asked for ahead of the first request, when a server
redirects (MOVED: that slot's entry changes at once) and for as long as a master is away or a slot has none: the replica
that is promoted in its place is found without a restart. With a slot its pending writes move from the queue of the old
master to that of the new one: a key is in one queue at a time, so its writes land in the order in which they were made.

A redirected read is asked again within the same deadline: no request waits for longer than its budget here either.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial

from redis.crc import key_slot
from redis.exceptions import RedisError

from service.context_cache.breaker import Breaker, log
from service.context_cache.redis_endpoint import Address, Server
from service.context_cache.redis_slots import SLOTS, Redirection, SlotRange, redirection, slot_ranges
from service.context_cache.redis_store import Follow, RedisStore
from service.context_cache.stats import CacheStats
from service.context_cache.store import Source, StoreMiss, Write
from service.context_cache.write_queue import Batch, WriteQueue

# Of one read. More than two happen only while the servers disagree.
MAX_REDIRECTIONS = 4
# Between two questions for the map, while it has holes or a master is away.
PAUSE_S, MAX_PAUSE_S = 0.05, 1.0


class ClusterStore:
    """`seeds` are asked for the cluster's nodes and lend them their options; `name` is for the log.

    `max_queued` bounds the writes that wait for one node. Used from one event loop.
    """

    source: Source = "redis"

    def __init__(
        self,
        seeds: Sequence[Server],
        name: str,
        timeout_s: float,
        ttl_s: int,
        stats: CacheStats,
        max_queued: int = 16_384,
    ) -> None:
        self._seeds, self._timeout_s, self._ttl_s = seeds, timeout_s, ttl_s
        self._stats, self._max_queued = stats, max_queued
        self._nobody = _Nobody(stats, max_queued)
        self._slots: list[_Node | _Nobody] = [self._nobody] * SLOTS
        self._nodes: dict[Address, _Node] = {}
        self._start = Breaker(name, self._refresh, lambda: None, stats)  # open until there is a first map
        self._stale = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Ask for the map and connect to all masters; nothing is raised, and what is away is looked for."""
        try:
            await self._refresh()
        except StoreMiss as miss:
            self._start.trip(str(miss))
        await asyncio.gather(*(node.open() for node in self._nodes.values()))

    async def get(self, key: bytes) -> bytes | None:
        """The value or None. Raises `StoreMiss`: "timeout", "error" or, of the key's master, "breaker_open"."""
        due = asyncio.get_running_loop().time() + self._timeout_s
        node = self._slots[key_slot(key)]
        if isinstance(node, _Nobody):
            self._notice()
            raise StoreMiss("breaker_open")
        try:
            return await node.get_by(key, due)
        except StoreMiss as miss:
            return await self._get_elsewhere(key, node, miss, due)

    def write(self, key: bytes, write: Write | None) -> None:
        """Queue a put, or a delete for None."""
        node = self._slots[key_slot(key)]
        node.write(key, write)
        if isinstance(node, _Nobody):
            self._notice()

    def pending(self, key: bytes) -> tuple[bool, Write | None]:
        """Whether a write of this key has not landed yet, and which."""
        return self._slots[key_slot(key)].pending(key)

    async def landed(self, key: bytes, timeout_s: float) -> bool:
        """Wait until no write of this key is pending; False when `timeout_s` passes first or its master is away."""
        loop = asyncio.get_running_loop()
        due = loop.time() + timeout_s
        while self.pending(key)[0]:  # again, where the key has a new master
            if not await self._slots[key_slot(key)].landed(key, due - loop.time()):
                return False
        return True

    async def close(self, timeout_s: float) -> None:
        """Send what is queued, for at most `timeout_s`, and disconnect from all nodes."""
        nodes = [*self._nodes.values()]
        await asyncio.gather(self._nobody.close(), *(node.close(timeout_s) for node in nodes))
        tasks = [*self._retiring, *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(self._start.close(), *tasks, return_exceptions=True)
        # What the last redirections have brought.
        await asyncio.gather(*(node.close(0.0) for node in self._nodes.values() if node not in nodes))

    async def _get_elsewhere(self, key: bytes, node: _Node, miss: StoreMiss, due: float) -> bytes | None:
        for _ in range(MAX_REDIRECTIONS):
            found = redirection(str(miss), node.server.address)
            if found is None:
                break
            node = self._redirect(found)
            try:
                return await node.get_by(key, due, found.asking)
            except StoreMiss as error:
                miss = error
        if str(miss).startswith("CLUSTERDOWN"):
            self._notice()
        raise miss

    async def _follow(self, asked: Address, key: bytes, write: Write | None, error: str) -> bool:
        """A write that `asked` redirects: its slot has a new master's queue now, or the key alone is elsewhere."""
        found = redirection(error, asked)
        if found is None:
            return False
        node = self._redirect(found)
        return found.asking and await node.write_asking(key, write)

    def _redirect(self, found: Redirection) -> _Node:
        node = self._node(found.address)
        if not found.asking and self._slots[found.slot] is not node:
            old, self._slots[found.slot] = self._slots[found.slot], node
            self._move_writes([old])
            self._notice()
        return node

    def _node(self, address: Address) -> _Node:
        node = self._nodes.get(address)
        if node is None:
            server = self._seeds[0].at(address)
            node = self._nodes[address] = _Node(
                *(server, self._timeout_s, self._ttl_s, self._stats, self._max_queued),
                *(partial(self._follow, address), self._notice),
            )
        return node

    def _notice(self) -> None:
        """The map may be out of date."""
        self._stale.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_up())

    async def _keep_up(self) -> None:
        pause_s = PAUSE_S
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self._refresh()
            except StoreMiss as miss:
                if not self._nodes:
                    self._start.trip(str(miss))
            await self._start.closed()
            pause_s = min(2 * pause_s, MAX_PAUSE_S) if self._stale.is_set() else PAUSE_S
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))

    async def _refresh(self) -> None:
        """Adopt the map of the first server that has one. Raises `StoreMiss` when none has."""
        nodes = random.sample([*self._nodes.values()], len(self._nodes))
        live = [node.server for node in nodes if node.is_closed]
        failures = []
        for server in (*live, *self._seeds, *(node.server for node in nodes if not node.is_closed)):
            try:
                ranges = slot_ranges(await server.ask("CLUSTER", "SLOTS"), server.address)
            except (RedisError, OSError, TimeoutError, ValueError) as error:
                failures.append(f"{server.address}: {str(error) or type(error).__name__}")
                continue
            if ranges:
                self._adopt(ranges)
                return
            failures.append(f"{server.address}: it has no slots")
        if self._nodes:
            self._notice()
        raise StoreMiss("error", "; ".join(failures))

    def _adopt(self, ranges: Sequence[SlotRange]) -> None:
        slots: list[_Node | _Nobody] = [self._nobody] * SLOTS
        for first, last, master in ranges:
            slots[first : last + 1] = [self._node(master)] * (last + 1 - first)
        if slots != self._slots:
            self._slots = slots
            self._move_writes([self._nobody, *self._nodes.values()])
            masters = set(slots)
            for address, node in [*self._nodes.items()]:
                if node not in masters:
                    del self._nodes[address]
                    task = asyncio.get_running_loop().create_task(self._retire(node))
                    self._retiring.add(task)
                    task.add_done_callback(self._retiring.discard)
        if self._nobody in slots or not all(node.is_closed for node in self._nodes.values()):
            self._notice()

    def _move_writes(self, old: Sequence[_Node | _Nobody]) -> None:
        for node in old:
            for key, write in node.take_out(partial(self._is_not_of, node)).items():
                self.write(key, write)

    def _is_not_of(self, node: _Node | _Nobody, key: bytes) -> bool:
        return self._slots[key_slot(key)] is not node

    async def _retire(self, node: _Node) -> None:
        log.warning("context cache: %s has no slots any more: others have taken them over", node.name)
        try:
            await asyncio.sleep(self._timeout_s)  # for the requests that still wait for its replies
        finally:
            await node.close(0.0)


class _Node(RedisStore):
    """One master."""

    def __init__(
        self,
        server: Server,
        timeout_s: float,
        ttl_s: int,
        stats: CacheStats,
        max_queued: int,
        follow: Follow,
        on_open: Callable[[], None],
    ) -> None:
        name = f"Redis Cluster node {server.address}"
        super().__init__(server, name, timeout_s, ttl_s, stats, max_queued, follow, on_open)
        self.server = server


class _Nobody:
    """The master of slots that have none, or none that is known: what is written for them waits."""

    def __init__(self, stats: CacheStats, max_queued: int) -> None:
        self._queue = WriteQueue(_never_sent, lambda: False, _never_ready, stats, max_queued)

    def write(self, key: bytes, write: Write | None) -> None:
        self._queue.add(key, write)

    def pending(self, key: bytes) -> tuple[bool, Write | None]:
        return self._queue.pending(key)

    async def landed(self, key: bytes, timeout_s: float) -> bool:
        return not self._queue.pending(key)[0]

    def take_out(self, is_foreign: Callable[[bytes], bool]) -> Batch:
        return self._queue.take_out(is_foreign)

    async def close(self) -> None:
        await self._queue.close(0.0)


async def _never_sent(batch: Batch) -> None:
    raise StoreMiss("error")


async def _never_ready() -> None:
    await asyncio.Event().wait()
