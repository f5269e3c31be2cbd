"""DPLR-FwFM: field-weighted FM with a diagonal plus low-rank field matrix (equations 5, 9 and 10, Algorithm 1).

    score = t_C + t_I + 1/2 sum_r e_r |P_C,r + P_I,r|^2,   P = U V,   t = [b0 +] sum b + 1/2 sum d_f |v_f|^2

with v_f = sum x_i v_i over the field's values and d_f = -sum_r e_r U_rf^2. The paper's Algorithm 1 omits the 1/2.

Context state: [t_C, P_C (rho x kp, row by row)]. Cost per item: rho |I| kp fused multiply-adds.
Catalogue form: a_r = e_r P_C,r, g = P_I, alpha = t_C + 1/2 sum e_r |P_C,r|^2, beta = t_I + 1/2 sum e_r |P_I,r|^2.
"""

import numpy as np

from service.kernels._gather import folded_scalars
from service.kernels._jit import aligned
from service.kernels._projection import block_size
from service.kernels._projection_kernels import context_compute, context_kernel, items_kernel
from service.kernels._simd import host
from service.kernels.query import ContextProgram, QueryForm
from service.kernels.side import F32, Side


class DplrKernel:
    """Compiled DPLR over a table of packed rows ``[v (kp), b + 1/2 d_f |v|^2, b, padding]``, float32 [n, stride].

    ``U_context`` float32 [rho, n_context_fields] and ``U_item`` float32 [rho, n_item_fields] in kernel order
    (single-valued fields first), ``e`` float32 [rho]; the last ``n_context_multi`` and ``n_item_multi`` fields are
    multi-valued.
    """

    def __init__(
        self,
        table: F32,
        kp: int,
        bias: float,
        U_context: F32,
        U_item: F32,
        e: F32,
        n_context_multi: int = 0,
        n_item_multi: int = 0,
    ) -> None:
        rho = len(e)
        self.table, self.kp, self.rho, self.bias = table, kp, rho, np.float32(bias)
        self.state_size, self.vector_size = 1 + rho * kp, rho * kp
        self._e = np.ascontiguousarray(e, np.float32)
        self.query = QueryForm(np.repeat(self._e, kp), 0.5)
        self._context_U = np.ascontiguousarray(np.asarray(U_context, np.float32).T)
        self._item_U = np.ascontiguousarray(np.asarray(U_item, np.float32).T)
        self._context_diagonals = self._diagonals(self._context_U, n_context_multi)
        self._item_diagonals = self._diagonals(self._item_U, n_item_multi)
        block = block_size(host(), kp, rho, table.nbytes)
        self._scratch = (block * n_item_multi, table.shape[1])
        self._folded = folded_scalars(table, kp)
        self._items = items_kernel(kp, rho, 0, block)
        self._context = context_kernel(kp, rho, 0)
        self._no_sums = np.zeros((0, 0), np.float32)
        self._context_multi = n_context_multi

    def _diagonals(self, coefficients: F32, n_multi: int) -> F32:
        last = coefficients[len(coefficients) - n_multi :].astype(np.float64)
        return (-(last**2 @ self._e.astype(np.float64))).astype(np.float32)

    def context_state(self, context: Side) -> F32:
        """[t_C, P_C], float32 [1 + rho kp], of a side of one row."""
        state = np.zeros(self.state_size, np.float32)
        state[0] = self.bias
        scratch = aligned((1, self.table.shape[1])) if self._context_multi else self._no_sums
        self._context(self.table, *context, self._context_diagonals, self._context_U, scratch, state)
        return state

    def score_items(self, state: F32, items: Side) -> F32:
        """Scores float32 [n]."""
        return self._score(state, items, self._no_sums)

    def item_side(self, items: Side) -> tuple[F32, F32]:
        """The item side: g float32 [n, rho kp] and beta float32 [n]."""
        sums = aligned((len(items[0]), self.vector_size))
        return sums, self._score(np.zeros(self.state_size, np.float32), items, sums)

    def context_program(self) -> ContextProgram:
        """``context_state`` for compiled code."""
        diagonals, scratch = self._context_diagonals[np.newaxis], aligned((1, self.table.shape[1]))
        compute = context_compute(self.kp, self.rho, 0)
        return ContextProgram(compute, float(self.bias), self.table, diagonals, self._context_U, scratch)

    def _score(self, state: F32, items: Side, sums: F32) -> F32:
        out = np.empty(len(items[0]), np.float32)
        scratch = aligned(self._scratch) if self._scratch[0] else self._no_sums
        self._items(
            self.table, self._folded, *items, self._item_diagonals, self._item_U, self._e, state, scratch, out, sums
        )
        return out
