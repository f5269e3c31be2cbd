"""Positive (context, item) pairs of a prepared log and the catalogue they come from, as the pairwise trainers take
them.

An item is its row in the catalogue, and what it is made of are the catalogue's fields: what is trained is what
``/rank`` over the whole catalogue serves (a field that is not in the catalogue, such as a position, is missing for
all). A user is a value of the spec's ``[users]`` field. Rows with label 0 are no positives and are left out; of
implicit logs every row is one. Users and items that training does not know have no identity left after encoding: such
items are no candidates, and are missed where a user had them; such users are not ranked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_export.encoded import EncodedSide
from models_export.manifest import FieldSpec
from training.errors import UsageError
from training.prepared import Prepared

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
UNKNOWN = -1


@dataclass(frozen=True)
class FeatureLists:
    """Lists of features in one pair of arrays: list i has the feature rows ``rows[indptr[i]:indptr[i + 1]]`` (int32)
    with the values ``x`` (float32)."""

    indptr: I64
    rows: I32
    x: F32

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def widest(self) -> int:
        """Length of the longest list."""
        return int(np.diff(self.indptr).max(initial=0))

    def take(self, index: NDArray[Any]) -> FeatureLists:
        """The lists ``index``, in that order."""
        length = np.diff(self.indptr)[index]
        indptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        source = np.repeat(self.indptr[index] - indptr[:-1], length) + np.arange(indptr[-1])
        return FeatureLists(indptr, self.rows[source], self.x[source])

    @classmethod
    def of(cls, side: EncodedSide) -> FeatureLists:
        """All features of each encoded row: those of the single-valued fields with the value 1, then the others."""
        n, n_single, n_multi = len(side), side.rows.shape[1], side.n_multi
        first = np.asarray(side.multi_indptr[:: n_multi or 1])[: n + 1] if n_multi else np.zeros(n + 1, dtype=np.int64)
        indptr = first - first[0] + np.arange(n + 1, dtype=np.int64) * n_single
        rows, x = np.empty(indptr[-1], dtype=np.int32), np.ones(indptr[-1], dtype=np.float32)
        single = indptr[:-1, None] + np.arange(n_single)
        rows[single] = side.rows
        if n_multi:
            rest = np.ones(len(rows), dtype=bool)
            rest[single] = False
            rows[rest], x[rest] = side.multi_rows, side.multi_weights
        return cls(indptr, rows, x)


@dataclass(frozen=True)
class UserItems:
    """Which items belong to which user: ``items[indptr[u]:indptr[u + 1]]``, ascending, each once (int32, int64 [users
    + 1])."""

    indptr: I64
    items: I32

    @classmethod
    def of(cls, n_users: int, n_items: int, user: I32, item: I32) -> UserItems:
        """From pairs in any order; pairs with an unknown user or item are left out."""
        known = (user >= 0) & (item >= 0)
        keys = np.unique(user[known].astype(np.int64) * n_items + item[known])
        indptr = np.searchsorted(keys, np.arange(n_users + 1, dtype=np.int64) * n_items)
        return cls(indptr.astype(np.int64), (keys % n_items).astype(np.int32))


@dataclass(frozen=True)
class Pairs:
    """The positives of one split: ``user`` and ``item`` int32 [n] (UNKNOWN = -1), ``context`` their context
    features."""

    user: I32
    item: I32
    context: FeatureLists

    def __len__(self) -> int:
        return len(self.user)

    def known(self) -> Pairs:
        """The pairs of known users and items."""
        keep = np.flatnonzero((self.user >= 0) & (self.item >= 0))
        return self if len(keep) == len(self) else Pairs(self.user[keep], self.item[keep], self.context.take(keep))


class Interactions:
    """Positives and catalogue of ``prepared``. ``items``: features of each catalogue item; ``candidates`` int32: the
    items that training knows, ascending; ``n_users``. UsageError for data that have no positives, users or
    catalogue."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        if prepared.task == "rating":
            raise _refusal(prepared, "positives ([label] of kind implicit or binary)", "ratings")
        if prepared.items is None or prepared.item_id_field is None:
            raise _refusal(prepared, "a catalogue ([items] in the spec)", "none")
        user = prepared.user_id_field
        if user is None:
            raise _refusal(prepared, "a user field ([users] in the spec)", "none")
        specs = prepared.fields
        names = [f.name for f in specs]
        for name in (user, prepared.item_id_field):
            if specs[names.index(name)].min_count != 1:
                found = f"{specs[names.index(name)].min_count}: its rare values are one"
                raise _refusal(prepared, f"min_count 1 for {name!r}", found)
        self._user, self._item = names.index(user), names.index(prepared.item_id_field)
        offsets = prepared.encoder.offsets
        self._user_rows = (offsets[self._user] + 2, offsets[self._user] + specs[self._user].size)
        self._item_rows = (offsets[self._item] + 2, offsets[self._item] + specs[self._item].size)
        self.n_users = self._user_rows[1] - self._user_rows[0]
        self.items = FeatureLists.of(prepared.items.side)
        column = [i for i in range(len(specs)) if specs[i].side == "item" and not specs[i].weighted]
        id_row = prepared.items.side.rows[:, column.index(self._item)].astype(np.int64) - self._item_rows[0]
        self.candidates = np.flatnonzero(id_row >= 0).astype(np.int32)
        self._index_of = np.full(self._item_rows[1] - self._item_rows[0], UNKNOWN, dtype=np.int32)
        self._index_of[id_row[self.candidates]] = self.candidates

    def pairs(self, split: str) -> Pairs:
        """The positives of a split, in the log's order."""
        part = self.prepared.split(split)
        keep = np.flatnonzero(np.asarray(part.label) > 0.5)
        context = FeatureLists.of(side_of(part.encoded, self.prepared.fields, "context").take(keep))
        single = [i for i, f in enumerate(self.prepared.fields) if not f.weighted]
        user = part.encoded.rows[keep, single.index(self._user)].astype(np.int64) - self._user_rows[0]
        item = part.encoded.rows[keep, single.index(self._item)].astype(np.int64) - self._item_rows[0]
        index = np.where(item >= 0, self._index_of[np.maximum(item, 0)], UNKNOWN)
        return Pairs(np.maximum(user, UNKNOWN).astype(np.int32), index.astype(np.int32), context)

    def user_items(self, *splits: str) -> UserItems:
        """The known positives of each user in all of ``splits``."""
        found = [self.pairs(s) for s in splits]
        user, item = (np.concatenate([getattr(p, name) for p in found]) for name in ("user", "item"))
        return UserItems.of(self.n_users, len(self.items), user, item)


def side_of(encoded: Any, fields: tuple[FieldSpec, ...], side: str) -> EncodedSide:
    """One side's columns of rows that are encoded over both."""
    single = [f.side == side for f in fields if not f.weighted]
    multi = np.array([f.side == side for f in fields if f.weighted], dtype=bool)
    rows = np.ascontiguousarray(encoded.rows[:, np.flatnonzero(single)])
    if not multi.any():
        return EncodedSide.without_multi(rows)
    wanted = np.tile(multi, len(rows))
    length = np.diff(encoded.multi_indptr)
    values = np.repeat(wanted, length)
    indptr = np.concatenate([[0], np.cumsum(length[wanted])]).astype(np.int64)
    return EncodedSide(rows, indptr, encoded.multi_rows[values], encoded.multi_weights[values])


def _refusal(prepared: Prepared, expected: str, found: str) -> UsageError:
    return UsageError(f"{prepared.path}: pairwise training: expected {expected}, found {found}")
