"""FieldEncoder: raw value -> id. The only encoder; training and serving both use it.

Ids of a field: 0 = missing (``None`` or an empty string or list), 1 = rare or unknown, known values from 2 in the
order of the field's table. A *feature row* is the field's offset plus the id: an index into the embedding table.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide
from models_export.errors import ArtefactError, EncodingError
from models_export.manifest import FieldSpec, Side
from models_export.string_table import StringTable

MISSING, UNKNOWN, FIRST_KNOWN = 0, 1, 2
MAX_WEIGHT = 1e6
#: The one known value of a dense field, whose x is the number.
NUMBER = "number"


class FieldEncoder:
    """Encodes values of ``fields`` with one ``StringTable`` per field (ids from 2)."""

    def __init__(self, fields: Sequence[FieldSpec], tables: Mapping[str, StringTable]) -> None:
        self.fields = tuple(fields)
        self.tables = dict(tables)
        self.offsets = np.cumsum([0, *(f.size for f in self.fields)], dtype=np.int64)
        self.n_features = int(self.offsets[-1])
        self._position = {f.name: i for i, f in enumerate(self.fields)}
        self._orders = {side: self._kernel_order(side) for side in ("context", "item", None)}
        for spec in self.fields:
            known = len(tables[spec.name]) if spec.name in tables else -1
            if spec.size != FIRST_KNOWN + known:
                found = f"{known} values" if known >= 0 else "no table"
                raise ArtefactError(f"vocabulary of {spec.name!r}", f"{spec.size - FIRST_KNOWN} values", found)

    @classmethod
    def build(cls, fields: Sequence[FieldSpec], values: Mapping[str, Sequence[str]]) -> FieldEncoder:
        """Encoder whose known values are ``values[field]`` in that order (bin keys for numeric fields); the sizes in
        ``fields`` are replaced by the true ones."""
        known = {f.name: [NUMBER] if f.kind == "dense" else values[f.name] for f in fields}
        tables = {name: StringTable.build(some, FIRST_KNOWN) for name, some in known.items()}
        return cls([replace(f, size=FIRST_KNOWN + len(tables[f.name])) for f in fields], tables)

    def extend(self, values: Mapping[str, Sequence[str]]) -> FieldEncoder:
        """Encoder for retraining: values not yet known are appended in their order, so every old id stays."""
        merged = {}
        for spec in self.fields:
            table = self.tables[spec.name]
            new = list(dict.fromkeys(values.get(spec.name, ())))
            known = table.get_many(new) >= 0
            merged[spec.name] = [*table, *(v for v, k in zip(new, known.tolist(), strict=True) if not k)]
        return FieldEncoder.build(self.fields, merged)

    def index(self, name: str) -> int:
        """Position of a field; ``EncodingError`` that lists the known fields if there is none."""
        if name not in self._position:
            known = ", ".join(sorted(self._position))
            raise EncodingError(name, f"not a field of this model; its fields are {known}")
        return self._position[name]

    def encode_value(self, field: str | FieldSpec, value: Any) -> tuple[list[int], list[float]]:
        """Local ids and weights of one raw value; a single-valued field gives one id of weight 1.

        Categorical: a string or an integer (its decimal digits). Numeric: a finite number, or a string of one; dense:
        likewise, and its weight is the standardised number. Multi: a list (weight 1/n each, repeated values add up) or
        an object ``{value: weight}``.
        """
        spec = self.fields[self.index(field)] if isinstance(field, str) else field
        if value is None or (isinstance(value, str | list | tuple | dict) and not value):
            if isinstance(value, list | tuple | dict) and spec.kind != "multi":
                raise EncodingError(spec.name, f"expected one value, found {_json_type(value)} without any")
            return [MISSING], [1.0]
        if spec.kind == "dense":
            return [FIRST_KNOWN], [standardised(spec, value)]
        if spec.kind != "multi":
            return self._ids(spec, [value_key(spec, value)]), [1.0]
        if isinstance(value, dict):
            keys, weights = list(value), [_weight(spec.name, k, w) for k, w in value.items()]
        elif isinstance(value, list | tuple):
            keys, weights = list(value), [1.0 / len(value)] * len(value)
        else:
            keys, weights = [value], [1.0]
        return self._ids(spec, [value_key(spec, k) for k in keys]), weights

    def _ids(self, spec: FieldSpec, keys: list[str | None]) -> list[int]:
        ids = self.tables[spec.name].get_many([k or "" for k in keys])
        ids[ids < 0] = UNKNOWN
        return [MISSING if key is None else i for key, i in zip(keys, ids.tolist(), strict=True)]

    def encode_strings(
        self, field: str | FieldSpec, values: Sequence[str | int | float | None]
    ) -> npt.NDArray[np.int32]:
        """Local ids int32 [n] of many single values (each as ``encode_value`` would take it, no lists)."""
        spec = self.fields[self.index(field)] if isinstance(field, str) else field
        keys = [None if v is None or v == "" else value_key(spec, v) for v in values]
        return np.array(self._ids(spec, keys), dtype=np.int32).reshape(len(keys))

    def encode_utf8(
        self, field: str | FieldSpec, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int32]:
        """``encode_strings`` of the strings ``data[offsets[i] : offsets[i + 1]]`` of a field that is not numeric: UTF-8
        bytes one after another, as an arrow column's buffers hold them. An empty string is missing."""
        spec = self.fields[self.index(field)] if isinstance(field, str) else field
        ids = self.tables[spec.name].get_utf8(data, offsets)
        ids[ids < 0] = UNKNOWN
        ids[np.diff(offsets) == 0] = MISSING
        return ids

    def encode_numbers(self, field: str | FieldSpec, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """``encode_strings`` of a numeric field's numbers (finite; NaN is missing)."""
        spec = self.fields[self.index(field)] if isinstance(field, str) else field
        known = ~np.isnan(values)
        keys, codes = bin_groups(spec, values[known])
        ids = np.full(len(values), MISSING, dtype=np.int32)
        ids[known] = np.array(self._ids(spec, list(keys)), dtype=np.int32)[codes]
        return ids

    def encode_side(self, side: Side | None, rows: Sequence[Mapping[str, Any]]) -> EncodedSide:
        """Encode ``rows`` (field -> raw value; absent = missing) over the fields of one side or, for ``None``, of both.
        A field of the other side, or of no side, is an ``EncodingError``."""
        order = self._orders[side]
        multi = [i for i in order if self.fields[i].weighted]
        single = order[: len(order) - len(multi)]
        out = np.empty((len(rows), len(single)), dtype=np.int32)
        indptr, ids, weights = [0], [], []
        for i, row in enumerate(rows):
            for name in row:
                position = self.index(name)
                if side not in (None, self.fields[position].side):
                    raise EncodingError(name, f"a field of the {self.fields[position].side}, found in the {side}")
            for j, f in enumerate(single):
                out[i, j] = self.offsets[f] + self.encode_value(self.fields[f], row.get(self.fields[f].name))[0][0]
            for f in multi:
                some, w = self.encode_value(self.fields[f], row.get(self.fields[f].name))
                ids += [int(self.offsets[f]) + j for j in some]
                weights += w
                indptr.append(len(ids))
        return EncodedSide(
            out,
            np.array(indptr, dtype=np.int64),
            np.array(ids, dtype=np.int32),
            np.array(weights, dtype=np.float32),
        )

    def bounds(self, side: Side | None) -> tuple[list[int], list[int]]:
        """First feature row and end row of each field of a side, in kernel order."""
        order = self._orders[side]
        return self.offsets[order].tolist(), self.offsets[[i + 1 for i in order]].tolist()

    def signed(self, side: Side | None) -> list[bool]:
        """Which fields of a side, in kernel order, have values x of any sign."""
        return [self.fields[i].kind == "dense" for i in self._orders[side]]

    def _kernel_order(self, side: str | None) -> list[int]:
        of_side = [i for i, f in enumerate(self.fields) if side in (None, f.side)]
        return sorted(of_side, key=lambda i: self.fields[i].weighted)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every field's table as named arrays (``<field>.slots`` and so on), for ``vocabulary.safetensors``."""
        return {k: a for f in self.fields for k, a in self.tables[f.name].arrays(f.name).items()}

    @classmethod
    def from_arrays(cls, fields: Sequence[FieldSpec], arrays: Mapping[str, npt.NDArray[np.generic]]) -> FieldEncoder:
        """The encoder of ``arrays``; call ``verify`` before compiled code reads the tables."""
        return cls(fields, {f.name: StringTable.from_arrays(f.name, arrays, FIRST_KNOWN) for f in fields})

    def verify(self) -> None:
        """Verify every table; ``ArtefactError`` names the field."""
        for name, table in self.tables.items():
            table.verify(name)


def standardised(spec: FieldSpec, value: Any) -> float:
    """Value x of a dense field: (number - centre) / scale; ``EncodingError`` beyond +-``MAX_WEIGHT``."""
    x = (_number(spec.name, value) - spec.centre) / spec.scale
    if not abs(x) <= MAX_WEIGHT:
        least, most = (spec.centre + sign * MAX_WEIGHT * spec.scale for sign in (-1, 1))
        raise EncodingError(spec.name, f"expected a number from {least:g} to {most:g}, found {value!r}"[:200])
    return x


def value_key(spec: FieldSpec, value: Any) -> str | None:
    """The string under which a raw value is looked up; ``None`` for a missing one."""
    if value is None or value == "":
        return None
    if spec.kind == "numeric":
        return bin_key(spec, _number(spec.name, value))
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if -(10**32) < value < 10**32:
            return str(value)
        raise EncodingError(spec.name, "expected an integer of at most 32 digits; write a longer one as a string")
    raise EncodingError(spec.name, f"expected a string or an integer, found {_json_type(value)}")


def bin_key(spec: FieldSpec, x: float) -> str:
    """Bin of a finite number: ``floor(ln(x)^2)`` for x > 2 and ``floor(x)`` below (section 5.1, after the Criteo
    Challenge's winners), or the index among the quantile edges."""
    if spec.binning == "quantile":
        return str(bisect_right(spec.edges, x))
    return f"ln2:{math.floor(math.log(x) ** 2)}" if x > 2 else str(math.floor(x))


def bin_groups(spec: FieldSpec, numbers: npt.NDArray[np.float64]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Distinct ``bin_key`` of finite ``numbers`` (ascending numbers) and int64 [n] codes into them.

    Numbers are grouped by a vectorised bin, and the first of each group asks ``bin_key``. Where the vectorised bin may
    differ (ln(x)^2 within 1e-6 of an edge, numbers too large for exact integers) each number is a group of its own.
    """
    distinct, codes = np.unique(numbers, return_inverse=True)
    if spec.binning == "quantile":
        bins = np.searchsorted(np.array(spec.edges), distinct, side="right").astype(np.float64)
        alone = np.zeros(len(distinct), dtype=bool)
    else:
        squares = np.log(np.maximum(distinct, 2.0)) ** 2
        alone = np.where(distinct > 2, np.abs(squares - np.rint(squares)) < 1e-6, np.abs(distinct) > 2**50)
        bins = np.where(distinct > 2, np.floor(squares) + 2**51, np.floor(distinct))
    starts = np.ones(len(distinct), dtype=bool)
    starts[1:] = (bins[1:] != bins[:-1]) | alone[1:] | alone[:-1]
    keys: dict[str, int] = {}
    of_group = [keys.setdefault(bin_key(spec, x), len(keys)) for x in distinct[starts].tolist()]
    group = np.cumsum(starts) - 1
    return list(keys), np.array(of_group, dtype=np.int64)[group[codes]] if len(codes) else codes.astype(np.int64)


def _number(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise EncodingError(field, f"expected a number, found {_json_type(value)}")
    try:
        if isinstance(value, str) and "_" in value:
            raise ValueError
        x = float(value)
    except (ValueError, OverflowError):
        raise EncodingError(field, f"expected a number, found {str(value)[:40]!r}") from None
    if not math.isfinite(x):
        raise EncodingError(field, f"expected a finite number, found {x}")
    return x


def _weight(field: str, key: str, weight: Any) -> float:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 <= weight <= MAX_WEIGHT:  # NaN fails the comparison too
        raise EncodingError(field, f"expected a weight from 0 to {MAX_WEIGHT:g} for {key[:40]!r}, found {weight!r}")
    return float(weight)


def _json_type(value: Any) -> str:
    named = {bool: "a boolean", dict: "an object", list: "a list", tuple: "a list", float: "a fraction"}
    return named.get(type(value), type(value).__name__)
