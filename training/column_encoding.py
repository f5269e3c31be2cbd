"""A column of a chunk -> feature rows, through ``FieldEncoder`` once per distinct value of the chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models_export.encoded import EncodedSide
from models_export.fields import FIRST_KNOWN, MAX_WEIGHT, MISSING, FieldEncoder
from models_export.manifest import FieldSpec
from training.errors import UsageError

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]


def encode_columns(
    encoder: FieldEncoder, fields: Sequence[FieldSpec], columns: Mapping[str, pa.Array], n: int
) -> EncodedSide:
    """``n`` rows over ``fields`` (some of the encoder's): single-valued ones first, then multi-valued ones, each
    group in the given order, as ``FieldEncoder.encode_side`` lays them out. An absent column is missing values."""
    single = [f for f in fields if not f.weighted]
    multi = [f for f in fields if f.weighted]
    rows = np.empty((n, len(single)), dtype=np.int32)
    for j, spec in enumerate(single):
        offset = int(encoder.offsets[encoder.index(spec.name)])
        rows[:, j] = offset + (_ids(encoder, spec, columns[spec.name]) if spec.name in columns else MISSING)
    if not multi:
        return EncodedSide.without_multi(rows)
    read = {"multi": _multi, "dense": _dense}
    parts = [read[spec.kind](encoder, spec, columns.get(spec.name), n) for spec in multi]
    return EncodedSide(rows, *_interleave(parts, n))


def distinct_values(column: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Distinct strings or integers of a column and int64 [n] codes into them; code ``len(values)`` is a null."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    return encoded.dictionary, codes.astype(np.int64)


def _ids(encoder: FieldEncoder, spec: FieldSpec, column: pa.Array) -> I32:
    if spec.kind == "numeric":
        return encoder.encode_numbers(spec, column.fill_null(np.nan).to_numpy(zero_copy_only=False))
    values, codes = distinct_values(column)
    if pa.types.is_integer(values.type):
        ids = encoder.encode_strings(spec, values.to_pylist())
    else:
        _, offsets, data = values.cast(pa.large_string()).buffers()
        bounds = np.frombuffer(offsets, dtype=np.int64)[values.offset :][: len(values) + 1]
        text = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
        ids = encoder.encode_utf8(spec, text, bounds)
    return np.append(ids, np.int32(MISSING))[codes]


def multi_parts(column: pa.Array) -> tuple[I64, pa.Array, F32]:
    """Lengths int64 [n], the values one after another, and their weights: as given by a map, else 1/n each."""
    if pa.types.is_map(column.type):
        column = column.cast(pa.list_(pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])))
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = column.flatten()
    if pa.types.is_struct(flat.type):
        keys, weights = flat.flatten()
        return lengths, keys, weights.to_numpy(zero_copy_only=False).astype(np.float32)
    share = (1.0 / np.maximum(lengths, 1)).astype(np.float32)
    return lengths, flat, np.repeat(share, lengths)


def _multi(encoder: FieldEncoder, spec: FieldSpec, column: pa.Array | None, n: int) -> tuple[I64, I32, F32]:
    """Lengths, feature rows and weights of one field; a row without values is one missing value of weight 1."""
    offset = np.int32(encoder.offsets[encoder.index(spec.name)])
    if column is None:
        return np.ones(n, dtype=np.int64), np.full(n, offset, dtype=np.int32), np.ones(n, dtype=np.float32)
    lengths, values, weights = multi_parts(column)
    ids = offset + _ids(encoder, spec, values)
    empty = lengths == 0
    if not empty.any():
        return lengths, ids, weights
    at = np.cumsum(lengths)[empty]  # where the missing value of an empty row goes
    filled = np.where(empty, 1, lengths)
    return filled, np.insert(ids, at, offset), np.insert(weights, at, np.float32(1.0))


def _dense(encoder: FieldEncoder, spec: FieldSpec, column: pa.Array | None, n: int) -> tuple[I64, I32, F32]:
    """Lengths, feature rows and values x of a dense field: (number - centre) / scale, or the missing value."""
    offset = np.int32(encoder.offsets[encoder.index(spec.name)])
    numbers = np.full(n, np.nan) if column is None else column.fill_null(np.nan).to_numpy(zero_copy_only=False)
    missing = np.isnan(numbers)
    x = np.where(missing, 1.0, (numbers - spec.centre) / spec.scale)
    if (beyond := np.abs(x) > MAX_WEIGHT).any():
        raise UsageError(
            f"field {spec.name!r}: expected numbers within {MAX_WEIGHT:g} times {spec.scale:g} of {spec.centre:g}, "
            f"found {numbers[int(np.argmax(beyond))]:g}"
        )
    rows = np.where(missing, offset, offset + FIRST_KNOWN).astype(np.int32)
    return np.ones(n, dtype=np.int64), rows, x.astype(np.float32)


def _interleave(parts: list[tuple[I64, I32, F32]], n: int) -> tuple[I64, I32, F32]:
    """Values grouped by field -> grouped by row, then field."""
    lengths = np.stack([p[0] for p in parts], axis=1)
    indptr = np.zeros(lengths.size + 1, dtype=np.int64)
    np.cumsum(lengths.ravel(), out=indptr[1:])
    if len(parts) == 1:
        return indptr, parts[0][1], parts[0][2]
    rows, weights = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.float32)
    starts = indptr[:-1].reshape(n, len(parts))
    for j, (count, ids, share) in enumerate(parts):
        before = np.cumsum(count) - count
        target = np.repeat(starts[:, j] - before, count) + np.arange(len(ids))
        rows[target], weights[target] = ids, share
    return indptr, rows, weights
