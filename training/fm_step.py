"""A factorization machine's score, loss and gradients in one compiled pass over a batch.

It does what the torch path of ``models/fm.py`` does, example by example, so that an example's rows are still in the
cache when their gradients are added:

    S = sum x_i v_i,   score = b0 + sum x_i b_i + 1/2 (|S|^2 - sum x_i^2 |v_i|^2),   d score / d v_i = x_i (S - x_i v_i)
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.batches import Batch
from training.feature_table import FeatureTable

F32 = NDArray[np.float32]


@njit(cache=True, fastmath={"contract", "reassoc"})  # type: ignore[misc]
def half_difference(total, squares):  # type: ignore[no-untyped-def]
    """1/2 sum_c (total_c^2 - squares_c): the pairwise term."""
    q = np.float32(0.0)
    for c in range(total.size):
        q += total[c] * total[c] - squares[c]
    return np.float32(0.5) * q


@njit(cache=True, fastmath={"contract"})  # type: ignore[misc]
def add_feature(row, x, total, squares):  # type: ignore[no-untyped-def]
    """Add x v to ``total`` and its squares to ``squares``; returns x b."""
    for c in range(total.size):
        part = x * row[c]
        total[c] += part
        squares[c] += part * part
    return x * row[total.size]


@njit(cache=True)  # type: ignore[misc]
def loss_and_slope(score, label, logistic):  # type: ignore[no-untyped-def]
    """Log loss or squared error of a score, and its derivative with respect to the score (float64)."""
    s, y = np.float64(score), np.float64(label)
    if not logistic:
        return (s - y) * (s - y), 2.0 * (s - y)
    e = np.exp(-abs(s))
    probability = 1.0 / (1.0 + e) if s >= 0.0 else e / (1.0 + e)
    return max(s, 0.0) - s * y + np.log1p(e), probability - y


@njit(cache=True, fastmath={"contract"})  # type: ignore[misc]
def _add_gradient(row, into, x, slope, total):  # type: ignore[no-untyped-def]
    gx = slope * x
    for c in range(total.size):
        into[c] += gx * (total[c] - x * row[c])
    into[total.size] += gx


@njit(cache=True)  # type: ignore[misc]
def _gradients(  # type: ignore[no-untyped-def]
    table, rows, single, indptr, multi_rows, multi_weights, multi, label, bias, logistic, grad, stamp, now, touched
):
    n, k = label.size, table.shape[1] - 1
    total, squares = np.empty(k, np.float32), np.empty(k, np.float32)
    one = np.float32(1.0)
    sum_loss, sum_slope, count = 0.0, 0.0, 0
    for i in range(n):
        total[:] = np.float32(0.0)
        squares[:] = np.float32(0.0)
        first, last = indptr[i * multi.size], indptr[(i + 1) * multi.size]
        score = bias
        for j in range(single.size):
            score += add_feature(table[rows[i, j]], one, total, squares)
        for p in range(first, last):
            score += add_feature(table[multi_rows[p]], multi_weights[p], total, squares)
        loss, slope = loss_and_slope(score + half_difference(total, squares), label[i], logistic)
        sum_loss += loss
        slope /= n
        sum_slope += slope
        g = np.float32(slope)
        for q in range(single.size + last - first):
            r = rows[i, q] if q < single.size else multi_rows[first + q - single.size]
            x = one if q < single.size else multi_weights[first + q - single.size]
            if stamp[r] != now:
                stamp[r] = now
                touched[count] = r
                count += 1
            _add_gradient(table[r], grad[r], x, g, total)
    return count, sum_loss / n, sum_slope


def fm_gradients(table: FeatureTable, batch: Batch, bias: float, loss: str) -> tuple[float, float, NDArray[np.int32]]:
    """Mean loss of the batch, its derivative with respect to the bias, and the rows touched, whose gradients are added
    to ``table.grad``: ready for ``FeatureTable.step_rows``. ValueError for rows off the table.
    """
    table.check(batch)
    touched = np.empty(batch.rows.size + batch.multi_rows.size, dtype=np.int32)
    buffers = table.grad, table.stamp, table.next_stamp(), touched
    logistic = loss == "logistic"
    count, mean, slope = _gradients(
        table.values, *table.where(batch), batch.label, np.float32(bias), logistic, *buffers
    )
    return float(mean), float(slope), touched[:count]
