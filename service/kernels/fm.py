"""Factorization machine (Rendle 2010), over features.

    score = t_C + t_I + 1/2 |S_C + S_I|^2,   S = sum x_i v_i,   t = [b0 +] sum x_i b_i - 1/2 sum x_i^2 |v_i|^2

Context state: [t_C, S_C (kp)]. Cost per item: |I| kp additions.
Catalogue form: score = alpha + beta + <a, g>, with a = S_C, g = S_I, alpha = t_C + 1/2 |S_C|^2, beta = t_I + 1/2
|S_I|^2.
"""

import numpy as np

from service.kernels._gather import folded_scalars
from service.kernels._jit import aligned
from service.kernels._projection import block_size
from service.kernels._projection_kernels import context_compute, context_kernel, items_kernel
from service.kernels._simd import host
from service.kernels.query import ContextProgram, QueryForm
from service.kernels.side import F32, Side


class FmKernel:
    """Compiled FM over a table of packed rows ``[v (kp), b - 1/2 |v|^2, b, padding]``, float32 [n, stride]."""

    def __init__(self, table: F32, kp: int, bias: float, n_context_multi: int = 0, n_item_multi: int = 0) -> None:
        self.table, self.kp, self.bias = table, kp, np.float32(bias)
        self.state_size, self.vector_size = 1 + kp, kp
        self._ones = np.ones((1, 1), np.float32)
        self._context_diagonals = np.zeros(n_context_multi, np.float32)
        self._item_diagonals = np.zeros(n_item_multi, np.float32)
        block = block_size(host(), kp, 1)
        self._scratch = (block * n_item_multi, table.shape[1])
        self._folded = folded_scalars(table, kp)
        self._items = items_kernel(kp, 1, 1, block)
        self._context = context_kernel(kp, 1, 1)
        self._no_sums = np.zeros((0, 0), np.float32)
        self.query = QueryForm(np.ones(kp, np.float32), 0.5)

    def context_state(self, context: Side) -> F32:
        """[t_C, S_C], float32 [1 + kp], of a side of one row."""
        state = np.zeros(self.state_size, np.float32)
        state[0] = self.bias
        scratch = aligned((1, self.table.shape[1])) if len(self._context_diagonals) else self._no_sums
        self._context(self.table, *context, self._context_diagonals, self._ones, scratch, state)
        return state

    def score_items(self, state: F32, items: Side) -> F32:
        """Scores float32 [n]."""
        return self._score(state, items, self._no_sums)

    def item_side(self, items: Side) -> tuple[F32, F32]:
        """The item side: g float32 [n, kp] and beta float32 [n]."""
        sums = aligned((len(items[0]), self.kp))
        return sums, self._score(np.zeros(self.state_size, np.float32), items, sums)

    def context_program(self) -> ContextProgram:
        """``context_state`` for compiled code."""
        diagonals, scratch = self._context_diagonals[np.newaxis], aligned((1, self.table.shape[1]))
        return ContextProgram(
            context_compute(self.kp, 1, 1), float(self.bias), self.table, diagonals, self._ones, scratch
        )

    def _score(self, state: F32, items: Side, sums: F32) -> F32:
        out = np.empty(len(items[0]), np.float32)
        ones, scratch = self._ones, aligned(self._scratch) if self._scratch[0] else self._no_sums
        self._items(self.table, self._folded, *items, self._item_diagonals, ones, ones[0], state, scratch, out, sums)
        return out
