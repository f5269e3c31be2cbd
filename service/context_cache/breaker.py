"""The circuit breaker of the Redis tier: after failures in a row nobody asks, until a probe in the background succeeds.

    closed --------- failures in a row ---------> open <--- probe failed --- half open
       ^                                           |---- pause passed ---------^  |
       '------------------------- probe succeeded ---------------------------------'

Requests never probe, so no request pays for finding out that the server is still away. Requests that are under way
together fail together: one hiccup of the server is not enough, the failures must span some time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from service.context_cache.stats import CLOSED, HALF_OPEN, OPEN, CacheStats

log = logging.getLogger("ctrank.context_cache")


class Breaker:
    """Opens after `threshold` failures in a row over at least `span_s`; then runs `probe` until it succeeds.

    The pauses before probes double from `pause_s` to `max_pause_s`.
    `probe` raises while the server is away. `on_open` is called once for each opening, before anything else waits.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[None]],
        on_open: Callable[[], None],
        stats: CacheStats,
        threshold: int = 3,
        span_s: float = 0.005,
        pause_s: float = 0.025,
        max_pause_s: float = 1.0,
    ) -> None:
        self._name, self._probe, self._on_open, self._stats = name, probe, on_open, stats
        self._threshold, self._span_s = threshold, span_s
        self._pause_s, self._max_pause_s = pause_s, max_pause_s
        self._failures = 0
        self._failing_since = 0.0
        self.is_closed = True  # whether requests may ask the server
        self._closed = asyncio.Event()
        self._closed.set()
        stats.breakers[name] = CLOSED
        self._task: asyncio.Task[None] | None = None

    async def closed(self) -> None:
        """Wait until requests may ask the server."""
        await self._closed.wait()

    def success(self) -> None:
        """The server answered a request."""
        self._failures = 0

    def failure(self, detail: str) -> None:
        """A request failed or timed out; failures while open change nothing."""
        if not self.is_closed:
            return
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        if self._failures >= self._threshold and now - self._failing_since >= self._span_s:
            self.trip(f"{detail}; {self._failures} failures in a row")

    def trip(self, detail: str) -> None:
        """Open at once."""
        if not self.is_closed:
            return
        self.is_closed = False
        self._stats.breakers[self._name] = OPEN
        self._stats.breaker_openings += 1
        self._closed.clear()
        log.warning(
            "context cache: %s is unavailable (%s): contexts are recomputed or unknown until it answers again",
            self._name,
            detail,
        )
        self._on_open()
        self._task = asyncio.get_running_loop().create_task(self._recover())

    async def close(self) -> None:
        """Stop probing, and count no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._stats.breakers.pop(self._name, None)

    async def _recover(self) -> None:
        opened_at, pause_s = time.monotonic(), self._pause_s
        while True:
            # Jitter, so that the workers of many machines do not knock at the same instant.
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(2 * pause_s, self._max_pause_s)
            self._stats.breakers[self._name] = HALF_OPEN
            try:
                await self._probe()
            except Exception:
                self._stats.breakers[self._name] = OPEN
                continue
            self._failures = 0
            self.is_closed = True
            self._stats.breakers[self._name] = CLOSED
            self._closed.set()
            log.warning("context cache: %s answers again after %.1f s", self._name, time.monotonic() - opened_at)
            return
