# mypy: disable-error-code="no-untyped-def"
"""Many negatives for each positive at the price of few: drawn once per batch, every pair against those its user has
not.

The scores of B contexts against N items are one matrix product, and so are both gradients; the rest is linear in B + N.
For a pair with n of the N negatives left

    loss = 1/n sum over them of -ln sigma(y_CI - y_CJ)

(nothing where none is left), whose mean over the draws is that of one own negative, with less noise: 300 shared ones
take about as long as three own ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from training.interactions import FeatureLists
from training.trainers._pairwise_kernels import FAST, mark, mix, sum_side

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@njit(cache=True)  # type: ignore[misc]
def draw_shared(key, candidates, place, out):
    """``out.size`` distinct items of ``candidates``, uniform, a function of ``key`` (uint64) alone; ``place`` int32
    of all items, -1 on entry and exit, is scratch."""
    n = np.uint64(candidates.size)
    gamma = np.uint64(0x9E3779B97F4A7C15)
    state, count = key, 0
    while count < out.size:
        state += gamma
        item = candidates[np.int64(((mix(state) >> np.uint64(32)) * n) >> np.uint64(32))]
        if place[item] < 0:
            place[item] = count
            out[count] = item
            count += 1
    for item in out:
        place[item] = -1


@njit(cache=True)  # type: ignore[misc]
def _strike_out(users, indptr, items, negatives, place, allowed):
    """1 where a negative is none of the user's own items, else 0."""
    for j in range(negatives.size):
        place[negatives[j]] = j
    for b in range(users.size):
        row = allowed[b]
        row[:] = np.float32(1.0)
        for p in range(indptr[users[b]], indptr[users[b] + 1]):
            j = place[items[p]]
            if j >= 0:
                row[j] = np.float32(0.0)
    for item in negatives:
        place[item] = -1


@njit(cache=True, fastmath=FAST, error_model="numpy")  # type: ignore[misc]
def _gather(table, indptr, rows, x, index, sums, own):
    for i in range(index.size):
        begin, end = indptr[index[i]], indptr[index[i] + 1]
        own[i] = sum_side(table, rows, x, begin, end, sums[i])


@njit(cache=True, fastmath=FAST, error_model="numpy")  # type: ignore[misc]
def _scatter(
    table, indptr, rows, x, index, sums, g_sums, g_own, weight, linear, grad, occurrences, stamp, now, touched, count
):
    """Adds a side's gradients: of its sums and of b + 1/2 (|S|^2 - N), whose derivative by v is x (S - x v)."""
    k = table.shape[1] - 1
    for i in range(index.size):
        s, g, scalar = sums[i], g_sums[i], g_own[i]
        for p in range(indptr[index[i]], indptr[index[i] + 1]):
            r, value = rows[p], x[p]
            count = mark(r, weight[i], occurrences, stamp, now, touched, count)
            into, row = grad[r], table[r]
            for c in range(k):
                into[c] += value * (g[c] + scalar * (s[c] - value * row[c]))
            if linear:
                into[k] += value * scalar
    return count


@dataclass
class Side:
    """Sums of features [n, k] and scalars [n] of lists ``index`` of ``lists``, in memory of torch (equal alignment)."""

    lists: FeatureLists
    index: I64
    sums: torch.Tensor
    own: torch.Tensor

    @classmethod
    def of(cls, table: F32, lists: FeatureLists, index: I64) -> Side:
        """Gathered from ``table``."""
        sums, own = torch.empty((len(index), table.shape[1] - 1)), torch.empty(len(index))
        _gather(table, lists.indptr, lists.rows, lists.x, index, sums.numpy(), own.numpy())
        return cls(lists, index, sums, own)


class SharedNegatives:
    """Compares each pair of a batch with ``count`` negatives of the batch."""

    def __init__(self, count: int, candidates: I32, n_items: int, indptr: I64, items: I32) -> None:
        self.negatives = np.empty(min(count, len(candidates)), dtype=np.int32)
        self.candidates, self.indptr, self.items = candidates, indptr, items
        self._place = np.full(n_items, -1, dtype=np.int32)

    def draw(self, key: np.uint64) -> I32:
        """The negatives of a batch, int32, distinct."""
        draw_shared(key, self.candidates, self._place, self.negatives)
        return self.negatives

    def allowed(self, users: I32) -> torch.Tensor:
        """float32 [B, N]: 1 where the negative is none of the user's own items, else 0."""
        out = torch.empty((len(users), len(self.negatives)))
        _strike_out(users, self.indptr, self.items, self.negatives, self._place, out.numpy())
        return out


def add_gradients(
    table: F32,
    sides: Sequence[Side],
    allowed: torch.Tensor,
    share: float,
    pull: float,
    past: F32 | None,
    linear: bool,
    buffers: tuple[F32, F32, I32, int, I32],
) -> tuple[int, float]:
    """Adds the gradients of a batch with the ``sides`` context [B], positive [B] and negative [N] to ``grad``;
    ``buffers``: grad, occurrences, stamp, now, touched, as in ``_pairwise_kernels.add_gradients``. ``past`` float32
    [B]: scores to be drawn to, then those of now. Returns the number of touched rows and the sum of the losses."""
    context, positive, negative = sides
    gap = torch.addmm(negative.own, context.sums, negative.sums.T)
    up = (context.sums * positive.sums).sum(1) + positive.own
    gap.sub_(up[:, None])  # y_CJ - y_CI
    left = allowed.sum(1)
    each = 1.0 / left.clamp(min=1.0)
    loss = float((torch.nn.functional.softplus(gap).mul_(allowed).sum(1) * each).double().sum())
    g = gap.sigmoid_().mul_(allowed).mul_((each * share)[:, None])  # d loss / d y_CJ
    down = g.sum(1)
    g_positive = -down
    if past is not None:
        before, score = torch.from_numpy(past), context.own + up
        if pull > 0:
            g_positive = g_positive + 2.0 * pull * (score - before) * (left > 0)
        before.copy_(torch.where(left > 0, score, before))
    parts = (
        (context, torch.addmm(g_positive[:, None] * positive.sums, g, negative.sums), g_positive + down, left > 0),
        (positive, g_positive[:, None] * context.sums, g_positive, left > 0),
        (negative, g.T @ context.sums, g.sum(0), (allowed * each[:, None]).sum(0)),
    )
    grad, occurrences, stamp, now, touched = buffers
    count = 0
    for side, g_sums, g_own, weight in parts:
        count = _scatter(
            table, side.lists.indptr, side.lists.rows, side.lists.x, side.index, side.sums.numpy(), g_sums.numpy(),
            g_own.numpy(), weight.float().numpy(), linear, grad, occurrences, stamp, now, touched, count,
        )  # fmt: skip
    return count, loss
