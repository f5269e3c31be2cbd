"""What all routes of one worker share."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from service.context_cache import ContextCache
from service.metrics import Metrics
from service.models import ModelSet
from service.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

MEETING = 64  # requests that can share a run of ONNX Runtime
_TIERS = ("memory", "shared", "redis")
_REASONS = ("absent", "hash_mismatch", "corrupt", "expired", "timeout", "error", "breaker_open")
_EVENTS = (
    *("writes", "coalesced_writes", "dropped_writes", "write_errors"),
    *("evictions", "shared_evictions", "breaker_openings"),
)
_GAUGES = ("memory_entries", "memory_bytes", "queued_writes")


class Serving:
    """Settings, metrics, models, context cache, and the threads for work that would hold up the event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, cache: ContextCache) -> None:
        self.settings = settings
        self.metrics = metrics
        self.models = ModelSet(settings, metrics)
        self.cache = cache
        self._all_were_ready = False
        self.threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="ctrank-rank")
        self.meeting = ThreadPoolExecutor(MEETING, thread_name_prefix="ctrank-meet")  # idle until it is used
        counter = metrics.counter
        self._published = [
            *((counter("ctrank_cache_hits", tier), f"hits_{tier}") for tier in _TIERS),
            *((counter("ctrank_cache_misses", reason), f"misses_{reason}") for reason in _REASONS),
            *((counter("ctrank_cache_events", event), event) for event in _EVENTS),
            *((counter("ctrank_cache_state", gauge), gauge) for gauge in _GAUGES),
            (counter("ctrank_breaker_state"), "breaker_state"),
        ]
        self._cpu = counter("ctrank_process_cpu_seconds")
        self._memory = counter("ctrank_process_memory_bytes")

    def ready(self) -> bool:
        """Whether this worker is ready and all its siblings are or have been: they share one socket, and a request may
        meet any of them. One that dies later and is replaced does not make the others unready."""
        if self.models.ready and not self._all_were_ready:
            self._all_were_ready = self.metrics.total("ctrank_ready_workers") >= self.settings.workers
        return self._all_were_ready

    async def run(self, estimated_us: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it here, or in a thread if it would hold up the event loop for longer than `offload_us`."""
        if estimated_us <= self.settings.offload_us:
            return call(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(call, *args, **kwargs))

    async def meet(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in one of many threads, where it may wait for others to share a run with (``Coalescer``)."""
        return await asyncio.get_running_loop().run_in_executor(self.meeting, partial(call, *args, **kwargs))

    def publish_stats(self) -> None:
        """Copy the counters of the cache and of the process to where a scrape by any worker finds them."""
        stats = self.cache.stats
        for counter, name in self._published:
            counter.set(float(getattr(stats, name)))
        self._cpu.set(time.process_time())
        self._memory.set(_resident_bytes())

    def close(self) -> None:
        """Let go of the threads; the cache is closed by its owner."""
        self.publish_stats()
        self.models.close()
        for pool in (self.threads, self.meeting):
            pool.shutdown(wait=False, cancel_futures=True)


def _resident_bytes() -> float:
    """Memory of this process that is resident, mapped files included; where the system does not say, its highest."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return peak if sys.platform == "darwin" else peak * 1024
