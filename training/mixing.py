"""Mixtures of two encoded rows: x = share x_a + (1 - share) x_b, and the label likewise (MixFM, equation 3).

A mixture's fields hold the values of both parents, so every field is multi-valued. A feature appears once with its
summed weight (x is a vector); with ``twice`` each parent's list is kept as it is, as the paper's published code does,
and a feature of both interacts with itself. Work and memory are in proportion to the parents' non-zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.batches import Batch, Layout

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """Mixtures to make of a window's rows: parents ``first`` and ``second`` int64 [n] and the first one's ``share``
    float32 [n]. A ``second`` of -1 leaves the first row as it is, whatever its share.
    """

    first: I64
    second: I64
    share: F32

    def __len__(self) -> int:
        return len(self.first)

    def take(self, index: I64 | slice) -> Pairs:
        """Some of them."""
        return Pairs(self.first[index], self.second[index], self.share[index])

    @classmethod
    def unmixed(cls, first: I64) -> Pairs:
        """Rows that stay as they are."""
        return cls(first, np.full(len(first), -1), np.ones(len(first), np.float32))

    @classmethod
    def joined(cls, *parts: Pairs) -> Pairs:
        """One after the other."""
        first, second, share = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("first", "second", "share")
        )
        return cls(first, second, share)


@njit(cache=True)  # type: ignore[misc]
def _non_zeros(indptr, n_single, n_multi, first, second):  # type: ignore[no-untyped-def]
    total = 0
    for i in range(first.size):
        for parent in (first[i], second[i]):
            if parent >= 0:
                total += n_single + indptr[(parent + 1) * n_multi] - indptr[parent * n_multi]
    return total


@njit(cache=True)  # type: ignore[misc]
def _mix(  # type: ignore[no-untyped-def]
    rows, indptr, multi_rows, multi_weights, label, single, multi, first, second, share, twice, place,
    out_indptr, out_rows, out_weights, out_label,
):  # fmt: skip
    n_fields = single.size + multi.size
    column, is_multi = np.empty(n_fields, np.int64), np.zeros(n_fields, np.bool_)
    for j in range(single.size):
        column[single[j]] = j
    for j in range(multi.size):
        column[multi[j]] = j
        is_multi[multi[j]] = True
    one = np.float32(1.0)
    at = 0
    out_indptr[0] = 0
    for i in range(first.size):
        large = share[i] if second[i] >= 0 else one
        merge = second[i] >= 0 and not twice
        for f in range(n_fields):
            j, begin = column[f], at
            for turn in range(2):
                parent = first[i] if turn == 0 else second[i]
                if parent < 0:
                    continue
                part = large if turn == 0 else one - large
                start, stop = 0, 1
                if is_multi[f]:
                    start, stop = indptr[parent * multi.size + j], indptr[parent * multi.size + j + 1]
                for p in range(start, stop):
                    row = multi_rows[p] if is_multi[f] else rows[parent, j]
                    weight = part * multi_weights[p] if is_multi[f] else part
                    # place[row] says where the row was last written; it counts if that is within this very list.
                    q = place[row]
                    if merge and begin <= q < at and out_rows[q] == row:
                        out_weights[q] += weight
                    else:
                        place[row] = at
                        out_rows[at], out_weights[at] = row, weight
                        at += 1
            out_indptr[i * n_fields + f + 1] = at
        out_label[i] = label[first[i]]
        if second[i] >= 0:
            out_label[i] = large * label[first[i]] + (one - large) * label[second[i]]
    return at


class Mixer:
    """Makes mixed batches of the rows of a window."""

    def __init__(self, layout: Layout, window: Batch, twice: bool = False) -> None:
        self._layout, self.window, self.twice = layout, window, twice
        self._place = np.zeros(layout.n_features, dtype=np.int64)

    def __call__(self, pairs: Pairs) -> Batch:
        """The mixtures, in order. ``pairs`` must lie within the window."""
        w, layout = self.window, self._layout
        room = _non_zeros(w.multi_indptr, len(layout.single), len(layout.multi), pairs.first, pairs.second)
        indptr = np.empty(len(pairs) * layout.n_fields + 1, np.int64)
        rows, weights, label = np.empty(room, np.int32), np.empty(room, np.float32), np.empty(len(pairs), np.float32)
        used = _mix(
            w.rows, w.multi_indptr, w.multi_rows, w.multi_weights, w.label, layout.single, layout.multi,
            pairs.first, pairs.second, pairs.share, self.twice, self._place, indptr, rows, weights, label,
        )  # fmt: skip
        empty = np.empty((len(pairs), 0), np.int32)
        return Batch(empty, indptr, rows[:used], weights[:used], label, mixed=True)
