"""Compiled loops over ragged rows ``[level 1 | ... | level p | b]``: see ``ragged_table.py`` for what they compute.

``values`` holds all rows, row r at ``start[r]:start[r + 1]``; ``group`` [n] is the number of its levels, level q at
``at[q]:at[q + 1]`` of a row.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from training.fm_step import loss_and_slope
from training.row_steps import adagrad_row, adam_row

# ``start`` and ``at`` are unsigned: an index that might be negative keeps a loop from being vectorised, and a slice for
# each feature costs as much as its arithmetic.


@njit(cache=True, fastmath={"contract", "reassoc"})  # type: ignore[misc]
def _add(values, start, group, at, row, x, own, high, norms):  # type: ignore[no-untyped-def]
    # Add a feature to the sums and norms of its group's level (``own``) and of those below (``high``).
    base, last = start[row], group[row] - 1
    for q in range(last):
        total = np.float32(0.0)
        for c in range(at[q], at[q + 1]):
            v = x * values[base + c]
            high[c] += v
            total += v * v
        norms[1, q] += total
    total = np.float32(0.0)
    for c in range(at[last], at[last + 1]):
        v = x * values[base + c]
        own[c] += v
        total += v * v
    norms[0, last] += total


@njit(cache=True, fastmath={"contract", "reassoc"})  # type: ignore[misc]
def _half_square(vector, begin, end):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for c in range(begin, end):
        total += vector[c] * vector[c]
    return np.float32(0.5) * total


@njit(cache=True)  # type: ignore[misc]
def gather_example(  # type: ignore[no-untyped-def]
    values, start, group, at, nested, singles, multi_rows, multi_weights, own, high, norms, levels
):
    """One example's levels, written to ``levels`` [P] (nested) or [1]; ``own`` [width] receives S. Returns the linear
    part. ``high`` [width] and ``norms`` [2, P] are scratch.
    """
    own[:] = np.float32(0.0)
    high[:] = np.float32(0.0)
    norms[:] = np.float32(0.0)
    half, one, linear = np.float32(0.5), np.float32(1.0), np.float32(0.0)
    for row in singles:
        linear += values[start[row + 1] - np.uint64(1)]
        _add(values, start, group, at, row, one, own, high, norms)
    for p in range(multi_rows.size):
        row, x = multi_rows[p], multi_weights[p]
        linear += x * values[start[row + 1] - np.uint64(1)]
        _add(values, start, group, at, row, x, own, high, norms)
    below = np.float32(0.0)
    for q in range(at.size - 1):
        begin, end = at[q], at[q + 1]
        for c in range(begin, end):
            own[c] += high[c]
        full = _half_square(own, begin, end) - half * (norms[0, q] + norms[1, q])
        if nested:
            levels[q] = below + full
            below += full - _half_square(high, begin, end) + half * norms[1, q]
        else:
            below += full
    if not nested:
        levels[0] = below
    return linear


@njit(cache=True)  # type: ignore[misc]
def gather_batch(  # type: ignore[no-untyped-def]
    values, start, group, at, nested, rows, indptr, multi_rows, multi_weights, sums, levels, linear
):
    """Every example's levels [n, P or 1], linear part [n] and S [n, width]."""
    n = rows.shape[0]
    n_multi = (indptr.size - 1) // n if n else 0
    high, norms = np.empty(at[at.size - 1], np.float32), np.empty((2, at.size - 1), np.float32)
    for i in range(n):
        first, last = indptr[i * n_multi], indptr[(i + 1) * n_multi]
        several = multi_rows[first:last], multi_weights[first:last]
        linear[i] = gather_example(
            values, start, group, at, nested, rows[i], *several, sums[i], high, norms, levels[i]
        )  # fmt: skip


@njit(cache=True, fastmath={"contract"})  # type: ignore[misc]
def _scatter_one(values, start, group, at, row, x, free, dependent, g_linear, sums, grad):  # type: ignore[no-untyped-def]
    base, last = start[row], group[row] - 1
    for q in range(last + 1):
        g = x * (free if q == last else dependent[q])
        gx = g * x
        for c in range(at[q], at[q + 1]):
            grad[base + c] += g * sums[c] - gx * values[base + c]
    grad[start[row + 1] - np.uint64(1)] += x * g_linear


@njit(cache=True)  # type: ignore[misc]
def scatter_example(  # type: ignore[no-untyped-def]
    values, start, group, at, singles, multi_rows, multi_weights, free, dependent, g_linear, sums, grad, stamp, now,
    touched, count,
):  # fmt: skip
    """Add one example's gradients: ``free`` that of the last level, ``dependent`` [P] those of each level for features
    of higher groups. Rows not yet stamped ``now`` are listed in ``touched``; returns how many are listed.
    """
    for p in range(singles.size + multi_rows.size):
        single = p < singles.size
        row = singles[p] if single else multi_rows[p - singles.size]
        x = np.float32(1.0) if single else multi_weights[p - singles.size]
        if stamp[row] != now:
            stamp[row] = now
            touched[count] = row
            count += 1
        _scatter_one(values, start, group, at, row, x, free, dependent, g_linear, sums, grad)
    return count


@njit(cache=True)  # type: ignore[misc]
def scatter_batch(  # type: ignore[no-untyped-def]
    values, start, group, at, rows, indptr, multi_rows, multi_weights, free, dependent, g_linear, sums, grad, stamp,
    now, touched,
):  # fmt: skip
    """Every example's gradients; ``dependent`` [n, P]. Returns the number of rows touched."""
    n, count = rows.shape[0], 0
    n_multi = (indptr.size - 1) // n if n else 0
    for i in range(n):
        first, last = indptr[i * n_multi], indptr[(i + 1) * n_multi]
        several = multi_rows[first:last], multi_weights[first:last]
        slopes = free[i], dependent[i], g_linear[i]
        count = scatter_example(
            values, start, group, at, rows[i], *several, *slopes, sums[i], grad, stamp, now, touched, count
        )  # fmt: skip
    return count


@njit(cache=True)  # type: ignore[misc]
def step_batch(  # type: ignore[no-untyped-def]
    values, start, group, at, nested, rows, indptr, multi_rows, multi_weights, label, bias, logistic, grad, stamp, now,
    touched,
):  # fmt: skip
    """Gather, loss and scatter of each example while its rows are in the cache. Returns the number of rows touched, the
    mean loss of the last level, and its derivative with respect to the bias.
    """
    n, n_levels = rows.shape[0], at.size - 1
    n_multi = (indptr.size - 1) // n if n else 0
    width = at[n_levels]
    sums, high, norms = np.empty(width, np.float32), np.empty(width, np.float32), np.empty((2, n_levels), np.float32)
    levels = np.empty(n_levels if nested else 1, np.float32)
    dependent = np.empty(n_levels, np.float32)
    sum_loss, sum_slope, count = 0.0, 0.0, 0
    for i in range(n):
        first, last = indptr[i * n_multi], indptr[(i + 1) * n_multi]
        several = multi_rows[first:last], multi_weights[first:last]
        base = bias + gather_example(
            values, start, group, at, nested, rows[i], *several, sums, high, norms, levels
        )  # fmt: skip
        loss, slope = loss_and_slope(base + levels[levels.size - 1], label[i], logistic)
        free = np.float32(slope / n)
        sum_loss += loss
        sum_slope += slope / n
        for q in range(n_levels):
            dependent[q] = free
            if nested and q < n_levels - 1:
                target = np.float64(base + levels[q + 1])
                if logistic:
                    target = 1.0 / (1.0 + np.exp(-target))
                dependent[q] = np.float32(loss_and_slope(base + levels[q], target, logistic)[1] / n)
        count = scatter_example(
            values, start, group, at, rows[i], *several, free, dependent, free, sums, grad, stamp, now, touched, count
        )  # fmt: skip
    return count, sum_loss / n, sum_slope


@njit(cache=True, fastmath={"contract", "reassoc"})  # type: ignore[misc]
def _slope(values, start, group, at, nested, row, x, own, high):  # type: ignore[no-untyped-def]
    # d score / dx without the linear part: the partners of the row's feature, each level with those it meets there.
    base, last = start[row], group[row] - 1
    total = np.float32(0.0)
    for q in range(last + 1):
        whole = q == last or not nested
        for c in range(at[q], at[q + 1]):
            v = values[base + c]
            total += v * (own[c] + high[c] - x * v if whole else own[c])
    return total


@njit(cache=True)  # type: ignore[misc]
def saliency_batch(  # type: ignore[no-untyped-def]
    values, start, group, at, nested, rows, indptr, multi_rows, multi_weights, g, g_linear, of_single, of_multi,
    weighted,
):  # fmt: skip
    """DL/dx of single-valued columns and multi-valued values, and (dL/dx)^T x, from the gradients of the score."""
    n, width, n_levels = rows.shape[0], at[at.size - 1], at.size - 1
    n_multi = (indptr.size - 1) // n if n else 0
    own, high, one = np.empty(width, np.float32), np.empty(width, np.float32), np.float32(1.0)
    norm = np.empty((2, n_levels), np.float32)
    for i in range(n):
        own[:] = np.float32(0.0)
        high[:] = np.float32(0.0)
        weighted[i] = np.float32(0.0)
        for j in range(rows.shape[1]):
            _add(values, start, group, at, rows[i, j], one, own, high, norm)
        for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
            _add(values, start, group, at, multi_rows[p], multi_weights[p], own, high, norm)
        for j in range(rows.shape[1]):
            row = rows[i, j]
            slope = g[i] * _slope(values, start, group, at, nested, row, one, own, high)
            of_single[i, j] = slope + g_linear[i] * values[start[row + 1] - np.uint64(1)]
            weighted[i] += of_single[i, j]
        for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
            row, x = multi_rows[p], multi_weights[p]
            slope = g[i] * _slope(values, start, group, at, nested, row, x, own, high)
            of_multi[p] = slope + g_linear[i] * values[start[row + 1] - np.uint64(1)]
            weighted[i] += x * of_multi[p]


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def adagrad_rows(values, grad, total, start, touched, lr, eps, l2, l2_linear):  # type: ignore[no-untyped-def]
    """Adagrad on the rows ``touched``."""
    for r in touched:
        a, b = start[r], start[r + 1]
        adagrad_row(values[a:b], grad[a:b], total[a:b], lr, eps, l2, l2_linear)


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def adam_rows(values, grad, mean, square, start, touched, size, eps, beta1, beta2, root2, l2, l2_linear):  # type: ignore[no-untyped-def]
    """Adam on the rows ``touched``."""
    for r in touched:
        a, b = start[r], start[r + 1]
        moments = mean[a:b], square[a:b]
        adam_row(values[a:b], grad[a:b], *moments, size, eps, beta1, beta2, root2, l2, l2_linear)
