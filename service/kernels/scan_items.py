"""Inline items from JSON text to feature rows: a column of one field, or rows ``{"id": .., "fields": {..}}``.

Both leave -1 where a value is not given; ``service.kernels.slate`` fills it. Value lists of multi-valued fields go to a
*pool* of entries that ``starts`` and ``counts`` int64 [n, n_multi] point into.
"""

# mypy: disable-error-code="no-any-return"
# (a compiled function is Any to the type checker)

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import int32, int64, types

from service.kernels._jit import OUT_F32_1, OUT_I32_1, kernel
from service.kernels.hash_table import hash_bytes, look_up
from service.kernels.json_tokens import (
    CLOSE_ARRAY,
    CLOSE_OBJECT,
    COLON,
    COMMA,
    OPEN_ARRAY,
    OPEN_OBJECT,
    QUOTE,
    UNUSUAL,
    byte_at,
    is_utf8,
    plain_id,
    skip_space,
    string_length,
)
from service.kernels.pending import KIND, PLACE, ROW_BYTES, flush
from service.kernels.raw_memory import inner_kernel, load_tail
from service.kernels.scan_fields import OUT_I32_2, OUT_I64_1, OUT_I64_2, RAW, TABLES, scan_fields
from service.kernels.scan_values import CATEGORICAL, TOO_MANY, encode_list, encode_multi, encode_single, is_weighted

OK = 0
_ID = np.uint64(int.from_bytes(b"id", "little"))
_FIELDS = np.uint64(int.from_bytes(b"fields", "little"))


@kernel(
    types.UniTuple(int64, 3)(
        RAW,
        TABLES,
        int64,
        int64,
        OUT_I32_2,
        OUT_I64_2,
        OUT_I64_2,
        OUT_I32_1,
        OUT_F32_1,
        int64,
        OUT_I32_1,
        OUT_I64_1,
    )
)
def scan_column(
    raw: npt.NDArray[np.uint8],
    tables: npt.NDArray[np.int64],
    position: int,
    max_values: int,
    rows: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    pool_rows: npt.NDArray[np.int32],
    pool_weights: npt.NDArray[np.float32],
    filled: int,
    unknown: npt.NDArray[np.int32],
    scratch: npt.NDArray[np.int64],
) -> tuple[int, int, int]:
    """Encode the array in ``raw``, one value per item, of the field at ``position`` of its side.

    A single-valued field writes its place in ``rows`` int32 [n, n_single], a multi-valued one the pool from ``filled``
    on. Unknown values are counted in ``unknown`` int32 [n_fields]; ``scratch`` of ``new_pending``. Returns (status,
    number of values up to n + 1, entries of the pool in use). Status ``TOO_MANY``: one item has more than
    ``max_values`` values.
    """
    n, n_single = rows.shape
    scratch[0] = 0
    pending = int64(scratch.ctypes.data)
    counters = int64(unknown.ctypes.data)
    field = int64(tables.ctypes.data) + (position + 1) * ROW_BYTES
    kind = tables[position + 1, KIND]
    place = tables[position + 1, PLACE]
    target = int64(rows.ctypes.data) + 4 * place
    at = int64(raw.ctypes.data)
    end = at + len(raw)
    at = skip_space(at, end)
    if byte_at(at, end) != OPEN_ARRAY:
        return UNUSUAL, 0, filled
    i = int64(0)
    if kind == CATEGORICAL:
        at, i = encode_list(at, end, field, target, 4 * n_single, n, pending, counters)
        if at == TOO_MANY:
            return OK, n + 1, filled
    else:
        at = skip_space(at + 1, end)
        more = byte_at(at, end) != CLOSE_ARRAY
        while more:
            if i == n:
                return OK, n + 1, filled
            if is_weighted(kind):
                at, count = encode_multi(
                    at,
                    end,
                    field,
                    int64(pool_rows.ctypes.data) + 4 * filled,
                    int64(pool_weights.ctypes.data) + 4 * filled,
                    max_values,
                    pending,
                    counters,
                )
                starts[i, place] = filled
                counts[i, place] = count
                filled += count
            else:
                at = encode_single(at, end, field, target + 4 * n_single * i, pending, counters)
            if at < 0:
                return at, i, 0
            i += 1
            at = skip_space(at, end)
            c = byte_at(at, end)
            more = c == COMMA
            if not more and c != CLOSE_ARRAY:
                return UNUSUAL, 0, filled
            if more:
                at = skip_space(at + 1, end)
        at += 1
    if at < 0 or skip_space(at, end) != end or not flush(pending, counters):
        return UNUSUAL, 0, filled
    return OK, i, filled


@inner_kernel
def _member(at: int, end: int) -> tuple[int, int]:
    """The member name at ``at``: (address of its value or ``UNUSUAL``, 1 for id, 2 for fields)."""
    if byte_at(at, end) != QUOTE:
        return UNUSUAL, 0
    at += 1
    length = string_length(at, end)
    which = 0
    if length == 2 and load_tail(at, length) == _ID:
        which = 1
    elif length == 6 and load_tail(at, length) == _FIELDS:
        which = 2
    if which == 0:
        return UNUSUAL, 0
    at = skip_space(at + length + 1, end)
    if byte_at(at, end) != COLON:
        return UNUSUAL, 0
    return skip_space(at + 1, end), which


@kernel(
    types.UniTuple(int64, 2)(
        RAW,
        TABLES,
        int64,
        int64,
        int64,
        int64,
        OUT_I32_1,
        OUT_I32_2,
        OUT_I32_2,
        OUT_I64_2,
        OUT_I64_2,
        OUT_I32_1,
        OUT_F32_1,
        OUT_I32_1,
        OUT_I64_1,
    )
)
def scan_rows(
    raw: npt.NDArray[np.uint8],
    tables: npt.NDArray[np.int64],
    slots: int,
    mask: int,
    records: int,
    max_values: int,
    index: npt.NDArray[np.int32],
    spans: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    pool_rows: npt.NDArray[np.int32],
    pool_weights: npt.NDArray[np.float32],
    unknown: npt.NDArray[np.int32],
    scratch: npt.NDArray[np.int64],
) -> tuple[int, int]:
    """Encode the array of items in ``raw``: ``index`` int32 [limit] and ``spans`` int32 [limit, 2] as ``scan_ids`` does
    (the catalogue's table is at ``slots``, ``mask``, ``records``), ``rows``, ``starts``, ``counts`` with -1 where a
    value is not given, ``unknown`` int32 [n_fields] added to; ``scratch`` of ``new_pending``.

    Returns (status, number of items). ``TOO_MANY``: the second number is the position of the field whose list is too
    long, or -1 when there are more than ``limit`` items. Arrays have ``limit`` rows; the pool has at least
    len(raw) / 2 + 2 entries.
    """
    limit, n_single = rows.shape
    n_multi = starts.shape[1]
    scratch[0] = 0
    pending = int64(scratch.ctypes.data)
    counters = int64(unknown.ctypes.data)
    base = int64(raw.ctypes.data)
    end = base + len(raw)
    filled = int64(0)
    i = int64(0)
    at = skip_space(base, end)
    if byte_at(at, end) != OPEN_ARRAY:
        return UNUSUAL, 0
    at = skip_space(at + 1, end)
    more = byte_at(at, end) != CLOSE_ARRAY
    while more:
        if byte_at(at, end) != OPEN_OBJECT:
            return UNUSUAL, 0
        if i == limit:
            return TOO_MANY, -1
        for j in range(n_single):
            rows[i, j] = int32(-1)
        for j in range(n_multi):
            starts[i, j] = -1
        has_id = False
        has_fields = False
        open_item = True
        at = skip_space(at + 1, end)
        while open_item:
            at, which = _member(at, end)
            if at < 0 or (which == 1 and has_id) or (which == 2 and has_fields):
                return UNUSUAL, 0
            if which == 1:
                has_id = True
                start, length, at = plain_id(at, end)
                if length < 0:
                    return UNUSUAL, 0
                found = look_up(slots, mask, records, hash_bytes(start, length), start, length)
                if found < 0 and not is_utf8(start, length):
                    return UNUSUAL, 0
                index[i] = int32(found)
                spans[i, 0] = int32(start - base)
                spans[i, 1] = int32(length)
            else:
                has_fields = True
                at, count = scan_fields(
                    at,
                    end,
                    int64(tables.ctypes.data),
                    len(tables) - 1,
                    max_values,
                    int64(rows.ctypes.data) + 4 * n_single * i,
                    int64(starts.ctypes.data) + 8 * n_multi * i,
                    int64(counts.ctypes.data) + 8 * n_multi * i,
                    int64(pool_rows.ctypes.data),
                    int64(pool_weights.ctypes.data),
                    filled,
                    pending,
                    counters,
                )
                if at < 0:
                    return at, count
                filled = count
            at = skip_space(at, end)
            c = byte_at(at, end)
            open_item = c == COMMA
            if not open_item and c != CLOSE_OBJECT:
                return UNUSUAL, 0
            at = skip_space(at + 1, end)
        if not has_id:
            return UNUSUAL, 0
        i += 1
        c = byte_at(at, end)
        more = c == COMMA
        if not more and c != CLOSE_ARRAY:
            return UNUSUAL, 0
        if more:
            at = skip_space(at + 1, end)
    if skip_space(at + 1, end) != end or not flush(pending, counters):
        return UNUSUAL, 0
    return OK, i
