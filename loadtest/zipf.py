"""Zipf's law over a finite number of ranks."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from random import Random


class Zipf:
    """Ranks 0..n-1 with P(r) proportional to (r + 1)^-exponent; an exponent of 0 is the uniform law."""

    def __init__(self, n: int, exponent: float) -> None:
        if n < 1 or exponent < 0:
            raise ValueError(f"Zipf: expected n >= 1 and an exponent >= 0, found n = {n}, exponent = {exponent}")
        self._uniform = exponent == 0
        self._cumulative: list[float] = list(accumulate((r + 1.0) ** -exponent for r in range(n)))

    def draw(self, rng: Random) -> int:
        """One rank."""
        return min(bisect_right(self._cumulative, rng.random() * self._cumulative[-1]), len(self._cumulative) - 1)

    def distinct(self, rng: Random, count: int) -> list[int]:
        """`count` different ranks (all of them if there are not as many) in random order.

        Ranks are drawn until they are enough; after `8 count` draws the rest comes uniformly from those not drawn.
        """
        n = len(self._cumulative)
        count = min(count, n)
        if self._uniform:
            return rng.sample(range(n), count)
        found: dict[int, None] = {}
        for _ in range(8):
            if len(found) < count:
                found |= dict.fromkeys(rng.choices(range(n), cum_weights=self._cumulative, k=count))
        ranks = list(found)[:count]
        if len(ranks) < count:
            ranks += rng.sample([r for r in range(n) if r not in found], count - len(ranks))
        rng.shuffle(ranks)  # popular ranks are drawn early, and a slate is in no order
        return ranks

    def probability(self, rank: int) -> float:
        """P(rank)."""
        below = self._cumulative[rank - 1] if rank else 0.0
        return (self._cumulative[rank] - below) / self._cumulative[-1]
