"""A context, ``{"field": value, ...}``, from JSON text to an encoded row and its hash in one call."""

# mypy: disable-error-code="no-any-return"
# (a compiled function is Any to the type checker)

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import int32, int64, types, uint64

from service.kernels._jit import F32_1, I32_1, I32_2, I64_1, OUT_F32_1, OUT_I32_1, kernel
from service.kernels.hash_table import K1, hash_bytes
from service.kernels.json_tokens import UNUSUAL, skip_space
from service.kernels.pending import KIND, OFFSET, PLACE, flush
from service.kernels.raw_memory import inner_kernel, load_i64
from service.kernels.scan_fields import OUT_I32_2, OUT_I64_1, RAW, TABLES, scan_fields
from service.kernels.scan_values import is_weighted

OK = 0


@inner_kernel
def _chain(h: int, address: int, length: int) -> int:
    h = (h ^ hash_bytes(address, length)) * K1
    return h ^ (h >> uint64(32))


@inner_kernel
def _hash(rows: int, n_single: int, indptr: int, n_multi: int, multi_rows: int, weights: int) -> int:
    h = hash_bytes(rows, 4 * n_single)
    if n_multi > 0:
        entries = load_i64(indptr + 8 * n_multi)
        h = _chain(h, indptr, 8 * (n_multi + 1))
        h = _chain(h, multi_rows, 4 * entries)
        h = _chain(h, weights, 4 * entries)
    return h


@kernel(uint64(I32_2, I64_1, I32_1, F32_1))
def context_hash(
    rows: npt.NDArray[np.int32],
    indptr: npt.NDArray[np.int64],
    multi_rows: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
) -> int:
    """64-bit hash of an encoded context (an ``EncodedSide`` of one row)."""
    return _hash(
        int64(rows.ctypes.data),
        rows.size,
        int64(indptr.ctypes.data),
        len(indptr) - 1,
        int64(multi_rows.ctypes.data),
        int64(weights.ctypes.data),
    )


_OUTPUTS = (
    OUT_I32_2, OUT_I64_1, OUT_I32_1, OUT_F32_1, OUT_I32_1, OUT_I64_1, OUT_I64_1, OUT_I32_1, OUT_F32_1, OUT_I64_1,
)  # fmt: skip


@kernel(types.UniTuple(int64, 3)(int64, int64, TABLES, int64, *_OUTPUTS))
def encode_context(  # type: ignore[no-untyped-def]
    at, end, tables, max_values, rows, indptr, multi_rows, weights, unknown, starts, counts, pool_rows, pool_weights,
    scratch,
):  # fmt: skip
    """Encode the object at the address ``at``; everything else as for ``scan_context``. Returns (address behind the
    object, entries of multi-valued fields, number of unknown values), or (``UNUSUAL``, 0, 0), or (``TOO_MANY``,
    position of the field, 0)."""
    n_fields = len(tables) - 1
    n_multi = len(indptr) - 1
    n_single = rows.shape[1]
    scratch[0] = 0
    for position in range(n_fields):
        unknown[position] = 0
    for place in range(n_single):
        rows[0, place] = int32(-1)
    for place in range(n_multi):
        starts[place] = -1
    at, filled = scan_fields(
        at,
        end,
        int64(tables.ctypes.data),
        n_fields,
        max_values,
        int64(rows.ctypes.data),
        int64(starts.ctypes.data),
        int64(counts.ctypes.data),
        int64(pool_rows.ctypes.data),
        int64(pool_weights.ctypes.data),
        int64(0),
        int64(scratch.ctypes.data),
        int64(unknown.ctypes.data),
    )
    if at < 0:
        return at, filled, 0
    if not flush(int64(scratch.ctypes.data), int64(unknown.ctypes.data)):
        return UNUSUAL, 0, 0
    n_unknown = 0
    total = 0
    if n_multi > 0:
        indptr[0] = 0
    for position in range(n_fields):
        n_unknown += unknown[position]
        place = tables[position + 1, PLACE]
        missing = int32(tables[position + 1, OFFSET])
        if not is_weighted(tables[position + 1, KIND]):
            if rows[0, place] < 0:
                rows[0, place] = missing
            continue
        if starts[place] < 0:
            multi_rows[total] = missing
            weights[total] = np.float32(1.0)
            counts[place] = 1
        else:
            for i in range(counts[place]):
                multi_rows[total + i] = pool_rows[starts[place] + i]
                weights[total + i] = pool_weights[starts[place] + i]
        total += counts[place]
        indptr[place + 1] = total  # multi-valued fields come in the order of their places
    return at, total, n_unknown


@kernel(types.Tuple((int64, int64, int64, uint64))(RAW, TABLES, int64, *_OUTPUTS))
def scan_context(
    raw: npt.NDArray[np.uint8],
    tables: npt.NDArray[np.int64],
    max_values: int,
    rows: npt.NDArray[np.int32],
    indptr: npt.NDArray[np.int64],
    multi_rows: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    unknown: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    pool_rows: npt.NDArray[np.int32],
    pool_weights: npt.NDArray[np.float32],
    scratch: npt.NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Encode the object in ``raw``; fields that are not there are missing.

    Writes ``rows`` int32 [1, n_single], ``indptr`` int64 [n_multi + 1], ``multi_rows`` int32 and ``weights`` float32
    [at least len(raw) / 2 + n_multi + 2], and counts unknown values in ``unknown`` int32 [n_fields]. Work space:
    ``starts`` and ``counts`` int64 [n_multi], ``pool_rows`` and ``pool_weights`` like ``multi_rows`` and ``weights``
    (value lists in the order of the text), ``scratch`` of ``new_pending``. Returns (status, entries of multi-valued
    fields, number of unknown values, hash). Status ``TOO_MANY``: a value list is longer than ``max_values``, and the
    second number is the field's position.
    """
    at = int64(raw.ctypes.data)
    end = at + len(raw)
    at, total, n_unknown = encode_context(
        skip_space(at, end), end, tables, max_values, rows, indptr, multi_rows, weights, unknown, starts, counts,
        pool_rows, pool_weights, scratch,
    )  # fmt: skip
    if at < 0:
        return at, total, 0, uint64(0)
    if skip_space(at, end) != end:
        return UNUSUAL, 0, 0, uint64(0)
    h = _hash(
        int64(rows.ctypes.data),
        rows.shape[1],
        int64(indptr.ctypes.data),
        len(indptr) - 1,
        int64(multi_rows.ctypes.data),
        int64(weights.ctypes.data),
    )
    return OK, total, n_unknown, h
