# mypy: disable-error-code="no-untyped-def"
"""K-means of sparse rows: where LLFM's anchors start.

First centres by k-means++ (Arthur and Vassilvitskii, SODA 2007), then Lloyd's iterations until no row moves. A centre
that loses its rows takes the row that lies farthest from its own. Distances are |x|^2 - 2 <x, z> + |z|^2, in float64:
O(rows non-zeros centres) per iteration, nothing dense but the centres.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.sparse_rows import SparseRows

F64 = NDArray[np.float64]
#: Rows that the centres are fitted to, drawn without replacement where there are more.
MOST_ROWS = 50_000
ITERATIONS = 50


def k_means(rows: SparseRows, n_features: int, count: int, rng: np.random.Generator) -> F64:
    """``count`` centres, float64 [n_features, count]. With fewer distinct rows than that some centres are equal."""
    n = len(rows.indptr) - 1
    picked = np.sort(rng.choice(n, MOST_ROWS, replace=False)) if n > MOST_ROWS else np.arange(n)
    centres = np.zeros((n_features, count))
    nearest = np.full(len(picked), np.inf)
    chosen = int(rng.integers(len(picked)))
    for c in range(count):
        _set_centre(*rows, picked[chosen], centres, c)
        _closer(*rows, picked, centres, c, nearest)
        total = np.cumsum(nearest)
        if total[-1] > 0:
            chosen = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
            chosen = min(chosen, len(picked) - 1)
    own = np.full(len(picked), -1)
    for _ in range(ITERATIONS):
        moved = _assign(*rows, picked, centres, own, nearest)
        if not moved:
            break
        _average(*rows, picked, centres, own, nearest)
    return centres


@njit(cache=True)  # type: ignore[misc]
def _set_centre(indptr, index, x, row, centres, c):
    centres[:, c] = 0.0
    for p in range(indptr[row], indptr[row + 1]):
        centres[index[p], c] += x[p]


@njit(cache=True)  # type: ignore[misc]
def _closer(indptr, index, x, picked, centres, c, nearest):
    """Lowers ``nearest`` (squared distances) to that of centre c."""
    norm = 0.0
    for i in range(centres.shape[0]):
        norm += centres[i, c] * centres[i, c]
    for r in range(picked.size):
        total = norm
        for p in range(indptr[picked[r]], indptr[picked[r] + 1]):
            total += x[p] * (x[p] - 2.0 * centres[index[p], c])
        nearest[r] = min(nearest[r], max(total, 0.0))


@njit(cache=True)  # type: ignore[misc]
def _assign(indptr, index, x, picked, centres, own, nearest):
    """The nearest centre of each row, ties by number, and its squared distance; how many rows moved."""
    count = centres.shape[1]
    norms, far = np.zeros(count), np.empty(count)
    for i in range(centres.shape[0]):
        for c in range(count):
            norms[c] += centres[i, c] * centres[i, c]
    moved = 0
    for r in range(picked.size):
        far[:] = norms
        for p in range(indptr[picked[r]], indptr[picked[r] + 1]):
            value, i = np.float64(x[p]), index[p]
            for c in range(count):
                far[c] += value * (value - 2.0 * centres[i, c])
        best = 0
        for c in range(1, count):  # the first of equals
            if far[c] < far[best]:
                best = c
        moved += own[r] != best
        own[r] = best
        nearest[r] = max(far[best], 0.0)
    return moved


@njit(cache=True)  # type: ignore[misc]
def _average(indptr, index, x, picked, centres, own, nearest):
    count = centres.shape[1]
    size = np.zeros(count)
    for r in range(picked.size):
        size[own[r]] += 1.0
    for c in range(count):
        if size[c] == 0.0:
            lost = np.argmax(nearest)
            if nearest[lost] > 0.0 and size[own[lost]] > 1.0:
                size[own[lost]] -= 1.0
                own[lost], size[c], nearest[lost] = c, 1.0, 0.0
    for c in range(count):
        if size[c] > 0.0:
            centres[:, c] = 0.0
    for r in range(picked.size):
        c = own[r]
        for p in range(indptr[picked[r]], indptr[picked[r] + 1]):
            centres[index[p], c] += x[p] / size[c]
