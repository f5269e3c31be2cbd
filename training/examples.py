"""Chunks of a raw log -> labelled examples: one column per model field, bad labels, numbers and times rejected.

Both passes of ``prepare`` read the log through ``ExampleReader``, so both see the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models_export.fields import MAX_WEIGHT
from training.cell_values import bad_weights, check_type, read_label, read_numbers
from training.errors import UsageError, listed
from training.raw_log import Chunk, RawLog, Rejected
from training.spec_rules import FieldRule, Spec
from training.timestamps import part_of_time, read_times

I64 = npt.NDArray[np.int64]


@dataclass
class Examples:
    """``n`` clean rows. ``columns``: field name -> arrow array (string or integer, list or map for multi-valued
    fields, float64 with nulls for numeric and dense ones); ``label`` float32 [n]; ``times`` int64 [n] microseconds
    since 1970 UTC (None if the log has none); ``user``: the column of a by-user split; ``chunk``: row and
    line numbers."""

    chunk: Chunk
    columns: dict[str, pa.Array]
    label: npt.NDArray[np.float32]
    times: I64 | None
    user: pa.Array | None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, field: str, keep: npt.NDArray[np.bool_]) -> pa.Array:
        """The field's column where ``keep`` is true."""
        return self.columns[field] if keep.all() else self.columns[field].filter(pa.array(keep))


class ExampleReader:
    """Reads ``log`` as ``spec`` says. ``fields``: the spec's fields without the optional ones whose column the log
    lacks (those are ``dropped``), context fields first."""

    def __init__(self, spec: Spec, log: RawLog) -> None:
        self.spec, self.log = spec, log
        time = spec.time.column if spec.time else None
        self.has_time = spec.time is not None and spec.time.column in log.columns
        self.dropped = [f.name for f in spec.fields if f.optional and not self._there(f)]
        kept = [f for f in spec.fields if f.name not in self.dropped]
        self.fields = tuple(sorted(kept, key=lambda f: f.side != "context"))
        if not self.fields:
            raise UsageError(f"spec {spec.name!r}: expected a field whose column the log has, found none")
        for field in self.fields:
            self._need(time if field.derive else field.column, f"field {field.name!r}")
        self._need(spec.label.column, "label")
        if spec.split.kind == "temporal":
            self._need(time, "split 'temporal'")
        self._need(spec.split.column, "split 'by_user'")
        if spec.items and not log.own_items:
            self._need(spec.items.title, "items title")

    def _there(self, field: FieldRule) -> bool:
        return self.has_time if field.derive else field.column in self.log.columns

    def _need(self, column: str | None, what: str) -> None:
        if column is not None and column not in self.log.columns:
            raise UsageError(
                f"spec {self.spec.name!r}: {what}: expected a column {column!r} in {self.log.paths[0]}, "
                f"found {listed(self.log.columns)}"
            )

    @property
    def columns(self) -> list[str]:
        """Names of the log's columns that are read."""
        wanted = [f.column for f in self.fields if f.derive is None]
        if self.spec.time and self.has_time and (self.spec.split.kind == "temporal" or self._derives()):
            wanted.append(self.spec.time.column)
        if self.spec.split.column:
            wanted.append(self.spec.split.column)
        title = self.spec.items.title if self.spec.items else None
        if title and not self.log.own_items:
            wanted.append(title)
        if self.spec.label.column:
            wanted.append(self.spec.label.column)
        return list(dict.fromkeys(wanted))

    def _derives(self) -> bool:
        return any(f.derive for f in self.fields)

    def __call__(self, rejected: Rejected) -> Iterator[Examples]:
        """Stream the clean rows; refused ones go to ``rejected``."""
        for chunk in self.log.chunks(self.columns, rejected):
            yield self._clean(chunk, rejected)

    def _clean(self, chunk: Chunk, rejected: Rejected) -> Examples:
        spec = self.spec
        label, bad = np.ones(len(chunk), dtype=np.float32), np.zeros(len(chunk), dtype=bool)
        column = spec.label.column
        if column is not None:
            label, bad = read_label(chunk.columns[column], spec)
            reason = f"label {column!r} not {_label_values(spec)}"
            rejected.add(reason, chunk.file, chunk.lines[bad], _first(chunk, column, bad))
        columns = {f.name: chunk.columns[f.column] for f in self.fields if f.derive is None}
        for field in self.fields:
            if field.kind in ("numeric", "dense"):
                numbers, wrong = read_numbers(columns[field.name], field)
                wrong &= ~bad
                found = _first(chunk, field.column, wrong)
                rejected.add(f"{field.column!r} not a finite number", chunk.file, chunk.lines[wrong], found)
                columns[field.name] = numbers
                bad |= wrong
            elif field.derive is None:
                columns[field.name] = check_type(columns[field.name], field)
                if pa.types.is_map(columns[field.name].type):
                    wrong = bad_weights(columns[field.name]) & ~bad
                    reason = f"a weight of {field.column!r} outside 0 to {MAX_WEIGHT:g}"
                    rejected.add(reason, chunk.file, chunk.lines[wrong], _first(chunk, field.column, wrong))
                    bad |= wrong
        times = None
        if spec.time and spec.time.column in chunk.columns and spec.time.column in self.columns:
            times, wrong = read_times(chunk.columns[spec.time.column], spec.time)
            wrong &= ~bad
            found = _first(chunk, spec.time.column, wrong)
            rejected.add(f"time {spec.time.column!r} not {spec.time.format}", chunk.file, chunk.lines[wrong], found)
            bad |= wrong
            for field in self.fields:
                if field.derive:
                    columns[field.name] = part_of_time(times, field.derive)
        user = chunk.columns[spec.split.column] if spec.split.column else None
        if not bad.any():
            return Examples(chunk, columns, label, times, user)
        mask = pa.array(~bad)
        columns = {n: c.filter(mask) for n, c in columns.items()}
        rest = (label[~bad], None if times is None else times[~bad], None if user is None else user.filter(mask))
        return Examples(chunk.filter(~bad), columns, *rest)


def _first(chunk: Chunk, column: str, bad: npt.NDArray[np.bool_]) -> object:
    at = np.flatnonzero(bad)
    return chunk.columns[column][int(at[0])].as_py() if len(at) else None


def _label_values(spec: Spec) -> str:
    return "a finite number" if spec.label.kind == "rating" else "0 or 1 (or -1 and 1)"
