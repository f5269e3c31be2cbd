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
from numpy.typing import NDArray

from training.batches import Batch, Layout
from training.ragged_loops import adagrad_rows, adam_rows, gather_batch, saliency_batch, scatter_batch, step_batch
from training.row_steps import EPS_ADAGRAD, adam_constants

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


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
        self._at = np.array([0, *accumulate(sizes)], dtype=np.uint64)
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

    def check(self, batch: Batch) -> None:
        """ValueError for rows off the table (damaged data), which the compiled loops would not notice."""
        for rows in (batch.rows, batch.multi_rows):
            if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= len(self.groups)):
                found = f"{rows.min()} to {rows.max()}"
                raise ValueError(
                    f"encoded rows: expected 0 to {len(self.groups) - 1}, found {found}; prepare the log again"
                )

    def gather(self, batch: Batch, needs_grad: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """``levels``: B_{1,p} for every p, float32 [n, P] (the whole B, [n, 1], where not nested), and the linear part
        [n]. ValueError for rows off the table.
        """
        self.check(batch)
        if needs_grad:
            return _Gather.apply(self, batch, torch.zeros(0, requires_grad=True))  # type: ignore[no-any-return,no-untyped-call]
        return self._forward(batch)[:2]

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, F32]:
        n = len(batch)
        levels, linear = torch.empty((n, len(self.sizes) if self.nested else 1)), torch.empty(n)
        sums = np.empty((n, self._at[-1]), dtype=np.float32)
        gather_batch(*self._rows(), self.nested, *_where(batch), sums, levels.numpy(), linear.numpy())
        return levels, linear, sums

    def saliency(self, batch: Batch, *gradients: torch.Tensor | None) -> tuple[F32, F32, F32]:
        """See ``Table.saliency``; only the gradient of the last B counts."""
        g_levels, g_linear = gradients
        assert g_levels is not None and g_linear is not None  # the score holds both
        of_single, of_multi = np.empty(batch.rows.shape, np.float32), np.empty(batch.multi_rows.shape, np.float32)
        weighted = np.empty(len(batch), np.float32)
        g = np.ascontiguousarray(g_levels[:, -1].numpy()), g_linear.contiguous().numpy()
        saliency_batch(*self._rows(), self.nested, *_where(batch), *g, of_single, of_multi, weighted)
        return of_single, of_multi, weighted

    def _rows(self) -> tuple[Any, ...]:
        return self.values, self.start.view(np.uint64), self.groups, self._at

    def _backward(self, batch: Batch, sums: F32, g_levels: F32, g_linear: F32) -> None:
        self._now += 1
        room = np.empty(batch.rows.size + batch.multi_rows.size, dtype=np.int32)
        dependent = g_levels if self.nested else np.repeat(g_levels, len(self.sizes), axis=1)
        gradients = np.ascontiguousarray(g_levels[:, -1]), dependent, g_linear
        count = scatter_batch(
            *self._rows(), *_where(batch), *gradients, sums, self._grad, self._stamp, self._now, room
        )  # fmt: skip
        self._touched = room[:count]

    def gradients(self, batch: Batch, bias: float, loss: str) -> tuple[float, float]:
        """What ``gather``, the losses and the backward pass do, in one compiled pass: the mean loss of the last level
        and its derivative with respect to the bias; the gradients are ready for ``step``.
        """
        self.check(batch)
        self._now += 1
        room = np.empty(batch.rows.size + batch.multi_rows.size, dtype=np.int32)
        losses = batch.label, np.float32(bias), loss == "logistic"
        buffers = self._grad, self._stamp, self._now, room
        count, mean, slope = step_batch(*self._rows(), self.nested, *_where(batch), *losses, *buffers)
        self._touched = room[:count]
        return float(mean), float(slope)

    def step(self, learning_rate: float, l2: float, l2_linear: float, number: int) -> None:
        """Apply the gradients of the last backward pass; ``number`` counts steps from 1."""
        f = np.float32
        rows = self._touched if self._every is None else self._every
        where = self.start, rows
        if self.optimiser == "adagrad":
            steps = f(learning_rate), f(EPS_ADAGRAD), f(l2), f(l2_linear)
            adagrad_rows(self.values, self._grad, self.state[0], *where, *steps)
        else:
            constants = adam_constants(learning_rate, number)
            adam_rows(self.values, self._grad, *self.state, *where, *constants, f(l2), f(l2_linear))
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
