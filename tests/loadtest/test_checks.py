from __future__ import annotations

import pytest

from loadtest.checks import Limits, answered, soaked, stepped
from loadtest.stage import Stage
from tests.loadtest.test_stage import stage

STEPS = [stage(server, load, p99) for load in (100, 200) for server, p99 in (("floor", 2.0), ("ctrank", 4.0))]


def failed(stages: list[Stage], limits: Limits, *, soak: bool = False) -> list[str]:
    checks = [*answered(stages, limits), *(soaked(stages, limits) if soak else stepped(stages, limits))]
    return [check.name for check in checks if not check.passed]


def test_a_good_run_passes() -> None:
    assert failed(STEPS, Limits()) == []


@pytest.mark.parametrize(
    ("changes", "limits", "expected"),
    [
        ({}, Limits(objective_ms=0.001), ["capacity", "p99 over the floor's"]),
        ({}, Limits(max_p99_over_floor=1.9), ["p99 over the floor's"]),
        ({}, Limits(min_capacity_per_s=201), ["capacity"]),
        ({"errors": 1, "faults": {"status 500": 1}}, Limits(), ["errors and wrong answers"]),
        ({"lost_contexts": 30}, Limits(), ["contexts lost below capacity"]),
    ],
)
def test_each_check_fails_a_run(changes: dict[str, object], limits: Limits, expected: list[str]) -> None:
    last = stage("ctrank", 200, 4.0, **changes)
    assert failed([*STEPS[:-1], last], limits) == expected


def test_a_run_without_requests_fails() -> None:
    assert "errors and wrong answers" in failed([], Limits())


def test_faults_are_named() -> None:
    check = answered([stage("ctrank", 100, 1, errors=3, faults={"status 500": 1, "an item twice": 2})], Limits())[0]
    assert "3 of 100 requests: 2 x an item twice; 1 x status 500" in str(check)


def soak(p99: list[float], memory: list[float], floor: list[float] | None = None) -> list[Stage]:
    found = [stage("ctrank", 100, p, memory_bytes=m) for p, m in zip(p99, memory, strict=True)]
    return found + [stage("floor", 100, p) for p in floor or []]


def test_a_soak_passes_if_nothing_drifts_after_the_first_slice() -> None:
    assert failed(soak([50, 4, 5, 4, 5, 4], [1e8, 2e8, 2e8, 2e8, 2e8, 2e8]), Limits(), soak=True) == []


def test_drift_fails_a_soak_but_not_where_the_floor_drifts_alike() -> None:
    rising, flat = [4.0, 4, 4, 6, 9, 12, 12], [2e8] * 7
    assert failed(soak(rising, flat), Limits(), soak=True) == ["p99 drift"]
    assert failed(soak(rising, flat, floor=[2, 2, 2, 3, 4, 6, 6]), Limits(), soak=True) == []


def test_growing_memory_fails_a_soak() -> None:
    memory = [2e8, 2e8, 2.1e8, 2.2e8, 2.3e8, 2.4e8, 2.5e8]
    assert failed(soak([4] * 7, memory), Limits(), soak=True) == ["memory growth"]


def test_too_short_a_soak_fails() -> None:
    assert failed(soak([4, 4], [1e8, 1e8]), Limits(), soak=True) == ["soak"]
