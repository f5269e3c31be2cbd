"""Locally linear factorization machine (Liu et al. 2017), over features.

    score = b0 + sum_a gamma_a f_a,   f_a = bias_a + sum x_i w_ia + 1/2 (|sum x_i v_ia|^2 - sum x_i^2 |v_ia|^2)

gamma from the squared distances |x - z_a|^2 = |z_a|^2 + sum (x_i^2 - 2 x_i z_ia), context's and item's added. Context
state: a row of the table's own layout (``models_export/locality.py``), the sum of the context's, with |z_a|^2 in the
distances and bias_a + b0 in the folded scalars (gamma sums to 1). Cost per item: m |I| additions for the distances,
then |I| k for each of its neighbours alone.

There is no query form <a, g>: gamma depends on both sides. What can be precomputed of an item is its sum, g float32 [n,
stride]: one row instead of |I|, scored by the same kernel.
"""

import numpy as np

from models_export.locality import Locality, slot_width
from service.kernels._jit import aligned
from service.kernels._local_kernels import add_rows, local_items_kernel
from service.kernels.side import F32, I32, Side

_NOTHING = np.zeros(0, np.int32)


class LlfmKernel:
    """Compiled LLFM over packed rows float32 [n, stride] (``models_export/locality.py``)."""

    def __init__(
        self,
        locality: Locality,
        table: F32,
        anchors: F32,
        anchor_bias: F32,
        dim: int,
        bias: float,
        n_context_multi: int = 0,
        n_item_multi: int = 0,
    ) -> None:
        self.table, stride = table, table.shape[1]
        self.state_size = self.vector_size = stride
        near, width, m = locality.near, slot_width(dim), locality.anchors
        self._sizes = near, width, dim, m
        self._multi = n_context_multi, n_item_multi
        self._start = np.zeros(stride, np.float32)
        self._start[:m] = np.einsum("mn,mn->m", anchors, anchors, dtype=np.float64)
        self._start[near + dim : near + m * width : width] = anchor_bias + np.float32(bias)
        self._beyond = np.zeros(near, np.float32)
        self._beyond[m:] = np.inf
        self._halves = np.zeros((2, width), np.float32)
        self._halves[0, :dim], self._halves[1, dim] = 0.5, 1.0
        count = 0 if locality.scheme == "jo" else locality.neighbours
        self._coding = np.array([m, count, int(locality.squared)], np.int64)
        self._betas = np.array([locality.beta, locality.ratio], np.float32)
        self._items = local_items_kernel(near, width)

    def context_state(self, context: Side) -> F32:
        """The context's row, float32 [stride], of a side of one row."""
        state = self._start[None, :].copy()
        add_rows(self.table, *context, self._multi[0], *self._sizes, state)
        first: F32 = state[0]
        return first

    def score_items(self, state: F32, items: Side) -> F32:
        """Scores float32 [n]; NaN where no distance is a number."""
        return self._score(self.table, state, items, self._multi[1])

    def item_side(self, items: Side) -> F32:
        """What each item adds up to, g float32 [n, stride]."""
        sums = aligned((len(items[0]), self.vector_size))
        add_rows(self.table, *items, self._multi[1], *self._sizes, sums)
        return sums

    def score_sums(self, state: F32, g: F32, index: I32) -> F32:
        """Scores float32 [len(index)] of precomputed items ``index`` int32, each in range: not checked."""
        rows = np.ascontiguousarray(index[:, None])
        return self._score(g, state, (rows, np.zeros(1, np.int64), _NOTHING, np.zeros(0, np.float32)), 0)

    def _score(self, table: F32, state: F32, items: Side, n_multi: int) -> F32:
        out = np.empty(len(items[0]), np.float32)
        start = state[: len(self._beyond)] + self._beyond
        self._items(table, *items, n_multi, state, start, self._halves, self._coding, self._betas, out)
        return out
