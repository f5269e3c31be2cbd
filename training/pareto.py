"""The Pareto front: what no other candidate beats in both of two costs."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points (two costs each, less is better) are on the front.

    A point is off it when another is at most as costly in both and cheaper in one; of equal points all or none are on
    it. O(n log n): by ascending first cost, a point is on the front when its second cost is below that of all cheaper
    ones. NaN is a ValueError: it can be compared with nothing.
    """
    if any(cost != cost for point in points for cost in point):
        raise ValueError("pareto_front: expected numbers, found NaN")
    on = [False] * len(points)
    least = float("inf")
    kept: tuple[float, float] | None = None
    for i in sorted(range(len(points)), key=points.__getitem__):
        if points[i] == kept or kept is None or points[i][1] < least:
            on[i], kept, least = True, points[i], points[i][1]
    return on
