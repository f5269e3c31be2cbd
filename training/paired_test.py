"""Student's paired t-test, exact for whole degrees of freedom.

The distribution function is the finite trigonometric sum of Abramowitz and Stegun, Handbook of Mathematical Functions,
26.7.3 (odd degrees of freedom) and 26.7.4 (even).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def two_sided_p(t: float, freedom: int) -> float:
    """P(|T| >= |t|) for T of Student's distribution with ``freedom`` >= 1 degrees of freedom."""
    theta = math.atan2(abs(t), math.sqrt(freedom))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = freedom % 2
    term = math.cos(theta) if odd else 1.0
    total = 0.0
    for n in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (n - 1) / n
    inside = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return max(0.0, 1.0 - inside)


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of "the mean difference is 0" for paired differences; None below two of them. Without spread it
    is 1 for a mean of 0, else 0."""
    n = len(differences)
    if n < 2:
        return None
    mean, spread = statistics.fmean(differences), statistics.stdev(differences)
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    return two_sided_p(mean / (spread / math.sqrt(n)), n - 1)
