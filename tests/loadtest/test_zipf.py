from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from loadtest.zipf import Zipf


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.5])
def test_frequencies_follow_the_law(exponent: float) -> None:
    law, rng, draws = Zipf(50, exponent), Random(1), 100_000
    found = Counter(law.draw(rng) for _ in range(draws))
    total = sum((r + 1) ** -exponent for r in range(50))
    for rank in (0, 1, 9, 49):
        expected = (rank + 1) ** -exponent / total
        assert law.probability(rank) == pytest.approx(expected)
        assert found[rank] / draws == pytest.approx(expected, abs=4 * (expected / draws) ** 0.5)
    assert set(found) <= set(range(50))


@pytest.mark.parametrize(
    ("n", "exponent", "count"), [(1000, 0.0, 100), (1000, 1.2, 100), (100, 2.0, 99), (10, 1.0, 30)]
)
def test_distinct_ranks(n: int, exponent: float, count: int) -> None:
    found = Zipf(n, exponent).distinct(Random(2), count)
    assert len(found) == len(set(found)) == min(n, count)
    assert set(found) <= set(range(n))


def test_distinct_ranks_prefer_the_popular_and_are_in_no_order() -> None:
    law, rng = Zipf(10_000, 1.0), Random(3)
    slates = [law.distinct(rng, 100) for _ in range(50)]
    assert sum(0 in slate for slate in slates) > 45
    assert sum(9000 in slate for slate in slates) < 5
    places = [slate.index(0) for slate in slates if 0 in slate]
    assert 30 < sum(places) / len(places) < 70


def test_a_law_without_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="n >= 1"):
        Zipf(0, 1.0)
