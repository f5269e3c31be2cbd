"""The embedded shared tier: several processes, a full map, expiry, and files that are not what they should be."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest

from service.context_cache.lmdb_store import LmdbStore, StoreError, _Environment
from service.context_cache.record import pack
from service.context_cache.stats import CacheStats
from service.context_cache.store import StoreMiss, Write
from tests.service.context_cache.conftest import DIGEST, cache, key, state

pytestmark = pytest.mark.timed

A = key("a")

# Another worker: reads commands from its standard input, one per line, and answers each with one line.
WORKER = """
import asyncio, sys
import numpy as np
from service.context_cache import ContextKey, build_cache

async def main():
    contexts = build_cache(shared_dir=sys.argv[1], max_age_ms=0)
    print("ready", flush=True)
    for line in sys.stdin:
        command, name, *value = line.split()
        key = ContextKey("movielens", "0123456789abcdef", name)
        if command == "get":
            hit = await contexts.get(key)
            print("none" if hit is None else f"{hit.source} {hit.hash} {hit.state[0]:g} {hit.state.size}", flush=True)
        elif command == "put":
            await contexts.put(key, int(value[0]), np.full(int(value[1]), float(value[0]), np.float32))
            print(await contexts.landed(key, 10), flush=True)
        elif command == "delete":
            await contexts.delete(key)
            print(await contexts.landed(key, 10), flush=True)
        elif command == "storm":
            for i in range(int(value[0])):
                await contexts.put(ContextKey("movielens", "0123456789abcdef", f"{name}{i % 300}"), i,
                                   np.full(50, float(i), np.float32))
                if i % 50 == 0:
                    await asyncio.sleep(0.001)
            await contexts.close()
            print(contexts.stats.writes, contexts.stats.write_errors, contexts.stats.dropped_writes, flush=True)

asyncio.run(main())
"""


class Worker:
    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._line() == "ready"

    def ask(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._line()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def write(context_hash: int, size: int = 25) -> Write:
    return Write(DIGEST, context_hash, state(context_hash, size))


def test_what_one_process_stores_every_process_knows(tmp_path: Path) -> None:
    one, other = Worker(tmp_path), Worker(tmp_path)
    try:
        assert other.ask("get a") == "none"
        assert one.ask("put a 7 25") == "True"
        assert other.ask("get a") == "shared 7 7 25"
        assert other.ask("put a 8 25") == "True"  # another context: replaced for all
        assert one.ask("get a") == "shared 8 8 25"
        assert one.ask("delete a") == "True"
        assert other.ask("get a") == "none"
    finally:
        one.end()
        other.end()


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    workers = [Worker(tmp_path) for _ in range(3)]
    try:
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda w=w, i=i: answers.append(w.ask(f"storm shared{i % 2}- 3000")))
            for i, w in enumerate(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 3
        for answer in answers:
            landed, errors, dropped = map(int, answer.split())
            assert landed >= 300 and (errors, dropped) == (0, 0)
    finally:
        for worker in workers:
            worker.end()
    check_tables(tmp_path, 600)


def test_a_killed_process_does_not_lock_the_others_out(tmp_path: Path) -> None:
    one, other = Worker(tmp_path), Worker(tmp_path)
    try:
        assert one.process.stdin is not None
        one.process.stdin.write("storm x 1000000\n")
        one.process.stdin.flush()
        time.sleep(0.3)
        os.kill(one.process.pid, signal.SIGKILL)
        assert other.ask("put a 7 25") == "True"
        assert other.ask("get a") == "shared 7 7 25"
    finally:
        one.end()
        other.end()


def check_tables(folder: Path, expected: int | None = None) -> None:
    """Every value has exactly its own entry in `order`, and none is left over."""
    with lmdb.open(str(folder / "contexts.lmdb"), subdir=False, max_dbs=2) as env:
        values, order = env.open_db(b"values"), env.open_db(b"order")
        with env.begin() as transaction:
            from_values = sorted(bytes(v[:8]) + bytes(k) for k, v in transaction.cursor(db=values))
            from_order = [bytes(k) for k, _ in transaction.cursor(db=order)]
    assert from_values == from_order
    assert expected is None or len(from_order) == expected


def test_a_full_map_drops_the_oldest_and_never_fails(tmp_path: Path) -> None:
    """The oldest by the clock, which moves with every batch here: what was written in one batch is equally old."""

    async def run() -> None:
        ticks, stats = itertools.count(1_000_000), CacheStats()
        store = LmdbStore(tmp_path, 100_000, stats, map_bytes=1 << 20, wall=lambda: float(next(ticks)))
        names = [key(str(i)).encoded() for i in range(3000)]
        for i, name in enumerate(names):  # about 12 MB through a map of 1 MB
            store.write(name, Write(DIGEST, i, state(i, 1000)))
            if i % 100 == 99:
                assert await store.landed(name, 10)
                assert await store.get(name) == pack(name, DIGEST, i, state(i, 1000))
        assert stats.write_errors == 0 and stats.dropped_writes == 0
        kept = [i for i, name in enumerate(names) if await store.get(name) is not None]
        assert len(kept) > 60 and kept[-1] == 2999
        assert stats.shared_evictions == 3000 - len(kept)
        lost = set(range(kept[0], 3000)) - set(kept)
        assert not lost or max(lost) < kept[0] + 64, (kept[0], lost)  # of the oldest batch alone
        await store.close(1)
        assert (tmp_path / "contexts.lmdb").stat().st_size <= 1 << 20

    asyncio.run(run())
    check_tables(tmp_path)


def test_a_map_too_small_for_one_value_loses_the_write_only(tmp_path: Path) -> None:
    async def run() -> None:
        async with cache(shared_dir=tmp_path, shared_bytes=1 << 17) as contexts:
            await contexts.put(A, 1, state(1, 200_000))
            assert await contexts.landed(A, 10)
            assert contexts.stats.write_errors == 1
            assert await contexts.get(A) is not None  # from memory
            await contexts.put(key("b"), 2, state(2))
            assert await contexts.landed(key("b"), 10)
            assert contexts.stats.writes == 1

    asyncio.run(run())


def test_expiry_is_by_the_clock_that_workers_share(tmp_path: Path) -> None:
    async def run() -> None:
        wall = 1_000_000.0
        store = LmdbStore(tmp_path, 60, CacheStats(), wall=lambda: wall)
        store.write(b"a", write(1))
        assert await store.landed(b"a", 10)
        wall += 59.9
        assert await store.get(b"a") == pack(b"a", DIGEST, 1, state(1))
        wall += 0.2
        with pytest.raises(StoreMiss) as missed:
            await store.get(b"a")
        assert missed.value.reason == "expired"
        store.write(b"b", write(2))  # the next batch removes what has expired
        assert await store.landed(b"b", 10)
        assert await store.get(b"a") is None and await store.get(b"b") is not None
        await store.close(1)

    asyncio.run(run())
    check_tables(tmp_path, 1)


def test_expired_in_the_shared_tier_is_a_counted_miss(tmp_path: Path) -> None:
    async def run() -> None:
        async with cache(shared_dir=tmp_path, ttl_s=0, max_age_ms=0) as contexts:
            await contexts.put(A, 1, state(1))
            assert await contexts.landed(A, 10)
            await asyncio.sleep(0.005)
            assert await contexts.get(A) is None
            assert contexts.stats.misses_expired == 1

    asyncio.run(run())


def test_a_rewrite_moves_the_entry_to_the_young_end(tmp_path: Path) -> None:
    async def run() -> None:
        wall = 0.0
        store = LmdbStore(tmp_path, 60, CacheStats(), wall=lambda: wall)
        for name in (b"a", b"b", b"a"):
            wall += 10
            store.write(name, write(1))
            assert await store.landed(name, 10)
        wall = 85.0  # b, written at 20, has expired; a, written at 10 and again at 30, has not
        assert await store.get(b"a") is not None
        with pytest.raises(StoreMiss):
            await store.get(b"b")
        await store.close(1)

    asyncio.run(run())
    check_tables(tmp_path, 2)


def test_a_flipped_byte_is_a_counted_miss(tmp_path: Path) -> None:
    async def run() -> None:
        async with cache(shared_dir=tmp_path, max_age_ms=0) as contexts:
            await contexts.put(A, 1, state(1))
            assert await contexts.landed(A, 10)
            environment = _Environment._open[tmp_path]
            with environment.env.begin(write=True, db=environment.values) as transaction:
                [(name, value)] = list(transaction.cursor())
                transaction.put(name, value[:60] + bytes([value[60] ^ 1]) + value[61:])
            await asyncio.sleep(0.002)
            assert await contexts.get(A) is None and contexts.stats.misses_corrupt == 1

    asyncio.run(run())


def test_round_trip_of_long_and_strange_ids(tmp_path: Path) -> None:
    async def run() -> None:
        names = ["", "x" * 5000, "x" * 5001, "\ud800", "ä:\x00", "a"]
        async with cache(shared_dir=tmp_path, max_age_ms=0, memory_entries=1) as contexts:
            for i, name in enumerate(names):
                await contexts.put(key(name), i, state(i))
                assert await contexts.landed(key(name), 10)
            await asyncio.sleep(0.002)
            for i, name in enumerate(names):
                hit = await contexts.get(key(name))
                assert hit is not None and hit.hash == i
                np.testing.assert_array_equal(hit.state, state(i))

    asyncio.run(run())


def test_two_caches_of_one_process_share_the_file(tmp_path: Path) -> None:
    async def run() -> None:
        async with cache(shared_dir=tmp_path) as one:
            async with cache(shared_dir=tmp_path) as other:
                await one.put(A, 1, state(1))
                assert await one.landed(A, 10)
                assert await other.get(A) is not None
            await one.put(key("b"), 1, state(1))
            assert await one.landed(key("b"), 10)
        assert tmp_path not in _Environment._open

    asyncio.run(run())


def test_close_writes_what_is_queued(tmp_path: Path) -> None:
    async def run() -> None:
        async with cache(shared_dir=tmp_path) as contexts:
            for i in range(1000):
                await contexts.put(key(str(i)), i, state(i))
        assert contexts.stats.dropped_writes == 0

    asyncio.run(run())
    check_tables(tmp_path, 1000)


def test_another_boot_starts_afresh(tmp_path: Path) -> None:
    async def run() -> None:
        async with cache(shared_dir=tmp_path) as contexts:
            await contexts.put(A, 1, state(1))
        async with cache(shared_dir=tmp_path) as contexts:
            assert await contexts.get(A) is not None
        (tmp_path / "boot").write_text("another one\n")
        async with cache(shared_dir=tmp_path) as contexts:
            assert await contexts.get(A) is None

    asyncio.run(run())


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"file/store: cannot be used as the shared context store"):
        LmdbStore(tmp_path / "file" / "store", 60, CacheStats())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"nonsense" * 4096])
def test_a_torn_file_does_not_keep_the_service_from_starting(tmp_path: Path, content: bytes) -> None:
    async def run() -> None:
        async with cache(shared_dir=tmp_path):
            pass
        (tmp_path / "contexts.lmdb").write_bytes(content)  # same boot, other bytes
        async with cache(shared_dir=tmp_path) as contexts:
            await contexts.put(A, 1, state(1))
            assert await contexts.landed(A, 10)
        async with cache(shared_dir=tmp_path) as contexts:
            assert await contexts.get(A) is not None

    asyncio.run(run())


def test_the_store_is_private_to_its_user(tmp_path: Path) -> None:
    async def run() -> None:
        async with cache(shared_dir=tmp_path / "store"):
            assert (tmp_path / "store").stat().st_mode & 0o077 == 0
            assert (tmp_path / "store" / "contexts.lmdb").stat().st_mode & 0o077 == 0

    asyncio.run(run())
