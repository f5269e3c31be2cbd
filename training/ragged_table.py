"""Feature parameters of several ranks, ragged: a feature of group p stores the factors of levels 1 to p only.

A row is ``[level 1 | level 2 | ... | level p | b]``; levels have ``sizes`` floats each. Per example and level q, with
F_q the features of group q and above, ``S_q = sum over F_q of x v^(q)`` and ``H_q`` the same over F_{q+1},

    A_{q,q} = 1/2 (|S_q|^2 - sum over F_q of x^2 |v^(q)|^2),     A_{q,q+1} = 1/2 (|H_q|^2 - sum over F_{q+1} of ...)

``nested`` (RaFM: a level replaces the one below):   B_{1,p} = A_{p,p} + sum_{q<p} (A_{q,q} - A_{q,q+1}), all p
otherwise (DiFacto: a level continues the vector):   B = sum_q A_{q,q}

(equation 7 and theorem 3 of the RaFM paper). One compiled pass forth and one back, O(sum of the stored floats of the
active features). What comes back in the backward pass is Algorithm 1's: the gradient of the last B reaches the *free*
factors (level q of the features of group q) and the linear weights, the gradient of B_{1,q} reaches the *dependent*
factors of level q (those of the features of higher groups), and none other. Steps and L2 are as in ``feature_table``.

Chen et al., "RaFM: Rank-Aware Factorization Machines", ICML 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from training.batches import Batch, Layout
from training.row_steps import EPS_ADAGRAD, adagrad_row, adam_constants, adam_row

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@njit(cache=True, fastmath={"contract", "reassoc"})  # type: ignore[misc]
def _add(values, start, group, at, row, x, own, high, own_norm, high_norm):  # type: ignore[no-untyped-def]
    base, last = start[row], group[row] - 1
    for q in range(last):
        total = np.float32(0.0)
        for c in range(at[q], at[q + 1]):
            v = x * values[base + c]
            high[c] += v
            total += v * v
        high_norm[q] += total
    total = np.float32(0.0)
    for c in range(at[last], at[last + 1]):
        v = x * values[base + c]
        own[c] += v
        total += v * v
    own_norm[last] += total


@njit(cache=True, fastmath={"contract", "reassoc"})  # type: ignore[misc]
def _half_square(vector, begin, end):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for c in range(begin, end):
        total += vector[c] * vector[c]
    return np.float32(0.5) * total


@njit(cache=True)  # type: ignore[misc]
def _gather(  # type: ignore[no-untyped-def]
    values, start, group, at, nested, rows, indptr, multi_rows, multi_weights, sums, levels, linear
):
    # sums [n, width] = S; levels [P or 1, n] = B; linear [n].
    n, n_levels = rows.shape[0], at.size - 1
    n_multi = (indptr.size - 1) // n if n else 0
    high = np.empty(at[n_levels], np.float32)
    own_norm, high_norm = np.empty(n_levels, np.float32), np.empty(n_levels, np.float32)
    half, one = np.float32(0.5), np.float32(1.0)
    for i in range(n):
        own = sums[i]
        own[:] = np.float32(0.0)
        high[:] = np.float32(0.0)
        own_norm[:] = np.float32(0.0)
        high_norm[:] = np.float32(0.0)
        linear[i] = np.float32(0.0)
        for j in range(rows.shape[1]):
            row = rows[i, j]
            linear[i] += values[start[row + 1] - 1]
            _add(values, start, group, at, row, one, own, high, own_norm, high_norm)
        for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
            row, x = multi_rows[p], multi_weights[p]
            linear[i] += x * values[start[row + 1] - 1]
            _add(values, start, group, at, row, x, own, high, own_norm, high_norm)
        below = np.float32(0.0)
        for q in range(n_levels):
            begin, end = at[q], at[q + 1]
            for c in range(begin, end):
                own[c] += high[c]
            full = _half_square(own, begin, end) - half * (own_norm[q] + high_norm[q])
            if nested:
                levels[q, i] = below + full
                below += full - _half_square(high, begin, end) + half * high_norm[q]
            else:
                below += full
        if not nested:
            levels[0, i] = below


@njit(cache=True, fastmath={"contract"})  # type: ignore[misc]
def _scatter_one(values, start, group, at, row, x, free, dependent, i, sums, grad):  # type: ignore[no-untyped-def]
    base, last = start[row], group[row] - 1
    for q in range(last + 1):
        g = x * (free[i] if q == last else dependent[q, i])
        gx = g * x
        for c in range(at[q], at[q + 1]):
            grad[base + c] += g * sums[i, c] - gx * values[base + c]


@njit(cache=True)  # type: ignore[misc]
def _scatter(  # type: ignore[no-untyped-def]
    values, start, group, at, rows, indptr, multi_rows, multi_weights, free, dependent, g_linear, sums,
    grad, stamp, now, touched,
):  # fmt: skip
    n = rows.shape[0]
    n_multi = (indptr.size - 1) // n if n else 0
    count, one = 0, np.float32(1.0)
    for i in range(n):
        for j in range(rows.shape[1]):
            row = rows[i, j]
            if stamp[row] != now:
                stamp[row] = now
                touched[count] = row
                count += 1
            grad[start[row + 1] - 1] += g_linear[i]
            _scatter_one(values, start, group, at, row, one, free, dependent, i, sums, grad)
        for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
            row, x = multi_rows[p], multi_weights[p]
            if stamp[row] != now:
                stamp[row] = now
                touched[count] = row
                count += 1
            grad[start[row + 1] - 1] += x * g_linear[i]
            _scatter_one(values, start, group, at, row, x, free, dependent, i, sums, grad)
    return count


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def _adagrad(values, grad, total, start, touched, lr, eps, l2, l2_linear):  # type: ignore[no-untyped-def]
    for r in touched:
        a, b = start[r], start[r + 1]
        adagrad_row(values[a:b], grad[a:b], total[a:b], lr, eps, l2, l2_linear)


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def _adam(values, grad, mean, square, start, touched, size, eps, beta1, beta2, root2, l2, l2_linear):  # type: ignore[no-untyped-def]
    for r in touched:
        a, b = start[r], start[r + 1]
        moments = mean[a:b], square[a:b]
        adam_row(values[a:b], grad[a:b], *moments, size, eps, beta1, beta2, root2, l2, l2_linear)


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
def _saliency(  # type: ignore[no-untyped-def]
    values, start, group, at, nested, rows, indptr, multi_rows, multi_weights, g, g_linear, of_single, of_multi,
    weighted,
):  # fmt: skip
    n, width, n_levels = rows.shape[0], at[at.size - 1], at.size - 1
    n_multi = (indptr.size - 1) // n if n else 0
    own, high, one = np.empty(width, np.float32), np.empty(width, np.float32), np.float32(1.0)
    norm = np.empty(n_levels, np.float32)
    for i in range(n):
        own[:] = np.float32(0.0)
        high[:] = np.float32(0.0)
        weighted[i] = np.float32(0.0)
        for j in range(rows.shape[1]):
            _add(values, start, group, at, rows[i, j], one, own, high, norm, norm)
        for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
            _add(values, start, group, at, multi_rows[p], multi_weights[p], own, high, norm, norm)
        for j in range(rows.shape[1]):
            row = rows[i, j]
            slope = g[i] * _slope(values, start, group, at, nested, row, one, own, high)
            of_single[i, j] = slope + g_linear[i] * values[start[row + 1] - 1]
            weighted[i] += of_single[i, j]
        for p in range(indptr[i * n_multi], indptr[(i + 1) * n_multi]):
            row, x = multi_rows[p], multi_weights[p]
            slope = g[i] * _slope(values, start, group, at, nested, row, x, own, high)
            of_multi[p] = slope + g_linear[i] * values[start[row + 1] - 1]
            weighted[i] += x * of_multi[p]


def row_starts(groups: I32, sizes: Sequence[int]) -> I64:
    """Where each row ``[levels | b]`` starts in the flat values, and their length last: int64 [n + 1]."""
    length = np.array([*accumulate(sizes)], dtype=np.int64)[groups - 1] + 1
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(length)])


class RaggedTable:
    """Flat parameters float32 [sum of the row lengths], ``groups`` int32 [n] in 1 to P, gradient and optimiser state.

    The factors are exactly sum_q sizes[q] |F_q| numbers; beside them one linear weight per feature.
    ``optimiser`` and ``whole`` as in :class:`~training.feature_table.FeatureTable`.
    """

    def __init__(
        self,
        layout: Layout,
        values: F32,
        groups: I32,
        sizes: Sequence[int],
        nested: bool,
        optimiser: str,
        whole: bool = False,
    ) -> None:
        self.layout = layout
        self.values, self.groups, self.sizes, self.nested = values, groups, tuple(sizes), nested
        self.optimiser = optimiser
        self.start = row_starts(groups, sizes)
        if len(values) != self.start[-1]:
            raise ValueError(f"factors: expected {self.start[-1]} numbers for these rank groups, found {len(values)}")
        self._at = np.array([0, *accumulate(sizes)], dtype=np.int64)
        self._every = np.arange(len(groups), dtype=np.int32) if whole else None
        self.state = [np.zeros_like(values) for _ in range({"adagrad": 1, "adam": 2}[optimiser])]
        self._grad = np.zeros_like(values)
        self._stamp = np.zeros(len(groups), dtype=np.int32)
        self._now = 0
        self._touched = np.empty(0, dtype=np.int32)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.values.size

    @property
    def linear(self) -> F32:
        """Linear weights float32 [n], a copy."""
        return self.values[self.start[1:] - 1]

    @property
    def factors(self) -> F32:
        """The factors of all features one behind the other, float32 [sum_q sizes[q] |F_q|], a copy."""
        return np.delete(self.values, self.start[1:] - 1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The parameters by name (views), with the rank groups."""
        return {"factors": self.values, "groups": self.groups}

    def state_arrays(self) -> dict[str, F32]:
        """The optimiser's state by name (views)."""
        return {f"table_state.{i}": array for i, array in enumerate(self.state)}

    def gather(self, batch: Batch, needs_grad: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """``levels``: B_{1,p} for every p, float32 [P, n] (the whole B, [1, n], where not nested), and the linear part
        [n]. ValueError for rows off the table.
        """
        for rows in (batch.rows, batch.multi_rows):
            if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= len(self.groups)):
                found = f"{rows.min()} to {rows.max()}"
                raise ValueError(
                    f"encoded rows: expected 0 to {len(self.groups) - 1}, found {found}; prepare the log again"
                )
        if needs_grad:
            return _Gather.apply(self, batch, torch.zeros(0, requires_grad=True))  # type: ignore[no-any-return,no-untyped-call]
        return self._forward(batch)[:2]

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, F32]:
        n = len(batch)
        levels, linear = torch.empty((len(self.sizes) if self.nested else 1, n)), torch.empty(n)
        sums = np.empty((n, self._at[-1]), dtype=np.float32)
        _gather(*self._rows(), self.nested, *_where(batch), sums, levels.numpy(), linear.numpy())
        return levels, linear, sums

    def saliency(self, batch: Batch, *gradients: torch.Tensor | None) -> tuple[F32, F32, F32]:
        """See ``Table.saliency``; only the gradient of the last B counts."""
        g_levels, g_linear = gradients
        assert g_levels is not None and g_linear is not None  # the score holds both
        of_single, of_multi = np.empty(batch.rows.shape, np.float32), np.empty(batch.multi_rows.shape, np.float32)
        weighted = np.empty(len(batch), np.float32)
        g = np.ascontiguousarray(g_levels[-1].numpy()), g_linear.contiguous().numpy()
        _saliency(*self._rows(), self.nested, *_where(batch), *g, of_single, of_multi, weighted)
        return of_single, of_multi, weighted

    def _rows(self) -> tuple[Any, ...]:
        return self.values, self.start, self.groups, self._at

    def _backward(self, batch: Batch, sums: F32, g_levels: F32, g_linear: F32) -> None:
        self._now += 1
        room = np.empty(batch.rows.size + batch.multi_rows.size, dtype=np.int32)
        dependent = g_levels if self.nested else np.repeat(g_levels, len(self.sizes), axis=0)
        gradients = g_levels[-1], dependent, g_linear
        count = _scatter(
            *self._rows(), *_where(batch), *gradients, sums, self._grad, self._stamp, self._now, room
        )  # fmt: skip
        self._touched = room[:count]

    def step(self, learning_rate: float, l2: float, l2_linear: float, number: int) -> None:
        """Apply the gradients of the last backward pass; ``number`` counts steps from 1."""
        f = np.float32
        rows = self._touched if self._every is None else self._every
        where = self.start, rows
        if self.optimiser == "adagrad":
            steps = f(learning_rate), f(EPS_ADAGRAD), f(l2), f(l2_linear)
            _adagrad(self.values, self._grad, self.state[0], *where, *steps)
        else:
            constants = adam_constants(learning_rate, number)
            _adam(self.values, self._grad, *self.state, *where, *constants, f(l2), f(l2_linear))
        self._touched = self._touched[:0]


def _where(batch: Batch) -> tuple[Any, ...]:
    return batch.rows, batch.multi_indptr, batch.multi_rows, batch.multi_weights


class _Gather(torch.autograd.Function):
    """Autograd's view of gather and scatter. The third input only makes autograd call ``backward``."""

    @staticmethod
    def forward(ctx: Any, table: RaggedTable, batch: Batch, anchor: torch.Tensor) -> Any:
        ctx.table, ctx.batch = table, batch
        levels, linear, ctx.sums = table._forward(batch)
        return levels, linear

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        ctx.table._backward(ctx.batch, ctx.sums, *(g.contiguous().numpy() for g in grads))
        return None, None, torch.zeros(0)
