"""Counters of the context cache, as plain integers; the metrics endpoint reads them."""

from __future__ import annotations

from dataclasses import dataclass, field

CLOSED, HALF_OPEN, OPEN = 0, 1, 2


@dataclass(slots=True)
class CacheStats:
    """Everything the cache counts since it was built. All but the last four fields only grow.

    `breakers` has the state of each Redis server's circuit breaker by the server's name: 0 closed, 1 half open, 2 open.
    """

    hits_memory: int = 0
    hits_shared: int = 0  # the embedded store of several workers
    hits_redis: int = 0
    misses_absent: int = 0
    misses_hash_mismatch: int = 0  # the request's context is another one: replaced
    misses_corrupt: int = 0  # a value that does not verify
    misses_expired: int = 0
    misses_timeout: int = 0  # the shared tier did not answer within its budget
    misses_error: int = 0  # the shared tier failed
    misses_breaker_open: int = 0  # the shared tier was not asked
    writes: int = 0  # puts and deletes that landed in the shared tier
    coalesced_writes: int = 0  # replaced by a newer write of the same key before they were sent
    dropped_writes: int = 0  # lost: queue full, or unsent at close
    write_errors: int = 0  # refused by the shared tier
    evictions: int = 0  # from process memory
    shared_evictions: int = 0  # from the embedded store, before their time
    breaker_openings: int = 0
    memory_entries: int = 0
    memory_bytes: int = 0
    queued_writes: int = 0
    breakers: dict[str, int] = field(default_factory=dict)

    @property
    def breaker_state(self) -> int:
        """The worst state of all breakers; closed where there is none."""
        return max(self.breakers.values(), default=CLOSED)

    def miss(self, reason: str) -> None:
        """Count a miss; `reason` is the part of a `misses_` field's name after the prefix."""
        name = "misses_" + reason
        setattr(self, name, getattr(self, name) + 1)

    def hit(self, source: str) -> None:
        """Count a hit in "memory", "shared" or "redis"."""
        name = "hits_" + source
        setattr(self, name, getattr(self, name) + 1)
