# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""The compiled kernels of FwFM, dense or sparse: a slate's scores and vectors, and the context state."""

from functools import cache
from typing import Any

from service.kernels._gather import items_ahead, lines_per_row
from service.kernels._jit import (
    F32_1,
    F32_2,
    F32_3,
    FLOAT32,
    I32_1,
    I32_2,
    I64_1,
    INT64,
    OUT_F32_1,
    OUT_F32_2,
    VOID,
    kernel,
)
from service.kernels._pairs import block_size, dense_pairs, sparse_pairs
from service.kernels._pairs_gather import gather_block
from service.kernels._simd import host
from service.kernels.composite import composite_row
from service.kernels.raw_memory import inner_kernel


@kernel(VOID(F32_1, INT64, INT64, INT64, OUT_F32_1, OUT_F32_1))
def lay_out_block(state, n_fields, kp, block, queries, vectors):
    """Lay the scratch tables out for blocks of a size: Q repeated for each item, zeros behind the last field."""
    width = kp * block
    for f in range(n_fields):
        for item in range(block):
            for c in range(kp):
                queries[f * width + item * kp + c] = state[1 + f * kp + c]
    for place in range(n_fields * width, queries.shape[0]):
        queries[place] = 0.0
        vectors[place] = 0.0


@cache
def items_kernel(kp: int, sparse: int) -> Any:
    """Compile the scoring of a slate.

    The kernel's arguments: table [n, stride], folded (``folded_scalars``), rows [n_items, n_single], multi_indptr,
    multi_rows, multi_weights, n_multi; the field matrix as ``dense_pairs`` (coefficients) or ``sparse_pairs``
    (indptr, columns, values) reads it; state [1 + n_fields * kp]; scratch: composites [block * n_multi, stride],
    vectors and queries [n_padded * block * kp]; results: out [n_items], sums [n_items, n_fields * kp] or [0, 0].
    """
    block, lines = block_size(host(), kp), lines_per_row(kp)

    @kernel(
        VOID(
            *(F32_2, F32_1, I32_2, I64_1, I32_1, F32_1, INT64, F32_3, I32_1, I32_1, F32_1, F32_1),
            *(OUT_F32_2, OUT_F32_1, OUT_F32_1, OUT_F32_1, OUT_F32_2),
        )
    )
    def score_slate(
        table, folded, rows, multi_indptr, multi_rows, multi_weights, n_multi, coefficients, indptr, columns, values,
        state, composites, vectors, queries, out, sums,
    ):  # fmt: skip
        n = rows.shape[0]
        distance = items_ahead(rows.shape[1], lines, block)
        first = 0
        laid_out = 0
        while first < n:
            size = block if n - first >= block else 1
            if size != laid_out:
                laid_out = size
                lay_out_block(state, rows.shape[1] + n_multi, kp, size, queries, vectors)
            for place in range(size * n_multi):
                entry = first * n_multi + place
                begin, end = multi_indptr[entry], multi_indptr[entry + 1]
                composite_row(table, multi_rows, multi_weights, begin, end, FLOAT32(0.0), composites, place, kp, 0)
            ahead = min(first + distance, n - size)
            if size == block:
                gather_block(
                    table, folded, rows, first, ahead, composites, n_multi, state, vectors, out, sums, kp, block
                )
                if sparse:
                    sparse_pairs(vectors, queries, indptr, columns, values, first, out, kp, block)
                else:
                    dense_pairs(vectors, queries, coefficients, first, out, kp, block)
            else:
                gather_block(table, folded, rows, first, ahead, composites, n_multi, state, vectors, out, sums, kp, 1)
                if sparse:
                    sparse_pairs(vectors, queries, indptr, columns, values, first, out, kp, 1)
                else:
                    dense_pairs(vectors, queries, coefficients, first, out, kp, 1)
            first += size

    return score_slate


@cache
def context_kernel(kp: int) -> Any:
    """Compile the context state [t_C, Q row by row].

    The kernel's arguments: table, rows [1, n_single], multi_indptr, multi_rows, multi_weights, n_multi, field matrix
    among context fields [n_context, n_context] and from context to item fields [n_context, n_items], vectors
    (scratch) [n_context, >= kp + 1], state [1 + n_items * kp] that holds the global bias first and zeros behind it,
    and receives the result.
    """

    @kernel(VOID(F32_2, I32_2, I64_1, I32_1, F32_1, INT64, F32_2, F32_2, OUT_F32_2, OUT_F32_1))
    def interact_context(table, rows, multi_indptr, multi_rows, multi_weights, n_multi, among, across, vectors, state):
        n_single = rows.shape[1]
        n_fields = n_single + n_multi
        total = state[0]
        for f in range(n_fields):
            if f < n_single:
                for c in range(kp + 1):
                    vectors[f, c] = table[rows[0, f], c]
            else:
                j = f - n_single
                begin, end = multi_indptr[j], multi_indptr[j + 1]
                composite_row(table, multi_rows, multi_weights, begin, end, FLOAT32(0.0), vectors, f, kp, 0)
            total += vectors[f, kp]
            for i in range(f):
                weight = among[i, f]
                if weight != 0.0:
                    product = FLOAT32(0.0)
                    for c in range(kp):
                        product += vectors[i, c] * vectors[f, c]
                    total += weight * product
            for j in range(across.shape[1]):
                weight = across[f, j]
                if weight != 0.0:
                    for c in range(kp):
                        state[1 + j * kp + c] += weight * vectors[f, c]
        state[0] = total

    return interact_context


@cache
def context_compute(kp: int) -> Any:
    """``compute`` of the ``ContextProgram``: ``first`` and ``second`` are R among context fields and from context to
    item fields."""
    interact_context = context_kernel(kp)

    @inner_kernel
    def compute(table, rows, multi_indptr, multi_rows, multi_weights, first, second, scratch, state):
        n_multi = len(multi_indptr) - 1
        interact_context(table, rows, multi_indptr, multi_rows, multi_weights, n_multi, first, second, scratch, state)

    return compute
