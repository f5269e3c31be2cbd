"""Latencies, loads, capacity."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from loadtest.latencies import Latencies
from loadtest.stage import Stage, capacity, loads, undecided

pytestmark = pytest.mark.timed


def stage(server: str, load: float, p99_ms: float, **changes: object) -> Stage:
    made = Stage(
        server, load, load, p99_ms / 4, p99_ms / 2, p99_ms, p99_ms * 2, 1.0, int(load), 0, cores_used=load / 1000
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_quantiles_are_right_to_two_percent_and_histograms_add_up() -> None:
    drawn = np.random.default_rng(1).lognormal(-7, 1, 20_000)
    parts = [Latencies(), Latencies()]
    for i, seconds in enumerate(drawn.tolist()):
        parts[i % 2].add(seconds)
    parts[0].merge({str(k): v for k, v in parts[1].buckets.items()})  # type: ignore[misc]
    assert parts[0].count == 20_000
    for q in (0.5, 0.99, 0.999):
        assert parts[0].quantile_ms(q) == pytest.approx(np.quantile(drawn, q) * 1e3, rel=0.02)
    assert Latencies().quantile_ms(0.5) == inf


def test_capacity_is_the_last_load_before_the_first_miss() -> None:
    stages = [stage("ctrank", load, p99) for load, p99 in ((100, 2), (200, 3), (400, 12), (300, 9), (800, 5))]
    found = capacity([*stages, *(stage("floor", load, 1) for load in (100, 200, 300, 400, 800))], 10)
    assert (found.per_s, found.limit) == (300, "service")
    assert found.requests_per_core_s == pytest.approx(1000)
    assert "at least" not in found.describe()


def test_the_client_is_the_limit_where_the_floor_breaks_too() -> None:
    stages = [stage("ctrank", 100, 2), stage("ctrank", 200, 30), stage("floor", 100, 2), stage("floor", 200, 20)]
    found = capacity(stages, 10)
    assert (found.per_s, found.limit) == (100, "client")
    assert "at least 100" in found.describe()


def test_without_a_miss_the_capacity_is_a_lower_bound() -> None:
    assert capacity([stage("ctrank", 100, 2)], 10).limit == "client"
    assert capacity([stage("ctrank", 100, 20)], 10).per_s == 0


def test_a_load_that_is_not_answered_in_full_is_a_miss_whatever_its_latency() -> None:
    assert stage("ctrank", 100, 2).meets(10)
    assert not stage("ctrank", 100, 2, achieved_per_s=60.0).meets(10)
    assert stage("ctrank", 100, 2, achieved_per_s=70.0).meets(10)  # chance: a Poisson count of 100
    assert not stage("ctrank", 100, 2, achieved_per_s=90.0, seconds=60.0).meets(10)


def test_the_majority_decides_and_its_worst_stands_for_the_load() -> None:
    stages = [stage("ctrank", 100, p99) for p99 in (3, 40, 5)]
    assert [s.p99_ms for s in loads(stages, "ctrank", 10)] == [5]
    assert [s.p99_ms for s in loads(stages[:2], "ctrank", 10)] == [40]
    assert undecided([], 10, True) and undecided(stages[:1], 10, False) and not undecided(stages[:1], 10, True)
    assert undecided(stages[:2], 10, True) and undecided(stages[1:2], 10, True) and not undecided(stages, 10, True)


def test_an_infinite_latency_survives_json() -> None:
    made = stage("ctrank", 100, inf)
    assert made.to_dict()["p99_ms"] is None
    assert Stage.from_dict(made.to_dict()) == made
