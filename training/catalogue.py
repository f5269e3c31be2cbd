"""The items a model can rank: from the log's file of items, else from the log itself (all splits, last seen fields).

A catalogue holds no labels, and an item that only test rows have is ranked as the unknown item it is for the model; so
taking items from all splits leaks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models_export.fields import FieldEncoder
from models_export.items import Items
from models_export.string_table import StringTable
from training.cell_values import check_type, read_numbers
from training.column_encoding import encode_columns
from training.errors import UsageError, listed
from training.examples import Examples
from training.spec_rules import FieldRule, ItemsRule

_MERGE_AT = 1 << 18
_ID, _TITLE = "#id", "#title"  # no field can be called so


class Catalogue:
    """Collects items; memory: one row of item fields per distinct item, at most twice."""

    def __init__(self, rule: ItemsRule, fields: Sequence[FieldRule]) -> None:
        self.rule = rule
        self.item_fields = [f for f in fields if f.side == "item"]
        self.fields = [f for f in self.item_fields if f.in_catalogue and f.derive is None]
        self.id_field = next(f for f in self.item_fields if f.name == rule.id_field)
        self.parts: list[pa.Table] = []
        self.waiting = self.merged = 0
        self.repeated = 0

    def add_examples(self, examples: Examples) -> None:
        """Items of log rows; a later row of an item replaces an earlier one."""
        title = examples.chunk.columns.get(self.rule.title) if self.rule.title else None
        self._add({f.name: examples.columns[f.name] for f in self.fields}, title)

    def add_table(self, table: pa.Table) -> None:
        """Items of the log's own file; fields whose column it lacks are missing, later repeats of an id are counted."""
        if self.id_field.column not in table.column_names:
            raise UsageError(
                f"items: expected a column {self.id_field.column!r} in the file of items, found "
                f"{listed(table.column_names)}"
            )
        columns = {}
        for field in self.fields:
            if field.column in table.column_names:
                column = table.column(field.column).combine_chunks()
                columns[field.name] = self._typed(column, field)
        title = self.rule.title
        if title and title not in table.column_names:
            raise UsageError(f"items: expected a title column {title!r}, found {listed(table.column_names)}")
        before = table.num_rows
        self._add(columns, table.column(title).combine_chunks() if title else None)
        self._merge()
        self.repeated = before - self.merged

    def _typed(self, column: pa.Array, field: FieldRule) -> pa.Array:
        if field.kind not in ("numeric", "dense"):
            return check_type(column, field)
        numbers, bad = read_numbers(column, field)
        if bad.any():
            found = column[int(np.argmax(bad))].as_py()
            raise UsageError(f"items: column {field.column!r}: expected a finite number, found {found!r}")
        return numbers

    def _add(self, columns: dict[str, pa.Array], title: pa.Array | None) -> None:
        ids = pc.cast(columns[self.rule.id_field], pa.string())
        content = {_ID: ids, **{n: _plain(c) for n, c in columns.items()}}
        if self.rule.title:
            content[_TITLE] = pa.nulls(len(ids), pa.string()) if title is None else pc.cast(title, pa.string())
        table = pa.table(content)
        self.parts.append(_last_of_each(table.filter(pc.not_equal(ids, "").fill_null(False))))
        self.waiting += self.parts[-1].num_rows
        if self.waiting > max(_MERGE_AT, 2 * self.merged):
            self._merge()

    def _merge(self) -> None:
        whole = _last_of_each(pa.concat_tables(self.parts).combine_chunks())
        self.parts, self.waiting, self.merged = [whole], whole.num_rows, whole.num_rows

    def build(self, encoder: FieldEncoder) -> tuple[Items, dict[str, str]]:
        """The encoded catalogue in order of first appearance, and the display names by item id."""
        self._merge()
        table = self.parts[0]
        specs = [f for f in encoder.fields if f.side == "item"]
        columns = {n: table.column(n).combine_chunks() for n in table.column_names if n not in (_ID, _TITLE)}
        ids: list[str] = table.column(_ID).to_pylist()
        if not ids:
            raise UsageError(f"items: expected item ids in column {self.id_field.column!r}, found none")
        side = encode_columns(encoder, specs, columns, len(ids))
        titles = table.column(_TITLE).to_pylist() if self.rule.title else []
        named = {i: t for i, t in zip(ids, titles, strict=False) if t}
        return Items(StringTable.build(ids, 0), side), named


def _plain(column: pa.Array) -> pa.Array:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _last_of_each(table: pa.Table) -> pa.Table:
    """The last row of each id, in order of the ids' first appearance."""
    ids = table.column(_ID).combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy(zero_copy_only=False)
    last = np.zeros(len(ids.dictionary), dtype=np.int64)
    np.maximum.at(last, codes, np.arange(len(codes)))
    return table.take(pa.array(last))
