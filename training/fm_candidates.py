"""Loss and weighted saliency of many mixtures under a factorization machine, without making the mixtures.

An FM's sums are linear in x, so a mixture's follow from its parents': with shares s and t = 1 - s,

    linear = s linear_a + t linear_b,    |S|^2 = s^2 |S_a|^2 + 2 s t <S_a, S_b> + t^2 |S_b|^2,
    norms  = s^2 norms_a + t^2 norms_b + 2 s t sum over the features of both parents of x_a x_b |v|^2

(the last sum is left out when each parent lists its own features). That is one inner product and a look at the parents'
features per candidate, where gathering the mixture would take an inner product per feature.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.batches import Batch
from training.feature_table import FeatureTable
from training.fm_step import add_feature, loss_and_slope
from training.mixing import Pairs

F32 = NDArray[np.float32]


@njit(cache=True, fastmath={"contract", "reassoc"})  # type: ignore[misc]
def _dot(a, b):  # type: ignore[no-untyped-def]
    q = np.float32(0.0)
    for c in range(a.size):
        q += a[c] * b[c]
    return q


@njit(cache=True)  # type: ignore[misc]
def _squared_length(table, row):  # type: ignore[no-untyped-def]
    v = table[row, : table.shape[1] - 1]
    return _dot(v, v)


@njit(cache=True)  # type: ignore[misc]
def _sums(table, rows, indptr, multi_rows, multi_weights, n_multi, which, twice, weight_of, sums, linear, norms):  # type: ignore[no-untyped-def]
    k = table.shape[1] - 1
    squares, one = np.empty(k, np.float32), np.float32(1.0)
    for i in range(which.size):
        at, norms[i] = which[i], np.float32(0.0)
        begin, end = indptr[at * n_multi], indptr[(at + 1) * n_multi]
        sums[i] = np.float32(0.0)
        squares[:] = np.float32(0.0)
        linear[i] = np.float32(0.0)
        for j in range(rows.shape[1]):
            linear[i] += add_feature(table[rows[at, j]], one, sums[i], squares)
            norms[i] += _squared_length(table, rows[at, j])
        for p in range(begin, end):
            linear[i] += add_feature(table[multi_rows[p]], multi_weights[p], sums[i], squares)
            weight_of[multi_rows[p]] += multi_weights[p]
        for p in range(begin, end):  # a value that is listed twice counts once, with its summed weight
            x = multi_weights[p] if twice else weight_of[multi_rows[p]]
            if x != 0.0:
                norms[i] += x * x * _squared_length(table, multi_rows[p])
            weight_of[multi_rows[p]] = np.float32(0.0)


@njit(cache=True)  # type: ignore[misc]
def _merits(  # type: ignore[no-untyped-def]
    table, rows, indptr, multi_rows, multi_weights, n_multi, labels, bias, logistic, by_loss, twice,
    first, second, share, first_at, second_at, sums, linear, norms, weight_of, merit,
):  # fmt: skip
    one, two = np.float32(1.0), np.float32(2.0)
    for i in range(first.size):
        a, b, s = first[i], second[i], share[i]
        t = one - s
        u, w = first_at[i], second_at[i]
        both = np.float32(0.0)
        if not twice:
            for j in range(rows.shape[1]):
                if rows[a, j] == rows[b, j]:
                    both += _squared_length(table, rows[a, j])
            for p in range(indptr[a * n_multi], indptr[(a + 1) * n_multi]):
                weight_of[multi_rows[p]] += multi_weights[p]
            for p in range(indptr[b * n_multi], indptr[(b + 1) * n_multi]):
                x = weight_of[multi_rows[p]]
                if x != 0.0:
                    both += x * multi_weights[p] * _squared_length(table, multi_rows[p])
            for p in range(indptr[a * n_multi], indptr[(a + 1) * n_multi]):
                weight_of[multi_rows[p]] = np.float32(0.0)
        length = s * s * _dot(sums[u], sums[u]) + two * s * t * _dot(sums[u], sums[w]) + t * t * _dot(sums[w], sums[w])
        norm = s * s * norms[u] + t * t * norms[w] + two * s * t * both
        straight, pairwise = s * linear[u] + t * linear[w], np.float32(0.5) * (length - norm)
        label = s * labels[a] + t * labels[b]
        loss, slope = loss_and_slope(bias + straight + pairwise, label, logistic)
        merit[i] = loss if by_loss else slope * (straight + two * pairwise)


class FMCandidates:
    """Compares mixtures of a window's rows under an FM. After ``refresh`` it uses the sums that the rows had then;
    otherwise each call gathers the parents' sums anew.
    """

    def __init__(self, table: FeatureTable, window: Batch, twice: bool) -> None:
        self._table, self._window, self._twice = table, window, twice
        self._n_multi = len(table.layout.multi)
        self._weight_of = np.zeros(table.layout.n_features, np.float32)
        self._sums: tuple[F32, F32, F32] | None = None
        table.check(window)

    def refresh(self) -> None:
        """Gather the sums of all rows of the window."""
        self._sums = self._gathered(np.arange(len(self._window)))

    def _gathered(self, which: NDArray[np.int64]) -> tuple[F32, F32, F32]:
        found = np.empty((len(which), self._table.dim), np.float32), *np.empty((2, len(which)), np.float32)
        w = self._window
        _sums(
            self._table.values,
            w.rows,
            w.multi_indptr,
            w.multi_rows,
            w.multi_weights,
            self._n_multi,
            which,
            self._twice,
            self._weight_of,
            *found,
        )
        return found

    def merit(self, pairs: Pairs, bias: float, loss: str, by_loss: bool) -> F32:
        """Loss or weighted saliency of each mixture [n]. Every pair must have two parents."""
        w = self._window
        if self._sums is not None:
            at, sums = (pairs.first, pairs.second), self._sums
        else:
            begins = np.diff(pairs.first, prepend=-1) != 0  # the candidates of one first parent follow one another
            which = np.concatenate([pairs.first[begins], pairs.second])
            first_at = np.cumsum(begins) - 1
            at, sums = (first_at, np.arange(len(which) - len(pairs), len(which))), self._gathered(which)
        merit = np.empty(len(pairs), np.float32)
        _merits(
            self._table.values, w.rows, w.multi_indptr, w.multi_rows, w.multi_weights, self._n_multi, w.label,
            np.float32(bias), loss == "logistic", by_loss, self._twice, pairs.first, pairs.second, pairs.share, *at,
            *sums, self._weight_of, merit,
        )  # fmt: skip
        return merit
