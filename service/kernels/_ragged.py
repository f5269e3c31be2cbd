# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""RaFM's sums, one feature at a time: contexts and multi-valued fields.

``levels`` int64 [P, 4]: per level q its width kp_q, where v^(q) starts in a packed row, and where E_q and H_q start in
the sums ``[E_1, H_1, E_2, H_2, ..., E_P]`` (H_P is 0 and not stored; its place is -1).
"""

from typing import Any

import numpy as np
from numba import types

from service.kernels._jit import F32_1, I32_1, I32_2, I64_1, OUT_F32_1, OUT_F32_2, VOID, kernel
from service.kernels.raw_memory import inner_kernel
from service.kernels.side import F32

I64_2 = types.Array(types.int64, 2, "C", readonly=True)


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
    at = row_at[feature]
    start, last = np.int64(at >> 4) * 8, at & 15
    for q in range(last + 1):
        source = start + levels[q, 1]
        target = levels[q, 2] if q == last else levels[q, 3]
        for c in range(levels[q, 0]):
            sums[target + c] += x * rows[source + c]
    b = linear[feature]
    return x * b - x * x * (b - folded[feature])


@inner_kernel
def add_side(rows, row_at, folded, linear, levels, singles, i, indptr, values, weights, n_multi, sums):
    # Add every feature of the side's i-th row; returns the scalars' sum.
    total = np.float32(0.0)
    for j in range(singles.shape[1]):
        total += add_feature(rows, row_at, folded, linear, levels, singles[i, j], np.float32(1.0), sums)
    for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
        total += add_feature(rows, row_at, folded, linear, levels, values[p], weights[p], sums)
    return total


@inner_kernel
def interaction(levels, sums):
    # sum_q 1/2 |E_q|^2 + <E_q, H_q>
    total = np.float32(0.0)
    half = np.float32(0.5)
    for q in range(levels.shape[0]):
        kp, own, high = levels[q, 0], levels[q, 2], levels[q, 3]
        for c in range(kp):
            other = sums[high + c] if high >= 0 else np.float32(0.0)
            total += sums[own + c] * (half * sums[own + c] + other)
    return total


@kernel(VOID(F32_1, I32_1, F32_1, F32_1, I64_2, I32_2, I64_1, I32_1, F32_1, OUT_F32_1))
def ragged_context(rows, row_at, folded, linear, levels, singles, indptr, values, weights, state):
    # ``state`` holds [b0, zeros] and receives [t_C, sums].
    n_multi = indptr.size - 1
    state[0] += add_side(
        rows, row_at, folded, linear, levels, singles, 0, indptr, values, weights, n_multi, state[1:]
    )  # fmt: skip


@kernel(
    VOID(
        F32_1, I32_1, F32_1, F32_1, I64_2, I32_2, I64_1, I32_1, F32_1, F32_1, OUT_F32_1, OUT_F32_1, OUT_F32_2,
    )
)  # fmt: skip
def ragged_items(rows, row_at, folded, linear, levels, singles, indptr, values, weights, state, scratch, out, kept):
    n = singles.shape[0]
    n_multi = (indptr.size - 1) // n if n else 0
    for i in range(n):
        scratch[:] = state[1:]
        total = state[0] + add_side(
            rows, row_at, folded, linear, levels, singles, i, indptr, values, weights, n_multi, scratch
        )  # fmt: skip
        out[i] = total + interaction(levels, scratch)
        if kept.shape[0]:
            kept[i] = scratch


def query_vector(levels: Any, sums: F32) -> F32:
    """What meets an item's [E, H]: [E + H, E] of the context."""
    a = np.empty_like(sums)
    for kp, _, own, high in levels.tolist():
        a[own : own + kp] = sums[own : own + kp]
        if high >= 0:
            a[high : high + kp] = sums[own : own + kp]
            a[own : own + kp] += sums[high : high + kp]
    return a
