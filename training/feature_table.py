"""The table of feature parameters and its row-wise optimisers.

One row per feature: [v (k floats), b]. Per batch, ``gather`` collapses each field into its vector

    V[f] = sum x_i v_i,     linear = sum over all features x_i b_i,     norms = sum over all features x_i^2 |v_i|^2

(field-major, so that a family's product with its m x m or rank x m matrix is one matrix product; a family that pools
component by component, as NFM, takes the squares x_i^2 v_i * v_i summed by component instead of the norms), and the
backward pass adds the gradients into a buffer of the table's shape while it lists the rows that it touches.
``saliency`` turns the same gradients into dL/dx of every active feature. A step then
visits the touched rows only. With Adagrad this equals the dense optimiser exactly, because a zero gradient changes
neither row nor accumulator; with Adam it is the lazy variant (moments of untouched rows wait), as torch's SparseAdam.

L2 is added for the rows touched by the batch, once per batch whatever their number of occurrences:
loss = mean over the batch + 1/2 sum over touched rows (l2 |v|^2 + l2_linear b^2). A ``whole`` table visits all its rows
at every step instead, with the L2 of all: the dense optimiser, as the RaFM paper's code and torch's defaults.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from training.batches import Batch, Layout
from training.row_gather import gather, saliency, scatter
from training.row_steps import EPS_ADAGRAD, adagrad_row, adam_constants, adam_row

F32 = NDArray[np.float32]


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def _adagrad(table, grad, total, touched, lr, eps, l2, l2_linear):  # type: ignore[no-untyped-def]
    for r in touched:
        adagrad_row(table[r], grad[r], total[r], lr, eps, l2, l2_linear)


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def _adam(table, grad, mean, square, touched, step_size, eps, beta1, beta2, root2, l2, l2_linear):  # type: ignore[no-untyped-def]
    for r in touched:
        adam_row(table[r], grad[r], mean[r], square[r], step_size, eps, beta1, beta2, root2, l2, l2_linear)


class FeatureTable:
    """Feature parameters float32 [n_features, k + 1], their gradient buffer and optimiser state.

    ``componentwise``: ``gather`` returns the squares by component, [n, k], instead of the norms [n].
    ``optimiser`` is "adagrad" (accumulator starts at 0, eps 1e-10) or "adam" (betas .9 and .999, eps 1e-8).
    ``whole``: each step visits every row, as torch's dense optimisers do, and L2 is that of the whole table.
    """

    def __init__(
        self, layout: Layout, values: F32, optimiser: str, componentwise: bool = False, whole: bool = False
    ) -> None:
        self.layout = layout
        self.values = values
        self.optimiser = optimiser
        self.componentwise = componentwise
        self._every = np.arange(len(values), dtype=np.int32) if whole else None
        slots = {"adagrad": 1, "adam": 2}[optimiser]
        self.state = [np.zeros_like(values) for _ in range(slots)]
        self._grad = np.zeros_like(values)
        self._stamp = np.zeros(len(values), dtype=np.int32)
        self._now = 0
        self._touched = np.empty(0, dtype=np.int32)

    def arrays(self) -> dict[str, F32]:
        """The parameters by name (views): the table."""
        return {"table": self.values}

    def state_arrays(self) -> dict[str, F32]:
        """The optimiser's state by name (views)."""
        return {f"table_state.{i}": array for i, array in enumerate(self.state)}

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.values.size

    @property
    def dim(self) -> int:
        """Length k of a vector."""
        return int(self.values.shape[1]) - 1

    def gather(self, batch: Batch, needs_grad: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Field vectors [m, n, k], linear sums [n], feature norms [n] (``componentwise``: squares [n, k]) of a batch.
        ValueError for rows off the table.
        """
        self.check(batch)
        if needs_grad:
            return _Gather.apply(self, batch, torch.zeros(0, requires_grad=True))  # type: ignore[no-any-return,no-untyped-call]
        return self._forward(batch)

    def check(self, batch: Batch) -> None:
        """ValueError for rows off the table (damaged data), which the compiled loops would not notice."""
        for rows in (batch.rows, batch.multi_rows):
            if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= len(self.values)):
                found = f"{rows.min()} to {rows.max()}"
                raise ValueError(
                    f"encoded rows: expected 0 to {len(self.values) - 1}, found {found}; prepare the log again"
                )

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n = len(batch)
        # Allocated by torch, whose alignment never varies: a matrix product's rounding may depend on it.
        vectors = torch.empty((self.layout.n_fields, n, self.dim))
        linear, squares = torch.empty(n), torch.empty((n, self.dim))
        gather(self.values, self.where(batch), vectors.numpy(), linear.numpy(), squares.numpy())
        return vectors, linear, squares if self.componentwise else squares.sum(1)

    def where(self, batch: Batch) -> tuple[Any, ...]:
        """A batch's rows and the fields of its columns, in the order in which compiled loops take them."""
        single, multi = self.layout.columns(batch)
        return batch.rows, single, batch.multi_indptr, batch.multi_rows, batch.multi_weights, multi

    def saliency(self, batch: Batch, *gradients: torch.Tensor | None) -> tuple[F32, F32, F32]:
        """From the gradients of each row's loss with respect to what ``gather`` returned: dL/dx of the single-valued
        columns [n, n_single], dL/dx of the multi-valued values [nnz], and the weighted saliency (dL/dx)^T x [n]
        (Wu et al., Boosting Factorization Machines via Saliency-Guided Mixup, equation 5, first form).
        """
        g_vectors, g_linear, g_norms = gradients
        assert g_vectors is not None and g_linear is not None  # every family uses both
        of_single, of_multi = np.empty(batch.rows.shape, np.float32), np.empty(batch.multi_rows.shape, np.float32)
        weighted = np.empty(len(batch), np.float32)
        g_squares, use_squares = self._by_component(len(batch), g_norms)
        slopes = g_vectors.contiguous().numpy(), g_linear.contiguous().numpy(), g_squares, use_squares
        saliency(self.values, self.where(batch), slopes, of_single, of_multi, weighted)
        return of_single, of_multi, weighted

    def _by_component(self, n: int, g_norms: torch.Tensor | None) -> tuple[F32, bool]:
        """Gradients of the squares [n, k], and whether there are any."""
        if g_norms is None:
            return np.zeros((n, 0), np.float32), False
        if not self.componentwise:
            g_norms = g_norms[:, None].expand(n, self.dim)
        return g_norms.contiguous().numpy(), True

    def _backward(self, batch: Batch, g_vectors: F32, g_linear: F32, g_norms: torch.Tensor | None) -> None:
        self._now += 1
        room = np.empty(batch.rows.size + batch.multi_rows.size, dtype=np.int32)
        slopes = g_vectors, g_linear, *self._by_component(len(batch), g_norms)
        count = scatter(self.values, self.where(batch), slopes, self._grad, self._stamp, self._now, room)
        self._touched = room[:count]

    @property
    def grad(self) -> F32:
        """The gradient buffer, of the table's shape, zero outside a step: for compiled code that fills it by itself."""
        return self._grad

    @property
    def stamp(self) -> NDArray[np.int32]:
        """int32 [n_features]: the last :meth:`next_stamp` at which compiled code saw the row."""
        return self._stamp

    def next_stamp(self) -> int:
        """A number that no row bears yet."""
        self._now += 1
        return self._now

    def step_rows(
        self,
        touched: NDArray[np.int32],
        learning_rate: float,
        number: int,
        l2: float = 0.0,
        l2_linear: float = 0.0,
    ) -> None:
        """:meth:`step` for gradients of the rows ``touched`` that compiled code wrote to ``grad``."""
        self._touched = touched
        self.step(learning_rate, l2, l2_linear, number)

    def step(self, learning_rate: float, l2: float, l2_linear: float, number: int) -> None:
        """Apply the gradients of the last backward pass; ``number`` counts steps from 1."""
        f = np.float32
        rows = self._touched if self._every is None else self._every
        if self.optimiser == "adagrad":
            steps = f(learning_rate), f(EPS_ADAGRAD), f(l2), f(l2_linear)
            _adagrad(self.values, self._grad, self.state[0], rows, *steps)
        else:
            constants = adam_constants(learning_rate, number)
            _adam(self.values, self._grad, *self.state, rows, *constants, f(l2), f(l2_linear))
        self._touched = self._touched[:0]


class _Gather(torch.autograd.Function):
    """Autograd's view of gather and scatter. The third input only makes autograd call ``backward``."""

    @staticmethod
    def forward(ctx: Any, table: FeatureTable, batch: Batch, anchor: torch.Tensor) -> Any:
        ctx.table, ctx.batch = table, batch
        ctx.set_materialize_grads(False)
        return table._forward(batch)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[None, None, torch.Tensor]:
        g_vectors, g_linear, g_norms = grads
        assert g_vectors is not None and g_linear is not None  # every family uses both
        ctx.table._backward(
            ctx.batch,
            g_vectors.contiguous().numpy(),
            g_linear.contiguous().numpy(),
            g_norms,
        )
        return None, None, torch.zeros(0)
