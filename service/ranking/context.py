"""Raw context -> encoded context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide
from models_export.errors import EncodingError
from models_export.fields import UNKNOWN, FieldEncoder
from service.kernels.pending import new_pending
from service.kernels.scan_context import OK, context_hash, scan_context
from service.kernels.scan_values import TOO_MANY
from service.ranking.field_tables import FieldTables
from service.ranking.json_values import Raw, as_bytes, decode, is_raw, json_type
from service.ranking.limits import Limits
from service.ranking_errors import InvalidField, InvalidSlate, LimitExceeded

I32 = npt.NDArray[np.int32]
_NO_INDPTR = np.zeros(1, dtype=np.int64)
_NO_PLACES = np.zeros(0, dtype=np.int64)
_NO_ROWS = np.zeros(0, dtype=np.int32)
_NO_WEIGHTS = np.zeros(0, dtype=np.float32)


@dataclass(eq=False, slots=True)
class Context:
    """An encoded context: one ``EncodedSide`` row, a 64-bit ``hash`` of it, and how many values of which field the
    model has never seen."""

    encoded: EncodedSide
    hash: int
    unknown: Mapping[str, int]


def check_values(name: str, value: Any, limits: Limits) -> None:
    """Refuse a value list that is too long."""
    if isinstance(value, list | tuple | dict) and len(value) > limits.max_values_per_field:
        raise LimitExceeded(f"{len(value)} values; at most {limits.max_values_per_field} are allowed", name)


def check_row(row: Mapping[str, Any], limits: Limits) -> None:
    """Refuse a row with a value list that is too long."""
    for name, value in row.items():
        check_values(name, value, limits)


class ContextEncoder:
    """Encodes contexts of one model: straight from JSON text where it is usual, else by ``FieldEncoder``."""

    def __init__(self, encoder: FieldEncoder, limits: Limits) -> None:
        self._encoder = encoder
        self._limits = limits
        self.tables = FieldTables(encoder, "context")
        self._names = [spec.name for spec in self.tables.fields]

    def encode(self, context: Raw | Mapping[str, Any]) -> Context:
        """Encode JSON text or a decoded mapping. Raises ``InvalidField``, ``InvalidSlate``, ``LimitExceeded``,
        ``NotUtf8``."""
        if not is_raw(context):
            return self.encode_mapping(context)
        found = self._scan(context)
        if found is not None:
            return found
        decoded = decode(context, "context")
        found = self._scan(msgspec.json.encode(decoded))  # without escapes, repeated names
        return found if found is not None else self.encode_mapping(decoded)

    def _scan(self, raw: Raw) -> Context | None:
        """The compiled path; ``None`` for what it leaves aside."""
        tables = self.tables
        data = as_bytes(raw)
        rows = np.empty((1, tables.n_single), dtype=np.int32)
        unknown = np.empty(len(self._names), dtype=np.int32)
        if tables.n_multi:
            capacity = len(data) // 2 + tables.n_multi + 2
            indptr = np.empty(tables.n_multi + 1, dtype=np.int64)
            multi_rows, pool_rows = np.empty((2, capacity), dtype=np.int32)
            weights, pool_weights = np.empty((2, capacity), dtype=np.float32)
            starts, counts = np.empty((2, tables.n_multi), dtype=np.int64)
            scratch = new_pending(len(data))
        else:
            indptr = _NO_INDPTR
            multi_rows = pool_rows = _NO_ROWS
            weights = pool_weights = _NO_WEIGHTS
            starts = counts = _NO_PLACES
            scratch = new_pending(0)
        most = self._limits.max_values_per_field
        work = starts, counts, pool_rows, pool_weights, scratch
        status, count, n_unknown, code = scan_context(
            data, tables.array, most, rows, indptr, multi_rows, weights, unknown, *work
        )
        if status == TOO_MANY:
            raise LimitExceeded(f"more than {most} values in one field", self._names[count])
        if status != OK:
            return None
        if tables.n_multi:
            multi_rows, weights = multi_rows[:count], weights[:count]
        unknown_values = {} if n_unknown == 0 else self._count(unknown)
        return Context(EncodedSide(rows, indptr, multi_rows, weights), code, unknown_values)

    def _count(self, unknown: I32) -> dict[str, int]:
        return {name: n for name, n in zip(self._names, unknown.tolist(), strict=True) if n}

    def encode_mapping(self, context: Any) -> Context:
        """The exact path, for a decoded context."""
        if not isinstance(context, Mapping):
            raise InvalidSlate(f"context: expected an object, found {json_type(context)}", "context")
        check_row(context, self._limits)
        try:
            side = self._encoder.encode_side("context", [context])
            unknown = {
                name: n
                for name, value in context.items()
                if (n := self._encoder.encode_value(name, value)[0].count(UNKNOWN))
            }
        except EncodingError as error:
            raise InvalidField(error.detail, error.field) from None
        code = context_hash(side.rows, side.multi_indptr, side.multi_rows, side.multi_weights)
        return Context(side, code, unknown)
