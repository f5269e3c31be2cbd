"""An object ``{"field": value, ...}`` in JSON text, encoded field by field: a context, or the fields of an inline
item."""

# mypy: disable-error-code="no-any-return"
# (a compiled function is Any to the type checker)

from __future__ import annotations

from numba import int64, types

from service.kernels.hash_table import equal_bytes, hash_bytes, look_up
from service.kernels.json_tokens import (
    CLOSE_OBJECT,
    COLON,
    COMMA,
    OPEN_OBJECT,
    QUOTE,
    UNUSUAL,
    byte_at,
    skip_space,
    string_length,
)
from service.kernels.pending import KIND, MASK, NAME, NAME_LENGTH, PLACE, RECORDS, ROW_BYTES, SLOTS
from service.kernels.raw_memory import column, inner_kernel, load_i32, load_i64, load_u8, store_i64
from service.kernels.scan_values import encode_multi, encode_single, is_weighted

RAW = types.Array(types.uint8, 1, "C", readonly=True)
TABLES = types.Array(types.int64, 2, "C", readonly=True)
OUT_I32_2 = types.Array(types.int32, 2, "C")
OUT_I64_1 = types.Array(types.int64, 1, "C")
OUT_I64_2 = types.Array(types.int64, 2, "C")


@inner_kernel
def field_at(at: int, end: int, tables: int, n_fields: int, expected: int) -> tuple[int, int]:
    """The member name that begins at ``at``: (address of its value, number of its field from 1); ``UNUSUAL`` for an
    escaped or unknown name. ``expected`` is tried before the table of names: objects of one client have one order."""
    if byte_at(at, end) != QUOTE:
        return UNUSUAL, 0
    at += 1
    position = int64(0)
    if expected <= n_fields:
        field = tables + expected * ROW_BYTES
        length = column(field, NAME_LENGTH)
        if at + length < end and load_u8(at + length) == QUOTE and equal_bytes(column(field, NAME), at, length):
            position = expected
    if position == 0:
        length = string_length(at, end)
        if length < 0:
            return UNUSUAL, 0
        h = hash_bytes(at, length)
        position = look_up(column(tables, SLOTS), column(tables, MASK), column(tables, RECORDS), h, at, length) + 1
        if position == 0:
            return UNUSUAL, 0
    at += length + 1
    if byte_at(at, end) != COLON:
        at = skip_space(at, end)
        if byte_at(at, end) != COLON:
            return UNUSUAL, 0
    return skip_space(at + 1, end), position


@inner_kernel
def scan_fields(
    at: int,
    end: int,
    tables: int,
    n_fields: int,
    max_values: int,
    rows: int,
    starts: int,
    counts: int,
    pool_rows: int,
    pool_weights: int,
    filled: int,
    pending: int,
    unknown: int,
) -> tuple[int, int]:
    """Encode the object at ``at``. All places are addresses: ``rows`` int32 by place of the single-valued fields,
    ``starts`` and ``counts`` int64 by place of the multi-valued ones; -1 in ``rows`` and ``starts`` stays where a
    field is not given. Value lists go to the pool from entry ``filled`` on.

    Returns (address behind the object, entries of the pool in use), or (``TOO_MANY``, position of the field), or
    (``UNUSUAL``, 0).
    """
    if byte_at(at, end) != OPEN_OBJECT:
        return UNUSUAL, 0
    at = skip_space(at + 1, end)
    if byte_at(at, end) == CLOSE_OBJECT:
        return at + 1, filled
    position = int64(0)
    while True:
        at, position = field_at(at, end, tables, n_fields, position + 1)
        if at < 0:
            return UNUSUAL, 0
        field = tables + position * ROW_BYTES
        place = column(field, PLACE)
        if is_weighted(column(field, KIND)):
            if load_i64(starts + 8 * place) >= 0:
                return UNUSUAL, 0
            at, count = encode_multi(
                at, end, field, pool_rows + 4 * filled, pool_weights + 4 * filled, max_values, pending, unknown
            )
            if at < 0:
                return at, position - 1
            store_i64(starts + 8 * place, filled)
            store_i64(counts + 8 * place, count)
            filled += count
        else:
            target = rows + 4 * place
            if load_i32(target) >= 0:
                return UNUSUAL, 0
            at = encode_single(at, end, field, target, pending, unknown)
            if at < 0:
                return UNUSUAL, 0
        c = byte_at(at, end)
        if c != COMMA and c != CLOSE_OBJECT:
            at = skip_space(at, end)
            c = byte_at(at, end)
        if c == CLOSE_OBJECT:
            return at + 1, filled
        if c != COMMA:
            return UNUSUAL, 0
        at = skip_space(at + 1, end)
