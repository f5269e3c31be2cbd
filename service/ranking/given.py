"""The values that a request gives for its items, encoded; -1 where it gives none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models_export.errors import EncodingError
from models_export.fields import UNKNOWN, FieldEncoder
from service.ranking.context import check_values
from service.ranking.field_tables import FieldTables
from service.ranking.limits import Limits
from service.ranking.ranked import IdSource
from service.ranking_errors import InvalidField

I32 = npt.NDArray[np.int32]


class Given:
    """``rows`` int32 [n, n_single] feature rows or -1; for multi-valued fields ``starts`` (or -1) and ``counts`` int64
    [n, n_multi] into the pool of entries. ``index`` int32 [n]: catalogue index of each item, -1 where unknown."""

    def __init__(
        self,
        encoder: FieldEncoder,
        tables: FieldTables,
        limits: Limits,
        ids: IdSource,
        index: I32,
        rows: I32 | None = None,
        starts: npt.NDArray[np.int64] | None = None,
        counts: npt.NDArray[np.int64] | None = None,
    ) -> None:
        n = len(index)
        self._encoder = encoder
        self._tables = tables
        self._limits = limits
        self.ids = ids
        self.index = index
        self.rows = np.full((n, tables.n_single), -1, dtype=np.int32) if rows is None else rows
        self.starts = np.full((n, tables.n_multi), -1, dtype=np.int64) if starts is None else starts
        self.counts = np.zeros((n, tables.n_multi), dtype=np.int64) if counts is None else counts
        self.pool_rows = np.zeros(0, dtype=np.int32)
        self.pool_weights = np.zeros(0, dtype=np.float32)
        self.unknown: dict[str, int] = {}
        self.complete = False  # every single value is given

    def __len__(self) -> int:
        return len(self.index)

    def count_unknown(self, field: int, count: int) -> None:
        """Count values of a field that the model has never seen."""
        if count:
            name = self._tables.fields[field].name
            self.unknown[name] = self.unknown.get(name, 0) + count

    def give(self, field: int, which: I32, values: Sequence[Any]) -> None:
        """The exact path: give decoded ``values`` of a field to the items ``which`` (positions)."""
        spec = self._tables.fields[field]
        place, offset = self._tables.places[field], self._tables.offsets[field]
        try:
            if not spec.weighted:
                ids = self._encoder.encode_strings(spec, values)
                self.count_unknown(field, int((ids == UNKNOWN).sum()))
                self.rows[which, place] = ids + np.int32(offset)
                return
            rows: list[int] = []
            weights: list[float] = []
            for i, value in zip(which.tolist(), values, strict=True):
                check_values(spec.name, value, self._limits)
                some, some_weights = self._encoder.encode_value(spec, value)
                self.starts[i, place] = len(self.pool_rows) + len(rows)
                self.counts[i, place] = len(some)
                self.count_unknown(field, some.count(UNKNOWN))
                rows += [offset + j for j in some]
                weights += some_weights
        except EncodingError as error:
            raise InvalidField(error.detail, error.field) from None
        self.pool_rows = np.concatenate([self.pool_rows, np.array(rows, dtype=np.int32)])
        self.pool_weights = np.concatenate([self.pool_weights, np.array(weights, dtype=np.float32)])
