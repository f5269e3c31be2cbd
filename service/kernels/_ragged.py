# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""RaFM's sums, one feature at a time: contexts and multi-valued fields.

``levels`` int64 [P, 4]: per level q its width kp_q, where v^(q) starts in a packed row, and where E_q and H_q start in
the sums ``[E_1, H_1, E_2, H_2, ..., E_P]`` (H_P is 0 and not stored; its place is -1).
"""

from functools import cache
from typing import Any

import numpy as np
from numba import types

from service.kernels._gather import items_ahead
from service.kernels._jit import F32_1, F32_2, I32_1, I32_2, I64_1, INT64, OUT_F32_1, OUT_F32_2, VOID, kernel
from service.kernels._ragged_slate import ragged_slate
from service.kernels.query import QueryForm
from service.kernels.raw_memory import inner_kernel

I64_2 = types.Array(types.int64, 2, "C", readonly=True)
OUT_I64_1 = types.Array(types.int64, 1, "C")


def level_table(ranks: tuple[int, ...]) -> Any:
    """``levels`` of the ranks."""
    widths = [-(-rank // 8) * 8 for rank in ranks]
    out = np.zeros((len(ranks), 4), np.int64)
    for q, kp in enumerate(widths):
        out[q] = kp, sum(widths[:q]), 2 * sum(widths[:q]), 2 * sum(widths[:q]) + kp
    out[-1, 3] = -1
    return out


def sums_size(levels: Any) -> int:
    """Floats of the sums."""
    return int(levels[-1, 2] + levels[-1, 0])


@inner_kernel
def add_feature(rows, row_at, folded, linear, levels, feature, x, sums):
    # Add x times the feature's vectors to ``sums``; returns x b - 1/2 x^2 |v^(k)|^2 (folded is b - 1/2 |v^(k)|^2).
    at = row_at[2 * feature]
    start, last = np.int64(at >> 4) * 8, at & 15
    for q in range(last + 1):
        source = start + levels[q, 1]
        target = levels[q, 2] if q == last else levels[q, 3]
        for c in range(levels[q, 0]):
            sums[target + c] += x * rows[source + c]
    b = linear[feature]
    return x * b - x * x * (b - folded[2 * feature + 1])


@inner_kernel
def add_side(rows, row_at, folded, linear, levels, singles, i, indptr, values, weights, n_multi, sums):
    # Add every feature of the side's i-th row; returns the scalars' sum.
    total = np.float32(0.0)
    for j in range(singles.shape[1]):
        total += add_feature(rows, row_at, folded, linear, levels, singles[i, j], np.float32(1.0), sums)
    for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
        total += add_feature(rows, row_at, folded, linear, levels, values[p], weights[p], sums)
    return total


@cache
def ragged_context() -> Any:
    """Compile the context state: table, side of one row, state that holds [b0, zeros] and receives [t_C, sums]."""

    @kernel(VOID(F32_1, I32_1, F32_1, F32_1, I64_2, I32_2, I64_1, I32_1, F32_1, OUT_F32_1))
    def add_context(rows, row_at, folded, linear, levels, singles, indptr, values, weights, state):
        n_multi = indptr.size - 1
        state[0] += add_side(
            rows, row_at, folded, linear, levels, singles, 0, indptr, values, weights, n_multi, state[1:]
        )  # fmt: skip

    return add_context


@cache
def ragged_items(widths: tuple[int, ...]) -> Any:
    """Compile the scoring of a slate for levels of ``widths`` floats.

    The kernel's arguments: rows, row_at, folded, linear, levels, the side, state [1 + size]; zeros [longest row], ring
    int64 with ``slots`` slots, starts [some items, 1 + size] (scratch, for multi-valued fields), sums [size]
    (scratch); results: out [n], kept [n, size] or [0, 0].
    """
    score_slate, lines = ragged_slate(widths), 1 + -(-widths[0] // 16)

    @kernel(
        VOID(
            F32_1, I32_1, F32_1, F32_1, I64_2, I32_2, I64_1, I32_1, F32_1, F32_2, F32_1, OUT_I64_1, INT64, OUT_F32_2,
            OUT_F32_1, OUT_F32_1, OUT_F32_2,
        )
    )  # fmt: skip
    def score_ragged(
        rows, row_at, folded, linear, levels, singles, indptr, values, weights, state, zeros, ring, slots, starts,
        sums, out, kept,
    ):  # fmt: skip
        n = singles.shape[0]
        n_multi = (indptr.size - 1) // n if n else 0
        distance = min(items_ahead(singles.shape[1], lines, 1), slots - 1)
        if not n_multi:
            score_slate(rows, row_at, folded, singles, 0, n, distance, state, 0, zeros, ring, slots, sums, out, kept)
            return
        width, first = state.shape[1], 0
        while first < n:
            stop = min(first + starts.shape[0], n)
            for i in range(first, stop):
                start = starts[i - first]
                for c in range(width):
                    start[c] = state[0, c]
                for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
                    start[0] += add_feature(rows, row_at, folded, linear, levels, values[p], weights[p], start[1:])
            score_slate(
                rows, row_at, folded, singles, first, stop, distance, starts, width, zeros, ring, slots, sums, out, kept
            )
            first = stop

    return score_ragged


@cache
def ragged_compute() -> Any:
    """``compute`` of the ``ContextProgram``: ``table`` and ``second`` are the packed rows and the linear weights in one
    row each, ``first`` the records and ``scratch`` the levels, both by their bytes."""
    add_context = ragged_context()

    @inner_kernel
    def compute(table, singles, multi_indptr, multi_rows, multi_weights, first, second, scratch, state):
        records = first.reshape(first.size)
        levels = scratch.reshape(scratch.size).view(np.int64).reshape(scratch.shape[0], 4)
        add_context(
            table[0], records.view(np.int32), records, second[0], levels, singles, multi_indptr, multi_rows,
            multi_weights, state,
        )  # fmt: skip

    return compute


def query_form(levels: Any) -> QueryForm:
    """What meets an item's [E, H]: [E + H, E] of the context."""
    size = sums_size(levels)
    w, u, j = np.ones(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.int32)
    for kp, _, own, high in levels.tolist():
        if high >= 0:
            w[high : high + kp] = 0.0
            for first, second in ((own, high), (high, own)):
                u[first : first + kp] = 1.0
                j[first : first + kp] = np.arange(second, second + kp)
    return QueryForm(w, 0.5, u, j)
