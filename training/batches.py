"""Encoded arrays -> shuffled mini-batches.

A split on disk is an :class:`~models_export.encoded.EncodedSide` over all fields, memory-mapped. The stream reads it
window by window: the windows' order and the rows inside each window are permuted with ``default_rng([seed,
epoch])``, so an epoch's order depends on the seed and its number alone (a resumed run sees what an uninterrupted one
would have seen), and a log larger than memory needs one window of it at a time. A split of at most ``window`` rows
is permuted as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models_export.encoded import EncodedSide
from models_export.manifest import FieldSpec

#: Rows permuted together; 4M rows of 39 int32 fields are 640 MB.
WINDOW_ROWS = 4_194_304


@dataclass(frozen=True)
class Layout:
    """Where each encoded column belongs: manifest field numbers of the single-valued and of the multi-valued
    columns.
    """

    n_features: int
    single: NDArray[np.int64]
    multi: NDArray[np.int64]
    n_context: int = 0

    @property
    def n_fields(self) -> int:
        """Number of fields m."""
        return len(self.single) + len(self.multi)

    def columns(self, batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Field numbers of a batch's single-valued and of its multi-valued columns."""
        if batch.mixed:
            return self.single[:0], np.arange(self.n_fields)
        return self.single, self.multi

    @classmethod
    def of(cls, fields: Sequence[FieldSpec]) -> Layout:
        """Layout of a side=None encoding of ``fields``: single-valued columns first, then multi-valued, in field
        order.
        """
        single = [i for i, field in enumerate(fields) if not field.weighted]
        multi = [i for i, field in enumerate(fields) if field.weighted]
        return cls(
            n_features=sum(field.size for field in fields),
            single=np.array(single, dtype=np.int64),
            multi=np.array(multi, dtype=np.int64),
            n_context=sum(field.side == "context" for field in fields),
        )


@dataclass(frozen=True)
class Batch:
    """``n`` encoded rows in memory, with labels; shapes as in EncodedSide. ``mixed``: the rows are mixtures, in which
    every field is multi-valued (``mixing.py``); column f is field f.
    """

    rows: NDArray[np.int32]
    multi_indptr: NDArray[np.int64]
    multi_rows: NDArray[np.int32]
    multi_weights: NDArray[np.float32]
    label: NDArray[np.float32]
    mixed: bool = False

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class LabelledRows:
    """A split: encoded rows (memory-mapped or not) and float32 labels."""

    encoded: EncodedSide
    label: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def n_multi(self) -> int:
        """Number of multi-valued columns."""
        return self.encoded.n_multi

    def window(self, start: int, stop: int) -> Batch:
        """Rows ``start:stop`` read into memory, in their order."""
        part = self.encoded.between(start, stop)
        return Batch(
            rows=np.ascontiguousarray(part.rows),
            multi_indptr=part.multi_indptr,
            multi_rows=np.ascontiguousarray(part.multi_rows),
            multi_weights=np.ascontiguousarray(part.multi_weights),
            label=np.ascontiguousarray(self.label[start:stop], dtype=np.float32),
        )


@njit(cache=True)  # type: ignore[misc]
def _take_multi(indptr, rows, weights, index, n_multi):  # type: ignore[no-untyped-def]
    new_indptr = np.empty(index.size * n_multi + 1, np.int64)
    new_indptr[0] = 0
    total = 0
    at = 0
    for i in index:
        for j in range(i * n_multi, (i + 1) * n_multi):
            total += indptr[j + 1] - indptr[j]
            at += 1
            new_indptr[at] = total
    new_rows = np.empty(total, np.int32)
    new_weights = np.empty(total, np.float32)
    at = 0
    for i in index:
        for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
            new_rows[at] = rows[p]
            new_weights[at] = weights[p]
            at += 1
    return new_indptr, new_rows, new_weights


def take(window: Batch, index: NDArray[np.int64]) -> Batch:
    """The rows ``index`` of a window, in that order."""
    n_multi = (len(window.multi_indptr) - 1) // len(window)
    if n_multi:
        indptr, rows, weights = _take_multi(
            window.multi_indptr, window.multi_rows, window.multi_weights, index, n_multi
        )
    else:
        indptr, rows, weights = window.multi_indptr[:1], window.multi_rows, window.multi_weights
    return Batch(window.rows.take(index, axis=0), indptr, rows, weights, window.label.take(index))


def epoch_windows(split: LabelledRows, rng: np.random.Generator, window: int = WINDOW_ROWS) -> Iterator[Batch]:
    """The windows of a split, read into memory one by one in random order."""
    starts = np.arange(0, len(split), window)
    for start in rng.permutation(starts).tolist():
        yield split.window(start, min(start + window, len(split)))


def epoch_batches(
    split: LabelledRows, batch_size: int, seed: int, epoch: int, window: int = WINDOW_ROWS
) -> Iterator[Batch]:
    """Shuffled batches of one epoch; the last batch of each window may be smaller."""
    rng = np.random.default_rng([seed, epoch])
    for block in epoch_windows(split, rng, window):
        order = rng.permutation(len(block))
        for at in range(0, len(block), batch_size):
            yield take(block, order[at : at + batch_size])


def ordered_batches(split: LabelledRows, batch_size: int) -> Iterator[Batch]:
    """Batches in the split's own order, for evaluation."""
    for start in range(0, len(split), batch_size):
        yield split.window(start, min(start + batch_size, len(split)))
