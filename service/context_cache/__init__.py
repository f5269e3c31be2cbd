"""Cached context states: process memory, then Redis, or a file shared by this machine's workers, or nothing.

    get -> memory -> shared tier (Redis within its budget, or LMDB) -> miss: the caller computes and puts
    put -> memory at once; shared tier by a background writer

Every value is verified (`record.py`); every reason for a miss is counted (`stats.py`); who may answer what is told in
`tiered.py`. Nothing here knows of models or HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from service.context_cache.key import ContextKey
from service.context_cache.memory import MemoryTier
from service.context_cache.stats import CacheStats
from service.context_cache.store import SharedStore
from service.context_cache.tiered import ContextCache, Hit, TieredCache

__all__ = ["CacheStats", "ContextCache", "ContextKey", "Hit", "build_cache"]


def build_cache(
    *,
    redis_url: str | None = None,
    redis_timeout_ms: float = 5.0,
    ttl_s: int = 3600,
    max_age_ms: float = 1000.0,
    memory_entries: int = 65_536,
    memory_bytes: int = 256 << 20,
    shared_dir: Path | str | None = None,
    shared_bytes: int = 256 << 20,
    now: Callable[[], float] = time.monotonic,
) -> ContextCache:
    """The cache of one worker process; build it in that process, use it from one event loop.

    With `redis_url` the shared tier is Redis, else with `shared_dir` an LMDB file in that folder (of at most
    `shared_bytes`), else there is none and memory alone answers. Raises `ValueError` for a bad URL and `StoreError`
    for a folder that cannot be used; a Redis that is away is no error.
    """
    stats = CacheStats()
    store: SharedStore | None = None
    # Imported where used: a worker without Redis does not load its client.
    if redis_url is not None:
        from service.context_cache.redis_cluster import ClusterStore
        from service.context_cache.redis_store import RedisStore
        from service.context_cache.redis_url import parse_redis_url

        target = parse_redis_url(redis_url)
        budget = (target.name, redis_timeout_ms / 1000, ttl_s, stats)
        store = ClusterStore(target.seeds, *budget) if target.endpoint is None else RedisStore(target.endpoint, *budget)
    elif shared_dir is not None:
        from service.context_cache.lmdb_store import LmdbStore

        store = LmdbStore(Path(shared_dir), ttl_s, stats, shared_bytes)
    memory = MemoryTier(memory_entries, memory_bytes, stats)
    return TieredCache(memory, store, stats, ttl_s, max_age_ms / 1000, now)
