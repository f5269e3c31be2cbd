"""Compiled loops between the feature table and field vectors: gather, its backward pass, and saliency.

All three take a ``batch`` as ``FeatureTable.where`` gives it: ``rows`` int32 [n, singles], the field of each column
``single``, the CSR arrays of the multi-valued fields, and their fields ``multi``. ``slopes`` are those with respect to
what :func:`gather` returns: g_vectors [m, n, k], g_linear [n], g_squares [n, k], and whether the family's term has the
last ones.
"""

# Compiled functions state their types at the call: mypy cannot read them here.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

# Fields are the outer loop: a field's rows lie together, so a large table is visited one cache-sized part at a time.


@njit(cache=True, fastmath={"contract"})  # type: ignore[misc]
def gather(table, batch, vectors, linear, squares):
    """Field vectors [m, n, k], linear sums [n] and squares x^2 v * v [n, k] of a batch, into the last three."""
    rows, single, indptr, multi_rows, multi_weights, multi = batch
    n, k = rows.shape[0], table.shape[1] - 1
    linear[:] = np.float32(0.0)
    squares[:] = np.float32(0.0)
    for j in range(single.size):
        into = vectors[single[j]]
        for i in range(n):
            row = table[rows[i, j]]
            out, square = into[i], squares[i]
            for c in range(k):
                out[c] = row[c]
                square[c] += row[c] * row[c]
            linear[i] += row[k]
    for j in range(multi.size):
        into = vectors[multi[j]]
        for i in range(n):
            out, square = into[i], squares[i]
            for c in range(k):
                out[c] = np.float32(0.0)
            at = i * multi.size + j
            for p in range(indptr[at], indptr[at + 1]):
                row = table[multi_rows[p]]
                x = multi_weights[p]
                for c in range(k):
                    share = x * row[c]
                    out[c] += share
                    square[c] += share * share
                linear[i] += x * row[k]


@njit(cache=True, fastmath={"contract"})  # type: ignore[misc]
def scatter(table, batch, slopes, grad, stamp, now, touched):
    """Add the gradients of a batch to ``grad``; returns how many rows are now in ``touched``, each of them once."""
    rows, single, indptr, multi_rows, multi_weights, multi = batch
    g_vectors, g_linear, g_squares, use_squares = slopes
    n, k = rows.shape[0], table.shape[1] - 1
    count = 0
    two = np.float32(2.0)
    for j in range(single.size):
        source = g_vectors[single[j]]
        for i in range(n):
            r = rows[i, j]
            if stamp[r] != now:
                stamp[r] = now
                touched[count] = r
                count += 1
            into = grad[r]
            g = source[i]
            if use_squares:
                row, gs = table[r], g_squares[i]
                for c in range(k):
                    into[c] += g[c] + two * gs[c] * row[c]
            else:
                for c in range(k):
                    into[c] += g[c]
            into[k] += g_linear[i]
    for j in range(multi.size):
        source = g_vectors[multi[j]]
        for i in range(n):
            g = source[i]
            at = i * multi.size + j
            for p in range(indptr[at], indptr[at + 1]):
                r = multi_rows[p]
                x = multi_weights[p]
                if stamp[r] != now:
                    stamp[r] = now
                    touched[count] = r
                    count += 1
                into = grad[r]
                if use_squares:
                    row, gs = table[r], g_squares[i]
                    for c in range(k):
                        into[c] += x * (g[c] + two * x * gs[c] * row[c])
                else:
                    for c in range(k):
                        into[c] += x * g[c]
                into[k] += x * g_linear[i]
    return count


@njit(cache=True, fastmath={"contract", "reassoc"})  # type: ignore[misc]
def _slope(row, g_vector, g_linear, g_squares, use_squares, x):
    total = np.float32(0.0)
    if use_squares:
        for c in range(row.size - 1):
            total += row[c] * (g_vector[c] + np.float32(2.0) * x * g_squares[c] * row[c])
    else:
        for c in range(row.size - 1):
            total += row[c] * g_vector[c]
    return total + g_linear * row[row.size - 1]


@njit(cache=True)  # type: ignore[misc]
def saliency(table, batch, slopes, of_single, of_multi, weighted):
    """dL/dx of every active feature into ``of_single`` and ``of_multi``; x^T dL/dx of each row into ``weighted``."""
    rows, single, indptr, multi_rows, multi_weights, multi = batch
    g_vectors, g_linear, g_squares, use_squares = slopes
    n, one = rows.shape[0], np.float32(1.0)
    weighted[:] = np.float32(0.0)
    for i in range(n):
        gs = g_squares[i]
        for j in range(single.size):
            slope = _slope(table[rows[i, j]], g_vectors[single[j], i], g_linear[i], gs, use_squares, one)
            of_single[i, j] = slope
            weighted[i] += slope
        for j in range(multi.size):
            g = g_vectors[multi[j], i]
            at = i * multi.size + j
            for p in range(indptr[at], indptr[at + 1]):
                x = multi_weights[p]
                slope = _slope(table[multi_rows[p]], g, g_linear[i], gs, use_squares, x)
                of_multi[p] = slope
                weighted[i] += x * slope
