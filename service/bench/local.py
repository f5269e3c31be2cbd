"""LLFM against a hand-written C loop of the same shape, and against FM on the same number of fields.

50 anchors of k = 10, five neighbours each (DO) or about as many (JO), slates of 1,000 items with as many item fields as
the paper's data sets have once half of them are context: Banana 1 of 2, MovieLens 1 of 2, IJCNN1 12 of 22; and 38 of 63
as the other kernels.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from models_export.locality import Locality, slot_width
from service.bench.packed_table import packed_table
from service.bench.timing import interleaved, median_ratio, median_us

ANCHORS, NEIGHBOURS, DIM, BETA = 50, 5, 10, 1.0
SPREAD = 0.2
"""Of a row's shares of the distances, by anchor."""
LIMIT = 1.3
"""Our time over the C loop's: what the project promises at most."""
N_ITEMS = 1000
SHAPES = ((1, 1, 10_000), (10, 12, 10_000), (25, 38, 10_000), (25, 38, 100_000))
"""Context fields, item fields, rows of the table (3.5 KB each)."""
WIDTHS = (11, 9, 8, 8, 6, 8, 8, 6, 7, 6, 6)

Floats = npt.NDArray[np.float32]


def local_table(rng: np.random.Generator, locality: Locality, n: int) -> Floats:
    """Random packed rows (``models_export/locality.py``)."""
    from service.kernels._jit import aligned

    width, m = slot_width(DIM), locality.anchors
    table = aligned((n, -(-(locality.near + m * width) // 16) * 16))
    table[:, :m] = 1.0 + SPREAD * rng.standard_normal((n, m), dtype=np.float32)
    for a in range(m):
        slot = locality.near + a * width
        table[:, slot : slot + DIM + 1] = 0.1 * rng.standard_normal((n, DIM + 1), dtype=np.float32)
    return table


def against_fm_and_c(library: ctypes.CDLL, seed: int, quick: bool) -> list[dict[str, Any]]:
    """A row per shape: microseconds per slate of LLFM (DO and JO), of their C loops and of FM with k = 10."""
    return [_shape(library, seed, *shape, quick) for shape in SHAPES]


def _shape(library: ctypes.CDLL, seed: int, n_context: int, n_item: int, n_rows: int, quick: bool) -> dict[str, Any]:
    from service.kernels.fm import FmKernel
    from service.kernels.llfm import LlfmKernel
    from service.kernels.side import single

    rng = np.random.default_rng(seed)
    do = Locality("do", ANCHORS, NEIGHBOURS, BETA, 1.0, False)
    ratio = 0.7 / (SPREAD * (n_context + n_item) ** 0.5)  # about five neighbours too
    jo = Locality("jo", ANCHORS, NEIGHBOURS, BETA, ratio, True)
    table = local_table(rng, do, n_rows)
    places = np.zeros((ANCHORS, 1), np.float32), np.zeros(ANCHORS, np.float32), DIM, 0.1
    kernel, greedy = LlfmKernel(do, table, *places), LlfmKernel(jo, table, *places)
    fm = FmKernel(packed_table(rng, n_rows, DIM), 16, 0.1)
    context = single(rng.integers(0, n_rows, (1, n_context)))
    slates = [single(rng.integers(0, n_rows, (N_ITEMS, n_item))) for _ in range(16 if quick else 64)]
    state, plain = kernel.context_state(context), fm.context_state(context)
    start = np.full(do.near, np.inf, np.float32)
    start[:ANCHORS] = state[:ANCHORS]
    out = np.empty(N_ITEMS, np.float32)
    pointers = [_pointer(slate[0]) for slate in slates]
    size = ctypes.c_int64(N_ITEMS), ctypes.c_int64(n_item)

    def by(model: LlfmKernel | FmKernel, at: Floats) -> Callable[[int], Floats]:
        return lambda number: model.score_items(at, slates[number % len(slates)])

    def in_c(loop: Any, coding: float) -> Callable[[int], None]:
        tail = _pointer(start), _pointer(state), ctypes.c_float(coding), _pointer(out)
        return lambda number: loop(_pointer(table), pointers[number % len(slates)], *size, *tail)

    ours, theirs = (by(kernel, state), by(greedy, state)), (in_c(library.llfm, BETA), in_c(library.llfm_jo, ratio))
    for name, own, other in zip(("llfm do", "llfm jo"), ours, theirs, strict=True):
        other(0)
        np.testing.assert_allclose(own(0), out, rtol=1e-4, atol=1e-4, err_msg=f"{name}: ours and the C loop")
    do_times, do_c, jo_times, jo_c, fm_times = interleaved(
        [ours[0], theirs[0], ours[1], theirs[1], by(fm, plain)], 50 if quick else 300
    )
    against_c = median_ratio(do_times, do_c), median_ratio(jo_times, jo_c)
    return {
        "context_fields": n_context,
        "item_fields": n_item,
        "table_rows": n_rows,
        "ours_us": median_us(do_times),
        "c_us": median_us(do_c),
        "ratio": against_c[0],
        "jo_us": median_us(jo_times),
        "jo_c_us": median_us(jo_c),
        "jo_ratio": against_c[1],
        "limit": LIMIT,
        "within_limit": max(against_c) <= LIMIT,
        "fm_us": median_us(fm_times),
        "over_fm": median_ratio(do_times, fm_times),
        "jo_over_fm": median_ratio(jo_times, fm_times),
    }


def render(rows: list[dict[str, Any]]) -> list[str]:
    """Lines for people."""
    lines = [
        "",
        f"LLFM, {ANCHORS} anchors of k = {DIM}: DO ({NEIGHBOURS} neighbours) and JO against C loops, and over FM",
    ]
    names = ("item fields", "rows", "DO", "C loop", "ratio", "JO", "C loop", "ratio", "FM", "DO/FM", "JO/FM")
    lines.append(" ".join(f"{name:>{width}}" for name, width in zip(names, WIDTHS, strict=True)))
    lines += [
        f"{row['item_fields']:>11} {row['table_rows']:>9,} {row['ours_us']:>8.1f} {row['c_us']:>8.1f} "
        f"{row['ratio']:>6.2f} {row['jo_us']:>8.1f} {row['jo_c_us']:>8.1f} {row['jo_ratio']:>6.2f} "
        f"{row['fm_us']:>7.1f} {row['over_fm']:>6.1f} {row['jo_over_fm']:>6.1f}"
        for row in rows
    ]
    return lines


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
