"""How large a context state may be so that no score of precomputed items overflows float32 on the way."""

from __future__ import annotations

import math

import numpy as np

from service.scorers.protocol import F32, LARGEST


def query_bound(g: F32 | None) -> float:
    """For scores alpha + beta + <a, g>: |alpha| + |beta| + D |a| |g| <= ``LARGEST``."""
    if g is None or len(g) == 0:
        return LARGEST
    largest = max(float(np.abs(g).max(initial=0.0)), 1.0)
    return float(LARGEST / (g.shape[1] * largest + 2.0))


def local_bound(g: F32 | None, dim: int) -> float:
    """For LLFM: k (|state| + |g|)^2 and as much again stay within ``LARGEST``."""
    if g is None or len(g) == 0:
        return math.sqrt(LARGEST)
    largest = float(np.abs(g).max(initial=0.0))
    return max(math.sqrt(LARGEST / (2.0 * dim + 2.0)) - largest, 0.0)
