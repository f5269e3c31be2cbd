# mypy: disable-error-code="no-untyped-def"
"""Encoded rows as sparse vectors x over all features: what per-sample methods read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.batches import Batch


class SparseRows(NamedTuple):
    """Row r holds the features ``features[indptr[r] : indptr[r + 1]]`` (int32) with the values ``x`` (float32)."""

    indptr: NDArray[np.int64]
    features: NDArray[np.int32]
    x: NDArray[np.float32]

    @classmethod
    def of(cls, batch: Batch, n_features: int) -> SparseRows:
        """The rows of a batch, fields one after the other; ValueError for rows off the table (damaged data)."""
        for rows in (batch.rows, batch.multi_rows):
            if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= n_features):
                found = f"{rows.min()} to {rows.max()}"
                raise ValueError(f"encoded rows: expected 0 to {n_features - 1}, found {found}; prepare the log again")
        n = len(batch)
        n_multi = (len(batch.multi_indptr) - 1) // n if n else 0
        total = batch.rows.size + batch.multi_rows.size
        indptr, index, x = np.empty(n + 1, np.int64), np.empty(total, np.int32), np.empty(total, np.float32)
        _flatten(batch.rows, batch.multi_indptr, batch.multi_rows, batch.multi_weights, n_multi, indptr, index, x)
        return cls(indptr, index, x)


@njit(cache=True)  # type: ignore[misc]
def _flatten(rows, multi_indptr, multi_rows, multi_weights, n_multi, indptr, index, x):
    at = 0
    indptr[0] = 0
    for r in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            index[at] = rows[r, j]
            x[at] = np.float32(1.0)
            at += 1
        for p in range(multi_indptr[r * n_multi], multi_indptr[(r + 1) * n_multi]):
            index[at] = multi_rows[p]
            x[at] = multi_weights[p]
            at += 1
        indptr[r + 1] = at
