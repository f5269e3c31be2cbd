"""Field values in JSON text -> feature rows: the compiled twin of ``models_export.FieldEncoder``.

What it encodes, it encodes as ``FieldEncoder`` does; what it does not (escapes, wrong types, numbers of many digits,
repeated keys) is ``UNUSUAL`` and left to ``FieldEncoder`` itself, which also words the errors. Functions take
addresses: of text (``at``, up to ``end``), of a field's row in the tables, of the list of pending look-ups, of the
counters of unknown values, of the place for a result.
"""

# mypy: disable-error-code="no-any-return"
# (a compiled function is Any to the type checker)

from __future__ import annotations

import math

import numpy as np
from numba import float32, int64, uint64

from service.kernels.hash_table import hash_bytes
from service.kernels.json_tokens import (
    CLOSE_ARRAY,
    CLOSE_OBJECT,
    COLON,
    COMMA,
    MINUS,
    OPEN_ARRAY,
    OPEN_OBJECT,
    QUOTE,
    UNUSUAL,
    byte_at,
    integer_length,
    parse_number,
    skip_space,
    string_length,
)
from service.kernels.pending import (
    EDGES,
    KIND,
    N_EDGES,
    OFFSET,
    SEEN,
    bin_id,
    count_unknown,
    push,
    row_of,
)
from service.kernels.raw_memory import (
    column,
    inner_kernel,
    load_f64,
    load_i32,
    load_i64,
    load_u8,
    load_u64,
    store_f32,
    store_i32,
    store_i64,
    store_u64,
)

CATEGORICAL, MULTI, LN2, QUANTILE, DENSE = 0, 1, 2, 3, 4
TOO_MANY = -2

_NEAR = 1e-9  # closer to a bin's border than this, two libraries' logarithms may disagree
_FLOOR_LIMIT = -1e15
_MAX_WEIGHT = 1e6
_LONGEST_WALK = 128
_NULL = int.from_bytes(b"null", "little")
_NUMBER_ID = 2  # models_export.fields.FIRST_KNOWN


@inner_kernel
def is_weighted(kind: int) -> bool:
    """Whether a field of this kind has a list of (feature row, value x)."""
    return (kind == MULTI) | (kind == DENSE)


@inner_kernel
def is_null(at: int, end: int) -> bool:
    """Whether the literal at ``at`` is null."""
    return at + 4 <= end and load_i32(at) == _NULL


@inner_kernel
def push_plain(at: int, end: int, field: int, target: int, pending: int, unknown: int) -> int:
    """Encode the string, integer or null at ``at``: the address behind it, or ``UNUSUAL``."""
    if byte_at(at, end) == QUOTE:
        at += 1
        length = string_length(at, end)
        after = at + length + 1
    elif is_null(at, end):
        store_i32(target, column(field, OFFSET))
        return at + 4
    else:
        length = integer_length(at, end)
        after = at + length
    if length < 0 or not push(pending, field, at, length, target, unknown):
        return UNUSUAL
    return after


@inner_kernel
def _bin_number(x: float, field: int) -> int:
    """Number of the bin of ``x``; the least int64 where ``x`` is too near to a border, or too large, to tell."""
    unsure = int64(-(2**63))
    if column(field, KIND) == LN2:
        if x > 2.0:
            square = math.log(x) ** 2
            return unsure if abs(square - np.rint(square)) < _NEAR else int64(math.floor(square))
        return unsure if x < _FLOOR_LIMIT else int64(math.floor(x))
    edges = column(field, EDGES)
    low, high = int64(0), column(field, N_EDGES)
    while low < high:
        middle = (low + high) >> 1
        if x < load_f64(edges + 8 * middle):
            high = middle
        else:
            low = middle + 1
    return low


@inner_kernel
def _read_number(at: int, end: int) -> tuple[int, float]:
    """The number, number in a string, or missing value (NaN: null, an empty string) at ``at``: (address behind it or
    ``UNUSUAL``, number)."""
    if is_null(at, end):
        return at + 4, math.nan
    if byte_at(at, end) != QUOTE:
        length, x = parse_number(at, end)
        return (at + length if length >= 0 else UNUSUAL), x
    at += 1
    whole = string_length(at, end)
    if whole == 0:
        return at + 1, math.nan
    if whole < 0:
        return UNUSUAL, 0.0
    length, x = parse_number(at, at + whole)
    return (at + length + 1 if length == whole else UNUSUAL), x


@inner_kernel
def encode_dense(at: int, end: int, field: int, rows: int, weights: int) -> int:
    """Encode the value at ``at`` of a dense field, (x - centre) / scale: the address behind it, or ``UNUSUAL``."""
    after, x = _read_number(at, end)
    if after < 0:
        return UNUSUAL
    if math.isnan(x):
        store_i32(rows, column(field, OFFSET))
        store_f32(weights, float32(1.0))
        return after
    numbers = column(field, EDGES)
    x = (x - load_f64(numbers)) / load_f64(numbers + 8)
    if not abs(x) <= _MAX_WEIGHT:
        return UNUSUAL
    store_i32(rows, column(field, OFFSET) + _NUMBER_ID)
    store_f32(weights, float32(x))
    return after


@inner_kernel
def encode_number(at: int, end: int, field: int, target: int, pending: int, unknown: int) -> int:
    """Encode the value at ``at`` of a numeric field: the address behind it, or ``UNUSUAL``."""
    after, x = _read_number(at, end)
    if after < 0:
        return UNUSUAL
    if math.isnan(x):
        store_i32(target, column(field, OFFSET))
        return after
    number = _bin_number(x, field)
    if number == -(2**63):
        return UNUSUAL
    found = bin_id(number, column(field, KIND) == LN2 and x > 2.0, field, pending)
    if found < 0:
        count_unknown(field, unknown)
    store_i32(target, row_of(field, found))
    return after


@inner_kernel
def encode_single(at: int, end: int, field: int, target: int, pending: int, unknown: int) -> int:
    """Encode the value at ``at`` of a single-valued field: the address behind it, or ``UNUSUAL``."""
    if column(field, KIND) == CATEGORICAL:
        return push_plain(at, end, field, target, pending, unknown)
    return encode_number(at, end, field, target, pending, unknown)


@inner_kernel
def encode_list(
    at: int, end: int, field: int, target: int, step: int, limit: int, pending: int, unknown: int
) -> tuple[int, int]:
    """Encode the array of plain values that begins at ``at``, feature rows at ``target``, ``target + step`` ..:
    (address behind the array or ``UNUSUAL`` or ``TOO_MANY``, number of values)."""
    count = 0
    at = skip_space(at + 1, end)
    if byte_at(at, end) == CLOSE_ARRAY:
        return at + 1, 0
    while True:
        if count == limit:
            return TOO_MANY, 0
        at = push_plain(at, end, field, target, pending, unknown)
        if at < 0:
            return UNUSUAL, 0
        target += step
        count += 1
        c = byte_at(at, end)
        if c != COMMA and c != CLOSE_ARRAY:
            at = skip_space(at, end)
            c = byte_at(at, end)
        if c == CLOSE_ARRAY:
            return at + 1, count
        if c != COMMA:
            return UNUSUAL, 0
        at = skip_space(at + 1, end)


@inner_kernel
def _is_repeated(h: int, seen: int, capacity: int) -> bool:
    """Add a hash to the set of ``capacity`` (a power of two) words at ``seen``: open addressing, 0 = free.

    At most half of the words are used, so a walk of ``_LONGEST_WALK`` means keys that were crafted to meet: called
    repeated, they go to the exact path, whose dictionary has a secret seed, before they make this set quadratic.
    """
    value = h | uint64(1)
    slot = int64(h >> uint64(1)) & (capacity - 1)
    for _ in range(_LONGEST_WALK):
        there = load_u64(seen + 8 * slot)
        if there == uint64(0):
            store_u64(seen + 8 * slot, value)
            return False
        if there == value:
            return True
        slot = (slot + 1) & (capacity - 1)
    return True


@inner_kernel
def _count_colons(at: int, end: int) -> int:
    """About how many members the object that begins at ``at`` has: colons up to the first closing brace. Strings may
    hold either; the set of keys may not fill up, then."""
    count = 0
    while at < end and load_u8(at) != CLOSE_OBJECT:
        count += 1 if load_u8(at) == COLON else 0
        at += 1
    return count


@inner_kernel
def encode_weighted(
    at: int, end: int, field: int, rows: int, weights: int, limit: int, pending: int, unknown: int
) -> tuple[int, int]:
    """Encode the object ``{value: weight}`` that begins at ``at``; results as those of ``encode_list``."""
    capacity = int64(16)
    bound = min(2 * _count_colons(at, end), load_i64(pending + SEEN))
    while capacity < bound:
        capacity *= 2
    seen = pending + SEEN + 8
    for i in range(capacity):
        store_i64(seen + 8 * i, 0)
    count = 0
    at = skip_space(at + 1, end)
    if byte_at(at, end) == CLOSE_OBJECT:
        return at + 1, 0
    while True:
        if byte_at(at, end) != QUOTE:
            return UNUSUAL, 0
        start = at + 1
        length = string_length(start, end)
        if length < 0 or 2 * (count + 1) > capacity or _is_repeated(hash_bytes(start, length), seen, capacity):
            return UNUSUAL, 0
        if count == limit:
            return TOO_MANY, 0
        at = skip_space(start + length + 1, end)
        if byte_at(at, end) != COLON:
            return UNUSUAL, 0
        at = skip_space(at + 1, end)
        if byte_at(at, end) == MINUS:
            return UNUSUAL, 0
        digits, weight = parse_number(at, end)
        if digits < 0 or weight > _MAX_WEIGHT:
            return UNUSUAL, 0
        if not push(pending, field, start, length, rows + 4 * count, unknown):
            return UNUSUAL, 0
        store_f32(weights + 4 * count, float32(weight))
        count += 1
        at = skip_space(at + digits, end)
        c = byte_at(at, end)
        if c == CLOSE_OBJECT:
            return at + 1, count
        if c != COMMA:
            return UNUSUAL, 0
        at = skip_space(at + 1, end)


@inner_kernel
def encode_multi(
    at: int, end: int, field: int, rows: int, weights: int, limit: int, pending: int, unknown: int
) -> tuple[int, int]:
    """Encode the value at ``at`` of a multi-valued or dense field: feature rows int32 at ``rows``, weights float32 at
    ``weights``. Returns (address behind it or ``UNUSUAL`` or ``TOO_MANY``, number of entries)."""
    if column(field, KIND) == DENSE:
        return encode_dense(at, end, field, rows, weights), 1
    c = byte_at(at, end)
    if c == OPEN_OBJECT:
        after, count = encode_weighted(at, end, field, rows, weights, limit, pending, unknown)
    else:
        if c == OPEN_ARRAY:
            after, count = encode_list(at, end, field, rows, int64(4), limit, pending, unknown)
        else:
            after, count = push_plain(at, end, field, rows, pending, unknown), 1
        if after > 0:
            for i in range(count):
                store_f32(weights + 4 * i, float32(1.0 / count))
    if after > 0 and count == 0:
        store_i32(rows, column(field, OFFSET))
        store_f32(weights, float32(1.0))
        count = 1
    return after, count
