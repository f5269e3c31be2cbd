# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""The compiled kernels of LLFM: a slate's scores, and what a side adds up to."""

import math
from functools import cache
from typing import Any

import numpy as np

from service.kernels._gather import items_ahead
from service.kernels._jit import F32_1, F32_2, FLOAT32, I32_1, I32_2, I64_1, INT64, OUT_F32_1, OUT_F32_2, VOID, kernel
from service.kernels._local import distances, machine, nearest, nearest_greedy, prefetch_line
from service.kernels.raw_memory import inner_kernel

BLOCK = 8
"""Items whose neighbours are found before the first of them is scored: their slots arrive meanwhile."""


@inner_kernel
def nearest_gamma(values, count, beta, gamma):
    """DO, APL: gamma ~ exp(-beta d^2) of the ``count`` nearest, whose d^2 are in ``values``."""
    total = 0.0
    for j in range(count):
        gamma[j] = math.exp(-beta * (values[j] - values[0]))
        total += gamma[j]
    share = 1.0 / total
    for j in range(count):
        gamma[j] *= share


@inner_kernel
def greedy_gamma(k, u, sums):
    """JO: turns the u of its ``k`` neighbours into gamma = (lambda - u) / sum of it, in place."""
    total, squares = sums[1], sums[2]
    bound = (total + math.sqrt(max(k + total * total - k * squares, 0.0))) / k
    share = 1.0 / (k * bound - total)
    for j in range(k):
        u[j] = share * (bound - u[j])


@cache
def local_items_kernel(near: int, width: int) -> Any:
    """Compile the scoring of a slate.

    The kernel's arguments: table [n, stride], rows [n_items, n_single], multi_indptr, multi_rows, multi_weights,
    n_multi, state [stride], start [near] (the state's distances, infinite behind the last anchor), halves [2, width],
    coding (anchors, neighbours or 0 for JO, squared), beta, ratio; result: out [n_items].
    """

    @kernel(VOID(F32_2, I32_2, I64_1, I32_1, F32_1, INT64, F32_1, F32_1, F32_2, I64_1, F32_1, OUT_F32_1))
    def score_slate(
        table, rows, multi_indptr, multi_rows, multi_x, n_multi, state, start, halves, coding, betas, out
    ):  # fmt: skip
        n, n_single = rows.shape
        stride = table.shape[1]
        anchors, neighbours, squared = coding[0], coding[1], coding[2] != 0
        beta, ratio = float(betas[0]), float(betas[1])
        ahead = items_ahead(n_single, near // 16, BLOCK)
        far = np.empty(near, np.float32)
        values = np.empty(near, np.float32)
        chosen = np.empty((BLOCK, near), np.int64)
        gamma = np.empty((BLOCK, near), np.float64)
        counts = np.empty(BLOCK, np.int64)
        sums = np.empty(3, np.float64)
        begin, end = INT64(0), INT64(0)
        for first in range(0, n, BLOCK):
            stop = min(first + BLOCK, n)
            for i in range(first, stop):
                b = i - first
                later = min(i + ahead, n - 1)
                for f in range(n_single):
                    at = INT64(rows[later, f]) * stride
                    for line in range(0, near, 16):
                        prefetch_line(table, at + line)
                if n_multi:
                    begin, end = multi_indptr[i * n_multi], multi_indptr[(i + 1) * n_multi]
                distances(table, rows, multi_rows, multi_x, i, begin, end, start, far, near, stride)
                if neighbours:
                    count = neighbours
                    nearest(far, count, chosen[b], values, near)
                    nearest_gamma(values, count, beta, gamma[b])
                else:
                    if not squared:
                        for a in range(near):
                            far[a] = FLOAT32(0.0) if far[a] < 0.0 else math.sqrt(far[a])
                    count = nearest_greedy(far, anchors, ratio, chosen[b], gamma[b], sums, near)
                    greedy_gamma(count, gamma[b], sums)
                    values[0] = sums[0]
                if not values[0] < math.inf:
                    count = -1  # no distance is a number
                counts[b] = count
                for j in range(count):
                    slot = near + chosen[b, j] * width
                    for f in range(n_single):
                        at = INT64(rows[i, f]) * stride + slot
                        for line in range(0, width, 16):
                            prefetch_line(table, at + line)
            for i in range(first, stop):
                b = i - first
                if n_multi:
                    begin, end = multi_indptr[i * n_multi], multi_indptr[(i + 1) * n_multi]
                score = 0.0 if counts[b] >= 0 else math.nan
                for j in range(counts[b]):
                    if gamma[b, j] > 0.0:
                        slot = near + chosen[b, j] * width
                        part = machine(
                            table, rows, multi_rows, multi_x, i, begin, end, state, halves, slot, width, stride
                        )  # fmt: skip
                        score += gamma[b, j] * part
                out[i] = FLOAT32(score)

    return score_slate


@kernel(VOID(F32_2, I32_2, I64_1, I32_1, F32_1, INT64, INT64, INT64, INT64, INT64, OUT_F32_2))
def add_rows(table, rows, multi_indptr, multi_rows, multi_x, n_multi, near, width, dim, anchors, out):
    """Adds to ``out`` float32 [n, stride] each row's features, as one row of the table's layout."""
    n, n_single = rows.shape
    used = near + anchors * width
    for i in range(n):
        for f in range(n_single):
            r = rows[i, f]
            for c in range(used):
                out[i, c] += table[r, c]
        if n_multi:
            for p in range(multi_indptr[i * n_multi], multi_indptr[(i + 1) * n_multi]):
                r, x = multi_rows[p], multi_x[p]
                for c in range(used):
                    out[i, c] += x * table[r, c]
                for a in range(anchors):
                    out[i, a] += x * x - x
                    slot, norm = near + a * width, FLOAT32(0.0)
                    for c in range(slot, slot + dim):
                        norm += table[r, c] * table[r, c]
                    out[i, slot + dim] += FLOAT32(0.5) * (x - x * x) * norm
