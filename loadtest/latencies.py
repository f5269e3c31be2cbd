"""A mergeable histogram of latencies: logarithmic buckets of 2 percent, so that a quantile is right to 1 percent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import exp, inf, log

_PER_E = 50.0  # buckets per factor e


class Latencies:
    """Counts of latencies in seconds."""

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: Counter[int] = Counter({int(k): v for k, v in (buckets or {}).items()})

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[int(log(max(seconds, 1e-6)) * _PER_E + 1e6)] += 1

    def merge(self, buckets: Mapping[int, int]) -> None:
        """Add the buckets of another histogram (its keys may have become strings on the way)."""
        for key, count in buckets.items():
            self.buckets[int(key)] += count

    @property
    def count(self) -> int:
        """How many were counted."""
        return self.buckets.total()

    def quantile_ms(self, q: float) -> float:
        """The smallest latency, in milliseconds, that a share `q` does not exceed; infinite if none was counted."""
        wanted, seen = q * self.count, 0
        for key in sorted(self.buckets):
            seen += self.buckets[key]
            if seen >= wanted:
                return exp((key - 1e6 + 0.5) / _PER_E) * 1e3
        return inf
