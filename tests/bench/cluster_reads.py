"""A read within a deadline from a Redis Cluster and from one server: the context cache's client against redis-py's.

    python -m tests.bench.cluster_reads

Three masters, one server and this process share the machine's cores. Medians of turns taken in one run, microseconds of
wall clock and of this process's CPU for each read.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import numpy as np
import uvloop
from redis.asyncio import Redis
from redis.asyncio import RedisCluster as RedisPyCluster

from service.bench.machine import describe, summary
from service.context_cache import ContextKey
from service.context_cache.redis_cluster import ClusterStore
from service.context_cache.redis_store import RedisStore
from service.context_cache.redis_url import parse_redis_url
from service.context_cache.stats import CacheStats
from service.context_cache.store import Write
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer

READS, TURNS, KEYS, TIMEOUT_S = 4000, 9, 64, 1.0
Read = Callable[[int], Awaitable[object]]


async def turn(read: Read, callers: int) -> tuple[float, float]:
    """Microseconds of wall clock and CPU for each read."""

    async def caller() -> None:
        for i in range(READS // callers):
            assert await read(i % KEYS) is not None

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    count = READS // callers * callers / 1e6
    return (time.perf_counter() - began) / count, (time.process_time() - cpu) / count


async def measure(cluster: RedisCluster, server: RedisServer) -> None:
    names = [ContextKey("bench", "0" * 16, f"session-{i}").encoded() for i in range(KEYS)]
    one, seeds = parse_redis_url(server.url).endpoint, parse_redis_url(cluster.url).seeds
    assert one is not None
    stores = (
        RedisStore(one, "server", TIMEOUT_S, 3600, CacheStats()),
        ClusterStore(seeds, "cluster", TIMEOUT_S, 3600, CacheStats()),
    )
    for store in stores:
        await store.open()
        for name in names:
            store.write(name, Write("0" * 16, 1, np.arange(25, dtype=np.float32)))
            assert await store.landed(name, 10)

    async def timed(reply: Awaitable[object]) -> object:
        async with asyncio.timeout(TIMEOUT_S):
            return await reply

    single = Redis(port=server.port, protocol=2)
    clustered = RedisPyCluster(host="127.0.0.1", port=cluster.masters[0].port)
    ways: dict[str, Read] = {
        "one server, redis-py": lambda i: timed(single.get(names[i])),
        "one server, ctrank": lambda i: stores[0].get(names[i]),
        "cluster, redis-py": lambda i: timed(clustered.get(names[i])),
        "cluster, ctrank": lambda i: stores[1].get(names[i]),
    }
    for callers in (1, 16):
        turns = [{name: await turn(read, callers) for name, read in ways.items()} for _ in range(TURNS)][1:]
        for name in ways:
            wall, cpu = (statistics.median(seen[name][which] for seen in turns) for which in (0, 1))
            print(f"{callers:>2} at a time   {name:<22} {wall:7.1f} us   CPU {cpu:6.1f} us")
    await single.aclose()
    await clustered.aclose()
    for store in stores:
        await store.close(1)


def main() -> None:
    print(summary(describe()))
    with RedisCluster(masters=3) as cluster, RedisServer() as server:
        uvloop.run(measure(cluster, server))


if __name__ == "__main__":
    main()
