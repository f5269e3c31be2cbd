"""Inline items -> an encoded slate: values that are given over those of the catalogue over missing ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide
from models_export.items import Items
from models_export.string_table import StringTable
from service.kernels.slate import fill_rows, merge_multi
from service.ranking.field_tables import FieldTables
from service.ranking.given import Given
from service.ranking.ranked import IdSource

I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Slate:
    """Encoded candidates, their ids, and how many values of which field the model has never seen."""

    side: EncodedSide
    ids: IdSource
    unknown: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.side)


class SlateFiller:
    """Completes given values to whole encoded items."""

    def __init__(self, tables: FieldTables, items: Items | None, item_id_field: str | None) -> None:
        self._tables = tables
        self._items = items if items is not None else _no_items(tables)
        self._id_field = None if item_id_field is None else tables.position[item_id_field]

    def fill(self, given: Given) -> Slate:
        """The whole slate. The item id field's value is the item's id unless it is given."""
        tables = self._tables
        if self._id_field is not None:
            self._give_ids(given, self._id_field)
        side = self._items.side
        if not given.complete:
            fill_rows(given.index, side.rows, tables.missing_single, given.rows)
        if tables.n_multi == 0 or len(given.rows) == 0:
            return Slate(EncodedSide.without_multi(given.rows), given.ids, given.unknown)
        parts = merge_multi(
            given.index,
            given.starts,
            given.counts,
            given.pool_rows,
            given.pool_weights,
            side.multi_indptr,
            side.multi_rows,
            side.multi_weights,
            tables.missing_multi,
        )
        return Slate(EncodedSide(given.rows, *parts), given.ids, given.unknown)

    def _give_ids(self, given: Given, field: int) -> None:
        """Items that the catalogue does not know still have an id: encode it, as a value like any other."""
        place = self._tables.places[field]
        spec = self._tables.fields[field]
        absent = (given.starts if spec.weighted else given.rows)[:, place] < 0
        which = np.flatnonzero(absent & (given.index < 0)).astype(np.int32)
        if len(which):
            given.give(field, which, given.ids.strings(which))


def _no_items(tables: FieldTables) -> Items:
    """A catalogue that knows no item."""
    rows = np.zeros((0, tables.n_single), dtype=np.int32)
    return Items(StringTable.build([], 0), EncodedSide.without_multi(rows))
