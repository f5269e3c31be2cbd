"""Rank-aware factorization machine (Chen et al. 2019), over features.

    score = t_C + t_I + sum_q 1/2 |E_q|^2 + <E_q, H_q>,     E = E_C + E_I,  H = H_C + H_I

With k_i the group of feature i and v_i^(q) its vector of level q <= k_i:

    E_q = sum over k_i = q of x_i v_i^(q),   H_q = sum over k_i > q of x_i v_i^(q),
    t   = [b0 +] sum x_i b_i - 1/2 x_i^2 |v_i^(k_i)|^2

This is B_{1,m} = A_{1,1} + sum_{p>=2} (A_{p,p} - A_{p-1,p}) of the paper's theorem 3, whose sums over F_p are
E_p + H_p (in A_{p,p}) and H_{p-1} (in A_{p-1,p}): what the two have in common, |H_{p-1}|^2 and the norms of its
features, cancels, and each stored vector is read and added once.

Context state: [t_C, E_1, H_1, E_2, H_2, ..., E_P]. Cost per item: sum_p D_p n(F_p in I) additions.
Catalogue form: score = alpha + beta + <a, g>, with g = [E_I, H_I], a = [E_C + H_C, E_C], alpha and beta the side's own
t + sum_q 1/2 |E_q|^2 + <E_q, H_q>.
"""

import numpy as np

from service.kernels._gather import items_ahead
from service.kernels._jit import aligned
from service.kernels._ragged import level_table, query_form, ragged_compute, ragged_context, ragged_items, sums_size
from service.kernels._ragged_slate import slot_size
from service.kernels.query import ContextProgram
from service.kernels.side import F32, I32, Side

STARTS = 64
"""Items whose multi-valued fields are added up at a time."""


class RafmKernel:
    """Compiled RaFM over ragged packed rows (``models_export/ragged_rows.py``): ``rows`` float32 [floats],
    ``records`` int32 [n, 2] (row address and group; folded scalar b - 1/2 |v^(k)|^2) and ``linear`` float32 [n].
    """

    def __init__(self, ranks: tuple[int, ...], rows: F32, records: I32, linear: F32, bias: float) -> None:
        self._levels = level_table(ranks)
        self.vector_size = sums_size(self._levels)
        self.state_size = 1 + self.vector_size
        self.bias = np.float32(bias)
        self._table = rows, records.ravel(), records.view(np.float32).ravel(), linear, self._levels
        widths = tuple(int(kp) for kp in self._levels[:, 0])
        self._zeros = aligned((sum(widths),))
        self._items, self._context = ragged_items(widths), ragged_context()
        self._no_sums = np.zeros((0, 0), np.float32)
        self.query = query_form(self._levels)

    def context_state(self, context: Side) -> F32:
        """[t_C, E_1, H_1, ..., E_P], float32 [state_size], of a side of one row."""
        state = np.zeros(self.state_size, np.float32)
        state[0] = self.bias
        self._context(*self._table, *context, state)
        return state

    def score_items(self, state: F32, items: Side) -> F32:
        """Scores float32 [n]."""
        return self._score(state, items, self._no_sums)

    def item_side(self, items: Side) -> tuple[F32, F32]:
        """The item side: g float32 [n, vector_size] and beta float32 [n]."""
        sums = aligned((len(items[0]), self.vector_size))
        return sums, self._score(np.zeros(self.state_size, np.float32), items, sums)

    def context_program(self) -> ContextProgram:
        """``context_state`` for compiled code."""
        rows, _, records, linear, levels = self._table
        arrays = rows[np.newaxis], records.reshape(-1, 2), linear[np.newaxis], levels.view(np.float32)
        return ContextProgram(ragged_compute(), float(self.bias), *arrays)

    def _score(self, state: F32, items: Side, sums: F32) -> F32:
        out = np.empty(len(items[0]), np.float32)
        n_single = items[0].shape[1]
        slots = 1 << items_ahead(n_single, 1, 1).bit_length()
        ring = np.empty(slots * slot_size(n_single, len(self._levels)), np.int64)
        several = len(items[1]) > 1
        starts = aligned((STARTS if several else 0, self.state_size))
        scratch = aligned((self.vector_size,))
        self._items(*(*self._table, *items, state[None], self._zeros, ring, slots, starts, scratch, out, sums))
        return out
