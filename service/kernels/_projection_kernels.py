# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""The compiled kernels of FM (``unit`` 1) and DPLR: a slate's scores and projections, and the context state."""

from functools import cache
from typing import Any

from service.kernels._gather import items_ahead, lines_per_row
from service.kernels._jit import F32_1, F32_2, FLOAT32, I32_1, I32_2, I64_1, OUT_F32_1, OUT_F32_2, VOID, kernel
from service.kernels._projection import score_blocks
from service.kernels.composite import composite_row
from service.kernels.raw_memory import inner_kernel


@cache
def items_kernel(kp: int, rho: int, unit: int, block: int) -> Any:
    """Compile the scoring of a slate, ``block`` items side by side.

    The kernel's arguments: table [n, stride], folded (``folded_scalars``), rows [n_items, n_single], multi_indptr,
    multi_rows, multi_weights, diagonals [n_multi], coefficients [n_fields, rho], e [rho], state [1 + rho * kp],
    composites (scratch) [block * n_multi, stride]; results: out [n_items], sums [n_items, rho * kp] or [0, 0].
    """
    lines = lines_per_row(kp)

    @kernel(VOID(F32_2, F32_1, I32_2, I64_1, I32_1, F32_1, F32_1, F32_2, F32_1, F32_1, OUT_F32_2, OUT_F32_1, OUT_F32_2))
    def score_slate(
        table, folded, rows, multi_indptr, multi_rows, multi_weights, diagonals, coefficients, e, state,
        composites, out, sums,
    ):  # fmt: skip
        n = rows.shape[0]
        n_multi = diagonals.shape[0]
        distance = items_ahead(rows.shape[1], lines, block)
        first = 0
        while first < n:
            size = block if n - first >= block else 1
            stop = n - (n - first) % size
            if n_multi:
                stop = first + size
            for place in range(size * n_multi):
                entry = first * n_multi + place
                begin, end = multi_indptr[entry], multi_indptr[entry + 1]
                diagonal = diagonals[place % n_multi]
                composite_row(table, multi_rows, multi_weights, begin, end, diagonal, composites, place, kp, unit)
            if size == block:
                score_blocks(
                    table, folded, rows, first, stop, distance, composites, n_multi, coefficients, e, state, out, sums,
                    kp, rho, unit, block,
                )  # fmt: skip
            else:
                score_blocks(
                    table, folded, rows, first, stop, distance, composites, n_multi, coefficients, e, state, out, sums,
                    kp, rho, unit, 1,
                )  # fmt: skip
            first = stop

    return score_slate


@cache
def context_kernel(kp: int, rho: int, unit: int) -> Any:
    """Compile the context state [t_C, P_C row by row].

    The kernel's arguments: table, rows [1, n_single], multi_indptr, multi_rows, multi_weights, diagonals [n_multi],
    coefficients [n_fields, rho], composites (scratch) [1, stride], state [1 + rho * kp] that holds the global bias
    first and zeros behind it, and receives the result.
    """

    @kernel(VOID(F32_2, I32_2, I64_1, I32_1, F32_1, F32_1, F32_2, OUT_F32_2, OUT_F32_1))
    def project_context(
        table, rows, multi_indptr, multi_rows, multi_weights, diagonals, coefficients, composites, state
    ):
        n_single = rows.shape[1]
        total = state[0]
        for f in range(n_single + diagonals.shape[0]):
            source, row = table, 0
            if f < n_single:
                row = rows[0, f]
            else:
                j = f - n_single
                begin, end = multi_indptr[j], multi_indptr[j + 1]
                composite_row(table, multi_rows, multi_weights, begin, end, diagonals[j], composites, 0, kp, unit)
                source = composites
            total += source[row, kp]
            for r in range(rho):
                coefficient = FLOAT32(1.0) if unit else coefficients[f, r]
                for c in range(kp):
                    state[1 + r * kp + c] += coefficient * source[row, c]
        state[0] = total

    return project_context


@cache
def context_compute(kp: int, rho: int, unit: int) -> Any:
    """``compute`` of the ``ContextProgram``: ``first`` are the diagonals in one row, ``second`` the coefficients."""
    project_context = context_kernel(kp, rho, unit)

    @inner_kernel
    def compute(table, rows, multi_indptr, multi_rows, multi_weights, first, second, scratch, state):
        project_context(table, rows, multi_indptr, multi_rows, multi_weights, first[0], second, scratch, state)

    return compute
