"""Inline items of a request, by row or by column, read into ``Given``: compiled where usual, else exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models_export.fields import FieldEncoder
from models_export.string_table import StringTable
from service.kernels.pending import new_pending
from service.kernels.scan_ids import OK, TOO_MANY, scan_ids
from service.kernels.scan_items import scan_column, scan_rows
from service.ranking.field_tables import FieldTables, catalogue_table
from service.ranking.given import Given
from service.ranking.json_values import Raw, as_bytes, decode, is_raw, item_id, item_ids, json_type
from service.ranking.limits import Limits
from service.ranking.ranked import IdSource, ListedIds, RequestIds
from service.ranking_errors import InvalidField, InvalidSlate, LimitExceeded

I32 = npt.NDArray[np.int32]
_HEAD_BYTES = 4096
_SHORTEST_ID, _SHORTEST_ITEM = 2, 9  # bytes of `1,` and `{"id":1},`


class _Columns(msgspec.Struct, forbid_unknown_fields=True):
    ids: msgspec.Raw
    fields: dict[str, msgspec.Raw] = {}


class CatalogueLookUp:
    """Item ids -> catalogue indices (-1: not there), for a list or straight from JSON text."""

    def __init__(self, table: StringTable | None, limits: Limits) -> None:
        self.table = table if table is not None else StringTable.build([], 0)
        self.array = catalogue_table(self.table)
        self._limits = limits

    def resolve(self, ids: Raw | Sequence[object], member: str) -> tuple[I32, IdSource, int]:
        """(index int32 [n], the ids, how many are not in the catalogue)."""
        if not is_raw(ids):
            return self._resolve_list(item_ids(ids, member), member)
        found = self._scan(ids, member)
        if found is not None:
            return found
        decoded = item_ids(decode(ids, member), member)
        return self._resolve_list(decoded, member)

    def _scan(self, raw: Raw, member: str) -> tuple[I32, IdSource, int] | None:
        data = as_bytes(raw)
        limit = min(len(data) // _SHORTEST_ID + 1, self._limits.max_candidates)
        index = np.empty(limit, dtype=np.int32)
        spans = np.empty((limit, 2), dtype=np.int32)
        counter = np.empty(1, dtype=np.int32)
        status, count, unknown = scan_ids(data, self.array, index, spans, counter, new_pending(0))
        if status == OK:
            return index[:count], RequestIds(data, spans), unknown
        if status == TOO_MANY:
            self.refuse_count(member)
        return None

    def _resolve_list(self, ids: list[str], member: str) -> tuple[I32, IdSource, int]:
        if len(ids) > self._limits.max_candidates:
            self.refuse_count(member)
        index = self.table.get_many(ids)
        return index, ListedIds(ids), int((index < 0).sum())

    def refuse_count(self, member: str) -> None:
        """Raise ``LimitExceeded`` for too many candidates."""
        raise LimitExceeded(f"{member}: more than {self._limits.max_candidates} candidates", member)


class InlineItems:
    """Reads inline items of one model."""

    def __init__(self, encoder: FieldEncoder, tables: FieldTables, look_up: CatalogueLookUp, limits: Limits) -> None:
        self._encoder = encoder
        self._tables = tables
        self._look_up = look_up
        self._limits = limits

    # -- columns ------------------------------------------------------------------------------------------------------

    def columns(self, columns: Raw | Mapping[str, Any]) -> Given:
        """``{"ids": [..], "fields": {field: [value per item]}}``, as JSON text or decoded."""
        if is_raw(columns):
            parsed = decode(columns, "item_columns", _Columns)
            ids, fields = parsed.ids, parsed.fields
        else:
            ids, fields = _decoded_columns(columns)
        index, source, _ = self._look_up.resolve(ids, "item_columns.ids")
        given = Given(self._encoder, self._tables, self._limits, source, index)
        positions = [self._field(name) for name in fields]
        raw_multi = sum(
            len(memoryview(fields[name]))
            for name, field in zip(fields, positions, strict=True)
            if self._tables.fields[field].weighted and is_raw(fields[name])
        )
        if raw_multi:
            given.pool_rows = np.empty(raw_multi // 2 + 2 * len(fields), dtype=np.int32)
            given.pool_weights = np.empty(len(given.pool_rows), dtype=np.float32)
        filled = 0
        late = []
        for (name, values), field in zip(fields.items(), positions, strict=True):
            if is_raw(values):
                end = self._scan_column(given, field, values, filled)
                if end >= 0:
                    filled = end
                    continue
                values = decode(values, f"item_columns.fields.{name}")
            late.append((field, values))
        everyone = np.arange(len(given), dtype=np.int32)
        for field, values in late:
            name = self._tables.fields[field].name
            if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
                raise InvalidField(f"item_columns: expected a list, found {json_type(values)}", name)
            self._check_length(name, len(values), len(given))
            given.give(field, everyone, values)
        single = {field for field in positions if not self._tables.fields[field].weighted}
        given.complete = len(single) == self._tables.n_single
        return given

    def _scan_column(self, given: Given, field: int, raw: Raw, filled: int) -> int:
        """Read one column; entries of the pool in use after it, or -1 for what is left to the exact path."""
        unknown = np.zeros(len(self._tables.fields), dtype=np.int32)
        data = as_bytes(raw)
        status, count, end = scan_column(
            data,
            self._tables.array,
            field,
            self._limits.max_values_per_field,
            given.rows,
            given.starts,
            given.counts,
            given.pool_rows,
            given.pool_weights,
            filled,
            unknown,
            new_pending(len(data) if self._tables.fields[field].weighted else 0),
        )
        name = self._tables.fields[field].name
        if status == TOO_MANY:
            self._refuse_values(name)
        if status != OK:
            return -1
        self._check_length(name, count, len(given))
        given.count_unknown(field, int(unknown[field]))
        return int(end)

    # -- rows ---------------------------------------------------------------------------------------------------------

    def rows(self, items: Raw | Sequence[Any]) -> Given:
        """``[{"id": .., "fields": {field: value}}]``, as JSON text or decoded."""
        if is_raw(items):
            found = self._scan_rows(items)
            if found is not None:
                return found
            items = decode(items, "items")
        if isinstance(items, str | Mapping) or not isinstance(items, Sequence):
            raise InvalidSlate(f"items: expected a list, found {json_type(items)}", "items")
        if len(items) > self._limits.max_candidates:
            self._look_up.refuse_count("items")
        ids, by_field = self._transpose(items)
        index, source, _ = self._look_up.resolve(ids, "items")
        given = Given(self._encoder, self._tables, self._limits, source, index)
        for name, (which, values) in by_field.items():
            given.give(self._field(name), np.array(which, dtype=np.int32), values)
        return given

    def _scan_rows(self, raw: Raw) -> Given | None:
        data = as_bytes(raw)
        most = min(len(data) // _SHORTEST_ITEM + 1, self._limits.max_candidates)
        limit = min(_estimated_items(data), most)
        while True:
            status, number, given = self._scan_at_most(data, limit)
            if status != TOO_MANY or number >= 0 or limit == most:
                break
            limit = min(4 * limit, most)
        if status == TOO_MANY:
            if number < 0:
                self._look_up.refuse_count("items")
            self._refuse_values(self._tables.fields[number].name)
        return given if status == OK else None

    def _scan_at_most(self, data: npt.NDArray[np.uint8], limit: int) -> tuple[int, int, Given]:
        """Read up to ``limit`` items: status and number of ``scan_rows``, and what was read."""
        tables = self._tables
        index = np.empty(limit, dtype=np.int32)
        spans = np.empty((limit, 2), dtype=np.int32)
        rows = np.empty((limit, tables.n_single), dtype=np.int32)
        starts = np.empty((limit, tables.n_multi), dtype=np.int64)
        counts = np.empty((limit, tables.n_multi), dtype=np.int64)
        capacity = len(data) // 2 + 2 if tables.n_multi else 0
        pool_rows = np.empty(capacity, dtype=np.int32)
        pool_weights = np.empty(capacity, dtype=np.float32)
        unknown = np.zeros(len(tables.fields), dtype=np.int32)
        status, number = scan_rows(
            data,
            tables.array,
            *self._look_up.array[0, :3].tolist(),  # slots, mask, records
            self._limits.max_values_per_field,
            index,
            spans,
            rows,
            starts,
            counts,
            pool_rows,
            pool_weights,
            unknown,
            new_pending(len(data) if tables.n_multi else 0),
        )
        n = number if status == OK else 0
        ids = RequestIds(data, spans)
        parts = index[:n], rows[:n], starts[:n], counts[:n]
        given = Given(self._encoder, tables, self._limits, ids, *parts)
        given.pool_rows, given.pool_weights = pool_rows, pool_weights
        for field, count in enumerate(unknown.tolist()):
            given.count_unknown(field, count)
        return status, number, given

    @staticmethod
    def _transpose(items: Sequence[Any]) -> tuple[list[str], dict[str, tuple[list[int], list[Any]]]]:
        """Ids, and for each field that any item gives the positions and values of those items."""
        ids: list[str] = []
        by_field: dict[str, tuple[list[int], list[Any]]] = {}
        for i, item in enumerate(items):
            member = f"items[{i}]"
            if not isinstance(item, Mapping):
                raise InvalidSlate(f"{member}: expected an object, found {json_type(item)}", member)
            if "id" not in item:
                raise InvalidSlate(f"{member}: has no id", f"{member}.id")
            ids.append(item_id(item["id"], f"{member}.id"))
            extra = next((key for key in item if key not in ("id", "fields")), None)
            if extra is not None:
                raise InvalidSlate(f"{member}: unknown member {extra!r}; expected id and fields", f"{member}.{extra}")
            fields = item.get("fields", {})
            if not isinstance(fields, Mapping):
                raise InvalidSlate(
                    f"{member}.fields: expected an object, found {json_type(fields)}", f"{member}.fields"
                )
            for name, value in fields.items():
                which, values = by_field.setdefault(name, ([], []))
                which.append(i)
                values.append(value)
        return ids, by_field

    # -- checks -------------------------------------------------------------------------------------------------------

    def _field(self, name: str) -> int:
        """Position of an item field among those of its side."""
        if name not in self._tables.position:
            known = ", ".join(spec.name for spec in self._tables.fields)
            raise InvalidField(f"not an item field of this model; its item fields are {known}", name)
        return self._tables.position[name]

    def _check_length(self, name: str, found: int, expected: int) -> None:
        if found != expected:
            shown = f"more than {expected}" if found > expected else str(found)
            raise InvalidField(f"item_columns: expected {expected} values, one per id, found {shown}", name)

    def _refuse_values(self, name: str) -> None:
        raise LimitExceeded(f"more than {self._limits.max_values_per_field} values in one field", name)


def _estimated_items(data: npt.NDArray[np.uint8]) -> int:
    """A guess, mostly a little high, of how many items the text holds: memory is taken for so many at first."""
    head = data[:_HEAD_BYTES].tobytes()
    return head.count(b'"id"') * max(len(data), 1) * 5 // (max(len(head), 1) * 4) + 16


def _decoded_columns(columns: object) -> tuple[Any, Mapping[str, Any]]:
    if not isinstance(columns, Mapping) or "ids" not in columns or set(columns) - {"ids", "fields"}:
        raise InvalidSlate("item_columns: expected an object with ids and, if any, fields", "item_columns")
    fields = columns.get("fields", {})
    if not isinstance(fields, Mapping):
        raise InvalidSlate(f"item_columns.fields: expected an object, found {json_type(fields)}", "item_columns.fields")
    return columns["ids"], fields
