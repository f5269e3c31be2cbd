"""The checks that fail a load test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from loadtest.stage import Stage, capacity, loads


@dataclass(frozen=True)
class Limits:
    """What a run must keep to."""

    objective_ms: float = 10.0
    min_capacity_per_s: float = 1.0
    max_error_share: float = 0.0
    max_lost_share: float = 0.01
    max_p99_over_floor: float = 10.0  # realistic traffic has slates of 10,000 items, the floor's reply is a constant
    max_p99_drift: float = 2.0
    max_memory_growth: float = 0.10


@dataclass(frozen=True)
class Check:
    """One check: what was found, what was expected."""

    name: str
    passed: bool
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}: {self.found} (expected {self.expected})"


def answered(stages: Sequence[Stage], limits: Limits) -> list[Check]:
    """Errors and wrong answers; contexts that the service no longer knew by their id."""
    ours = [s for s in stages if s.server == "ctrank"]
    requests, errors = sum(s.requests for s in stages), sum(s.errors for s in stages)
    served = [s for s in ours if s.meets(limits.objective_ms)] or ours
    lost, known = sum(s.lost_contexts for s in served), sum(s.requests for s in served)
    worst: dict[str, int] = {}
    for stage in stages:
        for fault, count in stage.faults.items():
            worst[fault] = worst.get(fault, 0) + count
    names = "; ".join(f"{count} x {fault}" for fault, count in sorted(worst.items(), key=lambda x: -x[1])[:3])
    passed = requests > 0 and errors <= limits.max_error_share * requests
    return [
        Check(
            "errors and wrong answers",
            passed,
            f"{errors} of {requests:,} requests" + (f": {names}" if names else ""),
            f"at most {limits.max_error_share:.2%} of at least one",
        ),
        Check(
            "contexts lost below capacity",
            lost <= limits.max_lost_share * known,
            f"{lost} of {known:,} requests",
            f"at most {limits.max_lost_share:.2%}",
        ),
    ]


def stepped(stages: Sequence[Stage], limits: Limits) -> list[Check]:
    """The objective is met at some load, and there p99 is within a multiple of the floor's at the same load (the
    median over the loads at which both meet the objective)."""
    found = capacity(stages, limits.objective_ms)
    checks = [
        Check(
            "capacity",
            found.per_s >= limits.min_capacity_per_s,
            found.describe(),
            f"at least {limits.min_capacity_per_s:,.0f} requests/s",
        )
    ]
    served = {
        server: {s.offered_per_s: s for s in loads(stages, server, limits.objective_ms) if s.meets(limits.objective_ms)}
        for server in ("ctrank", "floor")
    }
    both = served["ctrank"].keys() & served["floor"].keys()
    ratios = [served["ctrank"][load].p99_ms / served["floor"][load].p99_ms for load in both]
    if any(s.server == "floor" for s in stages):
        ratio = median(ratios) if ratios else float("inf")
        checks.append(
            Check(
                "p99 over the floor's",
                ratio <= limits.max_p99_over_floor,
                f"{ratio:.2f} times, median of {len(ratios)} loads",
                f"at most {limits.max_p99_over_floor:g}",
            )
        )
    return checks


def soaked(stages: Sequence[Stage], limits: Limits) -> list[Check]:
    """Neither latency nor memory drifts: the last third of equal slices against the first (the very first slice, which
    warms up, is left out). Latency is p99, over the floor's in the slice before where there is one."""
    slices = [s for s in stages if s.server == "ctrank"]
    floor = [s.p99_ms for s in stages if s.server == "floor"] or [1.0] * len(slices)
    if len(slices) < 3:
        return [Check("soak", False, f"{len(slices)} slices", "at least 3")]
    p99 = [s.p99_ms / f for s, f in zip(slices, floor, strict=True)][1:]
    third = max(len(p99) // 3, 1)
    drift = median(p99[-third:]) / median(p99[:third])
    checks = [
        Check("p99 drift", drift <= limits.max_p99_drift, f"{drift:.2f} times", f"at most {limits.max_p99_drift:g}")
    ]
    memory = [s.memory_bytes for s in slices[1:] if s.memory_bytes is not None]
    if len(memory) == len(p99):
        before, after = median(memory[:third]), median(memory[-third:])
        growth = after / before - 1
        found = f"{growth:+.1%} ({before / 2**20:,.0f} to {after / 2**20:,.0f} MiB)"
        checks.append(
            Check("memory growth", growth <= limits.max_memory_growth, found, f"at most {limits.max_memory_growth:.0%}")
        )
    return checks
