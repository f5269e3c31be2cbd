"""Cells of a column -> labels, numbers and lists; which of them are none; column types that a field cannot take."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models_export.fields import MAX_WEIGHT
from training.column_encoding import multi_parts
from training.errors import UsageError
from training.spec_rules import FieldRule, Spec

F64 = npt.NDArray[np.float64]


def read_label(values: pa.Array, spec: Spec) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Labels as float32, and which of them are none."""
    numbers = to_float(values, f"label column {spec.label.column!r}")
    if spec.label.kind == "rating":
        bad = ~np.isfinite(numbers)
        if spec.label.positive:
            operator, bound = spec.label.positive
            with np.errstate(invalid="ignore"):
                numbers = (numbers >= bound if operator == ">=" else numbers > bound).astype(np.float64)
    else:
        bad = ~np.isin(numbers, (0.0, 1.0, -1.0))
        numbers = (numbers > 0).astype(np.float64)
    return np.where(bad, 0.0, numbers).astype(np.float32), bad


def read_numbers(values: pa.Array, field: FieldRule) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """Numbers as float64 with nulls where missing (null or ""), and which values are neither."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        missing = pc.or_(pc.is_null(values), pc.equal(values, "").fill_null(True)).to_numpy(zero_copy_only=False)
    else:
        missing = pc.is_null(values).to_numpy(zero_copy_only=False)
    numbers = to_float(values, f"field {field.name!r} (column {field.column!r})")
    bad = ~np.isfinite(numbers) & ~missing
    return pa.array(np.where(missing | bad, 0.0, numbers), mask=missing | bad), bad


def to_float(values: pa.Array, what: str) -> F64:
    """float64 of numbers or of their text; NaN where a value is missing or none; ``UsageError`` for other types."""
    if pa.types.is_dictionary(values.type):
        return _of_codes(to_float(values.dictionary, what), values.indices)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return _numpy(values.cast(pa.float64(), safe=False))
    if pa.types.is_boolean(values.type) and what.startswith("label"):
        return _numpy(values.cast(pa.float64()))
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise UsageError(f"{what}: expected numbers or text, found {values.type}")
    encoded = values.dictionary_encode()
    return _of_codes(_floats(encoded.dictionary), encoded.indices)


def _of_codes(table: F64, codes: pa.Array) -> F64:
    found: F64 = np.append(table, np.nan)[codes.fill_null(len(table)).to_numpy(zero_copy_only=False)]
    return found


def _floats(texts: pa.Array) -> F64:
    """float64 of distinct texts: all at once where each is a number, else one by one."""
    try:
        return _numpy(texts.cast(pa.float64()))
    except pa.ArrowInvalid:
        return np.array([_float(t) for t in texts.to_pylist()], dtype=np.float64)


def _float(text: str | None) -> float:
    try:
        return float("nan" if text is None or "_" in text else text)
    except ValueError:
        return float("nan")


def _numpy(numbers: pa.Array) -> F64:
    found: F64 = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)
    return found


def check_type(values: pa.Array, field: FieldRule) -> pa.Array:
    """``values`` in a type that the field can take, lists made of separated text; ``UsageError`` otherwise."""
    what = f"field {field.name!r} (column {field.column!r})"
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if field.kind == "multi":
        if text and field.separator:
            return split_text(pc.cast(values, pa.string()), field.separator)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
            inner = kind.key_type if pa.types.is_map(kind) else kind.value_type
            if pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_integer(inner):
                return values
        raise UsageError(f"{what}: expected lists of strings or integers (or text with a separator), found {kind}")
    if not text and not pa.types.is_integer(kind):
        raise UsageError(f"{what}: expected strings or integers, found {kind}; use kind numeric or dense for fractions")
    return values


def bad_weights(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Rows of a map column with a weight that the encoder would refuse."""
    lengths, _, weights = multi_parts(column)
    with np.errstate(invalid="ignore"):
        wrong = ~((weights >= 0) & (weights <= MAX_WEIGHT))
    bad = np.zeros(len(column), dtype=bool)
    bad[np.repeat(np.arange(len(column)), lengths)[wrong]] = True
    return bad


def split_text(values: pa.Array, separator: str) -> pa.Array:
    """list<string> of text such as ``a|b``; empty pieces are dropped, missing text is an empty list."""
    lists = pc.split_pattern(values.fill_null(""), separator)
    pieces = lists.values
    empty = pc.equal(pc.binary_length(pieces), 0).to_numpy(zero_copy_only=False)
    if not empty.any():
        return lists
    ends = np.concatenate([[0], np.cumsum(~empty)])[lists.offsets.to_numpy()]
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pieces.filter(pa.array(~empty)))
