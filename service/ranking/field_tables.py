"""The fields of one side as compiled scanners read them: table addresses, kinds, places, edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models_export.fields import UNKNOWN, FieldEncoder
from models_export.manifest import FieldSpec, Side
from models_export.string_table import StringTable
from service.kernels import pending as layout
from service.kernels.scan_values import CATEGORICAL, DENSE, LN2, MULTI, QUANTILE

_RECORD_HEADER = 8  # bytes of a string table's record before the string


class FieldTables:
    """``array`` int64 [n_fields + 1, TABLE_WIDTH] for ``service.kernels.scan_fields``: row 0 is the table of the field
    names, row ``1 + j`` the ``j``-th field of the side in manifest order.

    It holds addresses of the arrays that this object keeps alive.
    """

    def __init__(self, encoder: FieldEncoder, side: Side) -> None:
        self.indices = [i for i, spec in enumerate(encoder.fields) if spec.side == side]
        self.fields = [encoder.fields[i] for i in self.indices]
        self.offsets = [int(encoder.offsets[i]) for i in self.indices]
        self.position = {spec.name: j for j, spec in enumerate(self.fields)}
        self.n_multi = sum(spec.weighted for spec in self.fields)
        self.n_single = len(self.fields) - self.n_multi
        self.places = places(self.fields)
        self._names = StringTable.build([spec.name for spec in self.fields], 0)
        self._edges = [_numbers(spec) for spec in self.fields]
        self._tables = [encoder.tables[spec.name] for spec in self.fields]
        self.array = np.zeros((len(self.fields) + 1, layout.TABLE_WIDTH), dtype=np.int64)
        for row, table in enumerate([self._names, *self._tables]):
            _fill_table(self.array[row], table)
        for j, spec in enumerate(self.fields):
            row = self.array[j + 1]
            row[layout.KIND] = _kind(spec)
            row[layout.OFFSET] = row[layout.EMPTY_ROW] = self.offsets[j]
            row[layout.UNKNOWN_ROW] = self.offsets[j] + UNKNOWN
            row[layout.PLACE] = self.places[j]
            row[layout.EDGES] = self._edges[j].ctypes.data
            row[layout.N_EDGES] = len(self._edges[j])
            row[layout.POSITION] = j
            row[layout.NAME] = self._names.records.ctypes.data + int(self._names.offsets[j]) + _RECORD_HEADER
            row[layout.NAME_LENGTH] = len(spec.name.encode())
        self.missing_single = self._missing(multi=False)
        self.missing_multi = self._missing(multi=True)

    def _missing(self, multi: bool) -> npt.NDArray[np.int32]:
        """Feature rows of the missing value (id 0) of the single-valued fields or of those with lists, by place."""
        rows = [o for spec, o in zip(self.fields, self.offsets, strict=True) if spec.weighted == multi]
        return np.array(rows, dtype=np.int32)


def places(fields: list[FieldSpec]) -> list[int]:
    """Place of each field among the single-valued fields of its side or among those with lists of values."""
    seen = {False: 0, True: 0}
    out = []
    for spec in fields:
        multi = spec.weighted
        out.append(seen[multi])
        seen[multi] += 1
    return out


def catalogue_table(ids: StringTable) -> npt.NDArray[np.int64]:
    """int64 [1, TABLE_WIDTH] for ``service.kernels.scan_ids``: catalogue ids -> indices, -1 for unknown ones. Keep the
    table alive."""
    array = np.zeros((1, layout.TABLE_WIDTH), dtype=np.int64)
    _fill_table(array[0], ids)
    array[0, [layout.EMPTY_ROW, layout.UNKNOWN_ROW]] = -1
    return array


def _fill_table(row: npt.NDArray[np.int64], table: StringTable) -> None:
    """Addresses of a verified table."""
    row[layout.SLOTS] = table.slots.ctypes.data
    row[layout.MASK] = len(table.slots) - 1
    row[layout.RECORDS] = table.records.ctypes.data


def _numbers(spec: FieldSpec) -> npt.NDArray[np.float64]:
    """Edges of a numeric field, centre and scale of a dense one."""
    return np.array((spec.centre, spec.scale) if spec.kind == "dense" else spec.edges, dtype=np.float64)


def _kind(spec: FieldSpec) -> int:
    if spec.kind == "dense":
        return DENSE
    if spec.kind == "numeric":
        return LN2 if spec.binning == "ln2" else QUANTILE
    return MULTI if spec.kind == "multi" else CATEGORICAL
