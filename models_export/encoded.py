"""Encoded rows: the one batch form of contexts, slates, catalogues and training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models_export.errors import ArtefactError


@dataclass
class EncodedSide:
    """``n`` encoded rows over the fields of one side (or of both), in kernel order: single-valued fields first.

    ``rows`` int32 [n, n_single]: feature rows of the single-valued fields. Values of the ``j``-th multi-valued field of
    row ``i`` are ``multi_rows[p:q]`` (int32) with ``multi_weights[p:q]`` (float32), where
    ``p, q = multi_indptr[i * n_multi + j : i * n_multi + j + 2]`` (int64).
    """

    rows: npt.NDArray[np.int32]
    multi_indptr: npt.NDArray[np.int64]
    multi_rows: npt.NDArray[np.int32]
    multi_weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_multi(self) -> int:
        """Number of multi-valued fields; 0 for an empty batch."""
        return (len(self.multi_indptr) - 1) // len(self.rows) if len(self.rows) else 0

    @classmethod
    def without_multi(cls, rows: npt.NDArray[np.int32]) -> EncodedSide:
        """Rows that have single-valued fields only."""
        nothing = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        return cls(rows, np.zeros(1, dtype=np.int64), *nothing)

    @classmethod
    def concatenated(cls, sides: Sequence[EncodedSide]) -> EncodedSide:
        """The rows of one or more sides of the same fields, one side's behind the other's."""
        if len(sides) == 1:
            return sides[0]
        ends = np.cumsum([0, *(side.multi_indptr[-1] for side in sides)])
        indptr = [side.multi_indptr[1:] + end for side, end in zip(sides, ends[:-1], strict=True)]
        return cls(
            np.concatenate([side.rows for side in sides]),
            np.concatenate([np.zeros(1, dtype=np.int64), *indptr]),
            np.concatenate([side.multi_rows for side in sides]),
            np.concatenate([side.multi_weights for side in sides]),
        )

    def between(self, start: int, stop: int) -> EncodedSide:
        """Rows ``start`` to ``stop`` (0 <= start <= stop <= n) as views: nothing is copied but the offsets of lists."""
        n_multi = self.n_multi
        if not n_multi or start == stop:
            return EncodedSide.without_multi(self.rows[start:stop])
        indptr = self.multi_indptr[start * n_multi : stop * n_multi + 1]
        part = slice(indptr[0], indptr[-1])
        return EncodedSide(self.rows[start:stop], indptr - indptr[0], self.multi_rows[part], self.multi_weights[part])

    def take(self, index: npt.NDArray[np.integer]) -> EncodedSide:
        """Rows ``index`` (ints >= 0), in that order."""
        n_multi = self.n_multi
        if not n_multi or not len(index):
            rows = self.rows[index]
            return EncodedSide.without_multi(rows)
        segment = (np.asarray(index, dtype=np.int64)[:, None] * n_multi + np.arange(n_multi)).ravel()
        start, length = self.multi_indptr[segment], np.diff(self.multi_indptr)[segment]
        indptr = np.zeros(len(segment) + 1, dtype=np.int64)
        np.cumsum(length, out=indptr[1:])
        source = np.repeat(start - indptr[:-1], length) + np.arange(indptr[-1])
        return EncodedSide(self.rows[index], indptr, self.multi_rows[source], self.multi_weights[source])

    def verify(
        self, name: str, first_row: list[int], end_row: list[int], n_single: int, signed: list[bool] | None = None
    ) -> None:
        """Check shapes, dtypes and that each id lies in its own field: ``first_row[j] <= id < end_row[j]`` for the
        ``j``-th field in kernel order; kernels then need no bounds checks. Weights are at least 0 but where ``signed``
        says so of the field. ``ArtefactError`` names the culprit."""
        n, n_multi = len(self.rows), len(first_row) - n_single
        if self.rows.dtype != np.int32 or self.rows.shape != (n, n_single):
            found = f"{self.rows.dtype} {self.rows.shape}"
            raise ArtefactError(f"{name}: rows", f"int32 [n, {n_single}]", found)
        low, high = np.array(first_row), np.array(end_row)
        bad = np.argwhere((self.rows < low[:n_single]) | (self.rows >= high[:n_single]))
        if len(bad):
            i, j = bad[0].tolist()
            expected = f"{low[j]} to {high[j] - 1}"
            raise ArtefactError(f"{name}: rows[{i}, {j}]", expected, str(self.rows[i, j]))
        indptr, nnz = self.multi_indptr, len(self.multi_rows)
        if indptr.dtype != np.int64 or indptr.shape != (n * n_multi + 1,):
            raise ArtefactError(f"{name}: multi_indptr", f"int64 [{n * n_multi + 1}]", f"{indptr.dtype} {indptr.shape}")
        if indptr[0] != 0 or indptr[-1] != nnz or (np.diff(indptr) < 0).any():
            raise ArtefactError(f"{name}: multi_indptr", f"ascending from 0 to {nnz}", "another sequence")
        if self.multi_rows.dtype != np.int32 or self.multi_rows.ndim != 1:
            raise ArtefactError(f"{name}: multi_rows", "int32 [nnz]", f"{self.multi_rows.dtype}")
        if self.multi_weights.dtype != np.float32 or self.multi_weights.shape != (nnz,):
            raise ArtefactError(f"{name}: multi_weights", f"float32 [{nnz}]", f"{self.multi_weights.dtype}")
        field = np.repeat(np.tile(np.arange(n_single, n_single + n_multi), n), np.diff(indptr))
        negative = (self.multi_weights < 0) & ~np.array(signed or [False] * len(first_row), dtype=bool)[field]
        if not np.isfinite(self.multi_weights).all() or negative.any():
            raise ArtefactError(f"{name}: multi_weights", "finite weights of at least 0", "another value")
        if ((self.multi_rows < low[field]) | (self.multi_rows >= high[field])).any():
            raise ArtefactError(f"{name}: multi_rows", "feature rows of their own field", "a row of another field")
