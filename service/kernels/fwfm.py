"""Field-weighted factorization machine (Pan et al. 2018), dense or with a pruned field matrix, over field vectors.

    score = t_C + sum_{f in I} b_f + sum_{j in I} <v_j, Q_j> + sum_{i<j in I} R_ij <v_i, v_j>
    t_C = b0 + sum_{f in C} b_f + sum_{i<j in C} R_ij <v_i, v_j>,   Q_j = sum_{i in C} R_ij v_i,   v_f = sum x_i v_i

Context state: [t_C, Q (n_item_fields x kp, kernel order)]. Cost per item: |I| kp + nnz(R_II) kp fused multiply-adds.
Catalogue form: a = Q, g = the item's vectors side by side, alpha = t_C, beta = sum b + item-item pairs.
"""

import numpy as np
import numpy.typing as npt

from service.kernels._gather import folded_scalars
from service.kernels._jit import aligned
from service.kernels._pairs import TILE, block_size
from service.kernels._pairs_kernels import context_compute, context_kernel, items_kernel
from service.kernels._simd import host
from service.kernels.query import ContextProgram, QueryForm
from service.kernels.side import F32, I32, Side


def tile_matrix(matrix: F32) -> F32:
    """Lower triangle of R_II by tiles of four rows: float32 [n_padded / 4, n_padded, 4], [t, j, d] = R[4 t + d, j]."""
    n = len(matrix)
    padded = -(-n // TILE) * TILE
    lower = np.zeros((padded, padded), np.float32)
    lower[:n, :n] = np.tril(matrix, -1)
    return np.ascontiguousarray(lower.reshape(-1, TILE, padded).transpose(0, 2, 1))


def sparse_rows(matrix: F32) -> tuple[I32, I32, F32]:
    """Lower triangle of R_II by rows: indptr int32 [n + 1], columns int32 [nnz], values float32 [nnz]."""
    rows, columns = np.nonzero(np.tril(matrix, -1))
    indptr = np.zeros(len(matrix) + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=len(matrix)), out=indptr[1:])
    return indptr, columns.astype(np.int32), np.ascontiguousarray(matrix[rows, columns], np.float32)


class FwfmKernel:
    """Compiled FwFM over a table of packed rows ``[v (kp), b, b, padding]``, float32 [n, stride].

    ``context_matrix`` [n_context, n_context], ``cross_matrix`` [n_context, n_item] and ``item_matrix`` [n_item,
    n_item] are the blocks of R in kernel order (single-valued fields first), float32; ``sparse`` chooses the kernel
    that walks the non-zero pairs only. The last ``n_context_multi`` and ``n_item_multi`` fields are multi-valued.
    """

    def __init__(
        self,
        table: F32,
        kp: int,
        bias: float,
        context_matrix: npt.NDArray[np.float32],
        cross_matrix: npt.NDArray[np.float32],
        item_matrix: npt.NDArray[np.float32],
        sparse: bool = False,
        n_context_multi: int = 0,
        n_item_multi: int = 0,
    ) -> None:
        n_fields = len(item_matrix)
        self.table, self.kp, self.bias, self.sparse = table, kp, np.float32(bias), sparse
        self.state_size, self.vector_size = 1 + n_fields * kp, n_fields * kp
        self._among = np.ascontiguousarray(context_matrix, np.float32)
        self._across = np.ascontiguousarray(cross_matrix, np.float32)
        self._n_multi = n_context_multi, n_item_multi
        tiles = np.zeros((0, 0, TILE), np.float32) if sparse else tile_matrix(item_matrix)
        self._matrix = (tiles, *sparse_rows(item_matrix if sparse else item_matrix[:0, :0]))
        block = block_size(host(), kp)
        self._composites = (block * n_item_multi, table.shape[1])
        self._vectors = -(-n_fields // TILE) * TILE * block * kp
        self._folded = folded_scalars(table, kp)
        self._items = items_kernel(kp, int(sparse))
        self._context = context_kernel(kp)
        self._no_sums = np.zeros((0, 0), np.float32)
        self.query = QueryForm(np.ones(self.vector_size, np.float32), 0.0)

    def context_state(self, context: Side) -> F32:
        """[t_C, Q], float32 [1 + n_item_fields kp], of a side of one row."""
        state = np.zeros(self.state_size, np.float32)
        state[0] = self.bias
        scratch = np.empty((len(self._among), self.kp + 1), np.float32)
        self._context(self.table, *context, self._n_multi[0], self._among, self._across, scratch, state)
        return state

    def score_items(self, state: F32, items: Side) -> F32:
        """Scores float32 [n]."""
        return self._score(state, items, self._no_sums)

    def item_side(self, items: Side) -> tuple[F32, F32]:
        """The item side: g float32 [n, n_item_fields kp] and beta float32 [n]."""
        sums = aligned((len(items[0]), self.vector_size))
        return sums, self._score(np.zeros(self.state_size, np.float32), items, sums)

    def context_program(self) -> ContextProgram:
        """``context_state`` for compiled code."""
        scratch = np.empty((len(self._among), self.kp + 1), np.float32)
        compute = context_compute(self.kp)
        return ContextProgram(compute, float(self.bias), self.table, self._among, self._across, scratch)

    def _score(self, state: F32, items: Side, sums: F32) -> F32:
        out = np.empty(len(items[0]), np.float32)
        scratch = aligned((2 * self._vectors,))
        vectors, queries = scratch[: self._vectors], scratch[self._vectors :]
        composites = aligned(self._composites) if self._composites[0] else self._no_sums
        self._items(
            *(self.table, self._folded, *items, self._n_multi[1], *self._matrix, state),
            *(composites, vectors, queries, out, sums),
        )
        return out
