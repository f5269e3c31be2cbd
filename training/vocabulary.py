"""Counts the values of the training split, field by field, and fits the encoder on them.

Known values get ids from 2 in the order (count descending, value bytes ascending); values rarer than ``min_count``,
and all that only validation or test rows have, are id 1. Memory: the distinct training values of each field with their
counts, at most twice (while two sets of counts merge); it does not grow with the number of rows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models_export.fields import FIRST_KNOWN, FieldEncoder, bin_groups
from models_export.manifest import FieldSpec
from training.column_encoding import distinct_values, multi_parts
from training.errors import UsageError
from training.spec_rules import FieldRule
from training.spill import Spill

_MERGE_AT = 1 << 20


class ValueCounter:
    """Value (text) -> count."""

    def __init__(self) -> None:
        self.merged = _table(pa.array([], pa.large_string()), np.zeros(0, dtype=np.int64))
        self.pending: list[pa.Table] = []
        self.waiting = 0

    def add(self, values: pa.Array, counts: npt.NDArray[np.int64]) -> None:
        """Add ``counts[i]`` to ``values[i]`` (strings or integers, distinct); null and "" are missing, not values."""
        text = values.cast(pa.large_string())
        seen = pa.array(counts > 0)
        keep = pc.and_(seen, pc.not_equal(text, "").fill_null(False))
        self.pending.append(_table(text, counts).filter(keep))
        self.waiting += self.pending[-1].num_rows
        if self.waiting > max(_MERGE_AT, self.merged.num_rows):
            self._merge()

    def _merge(self) -> None:
        whole = pa.concat_tables([self.merged, *self.pending])
        summed = whole.group_by("value", use_threads=False).aggregate([("count", "sum")])
        self.merged = _table(summed.column("value").combine_chunks(), summed.column("count_sum").to_numpy())
        self.pending, self.waiting = [], 0

    def ordered(self, min_count: int) -> list[str]:
        """Values counted at least ``min_count`` times, most frequent first, equals by their bytes."""
        self._merge()
        frequent = self.merged.filter(pc.greater_equal(self.merged.column("count"), min_count))
        order = pc.sort_indices(frequent, sort_keys=[("count", "descending"), ("value", "ascending")])
        values: list[str] = frequent.column("value").take(order).to_pylist()
        return values


def _table(values: pa.Array, counts: npt.NDArray[np.int64]) -> pa.Table:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return pa.table({"value": values, "count": pa.array(counts, pa.int64())})


class Moments:
    """Mean and standard deviation of a stream of numbers (Chan, Golub, LeVeque: sums around the blocks' means)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, numbers: npt.NDArray[np.float64]) -> None:
        """Add a block."""
        n = len(numbers)
        if n:
            mean = float(numbers.mean())
            gap, total = mean - self.mean, self.count + n
            self.squares += float(((numbers - mean) ** 2).sum()) + gap * gap * self.count * n / total
            self.mean += gap * n / total
            self.count = total

    def fit(self, name: str) -> tuple[float, float]:
        """The mean and the standard deviation, 1 where all numbers are equal; ``UsageError`` without a number, or where
        they are too large for float64 squares."""
        if not self.count:
            raise UsageError(f"field {name!r}: expected numbers in the training split, found none")
        deviation = float(np.sqrt(self.squares / self.count))
        if not np.isfinite(self.mean + deviation):
            raise UsageError(f"field {name!r}: expected numbers that can be standardised, found some beyond 1e150")
        return self.mean, deviation or 1.0


class FieldCounts:
    """What one field needs from the training rows: counts of its values, its numbers where bins are quantiles, or their
    mean and standard deviation where it is dense. ``previous``: the field as an earlier log had it, whose edges or
    constants stay."""

    def __init__(self, rule: FieldRule, folder: Path, previous: FieldSpec | None = None) -> None:
        self.rule = rule
        self.counter = ValueCounter()
        edges = previous.edges if previous else ()
        constants = (previous.centre, previous.scale) if previous else (0.0, 1.0)
        self.spec = FieldSpec(
            rule.name, rule.side, rule.kind, FIRST_KNOWN, rule.binning, edges or _open(rule), rule.min_count, *constants
        )
        fit_edges = rule.binning == "quantile" and not edges
        self.spill = Spill(folder / f"{rule.name}.spill", np.float64) if fit_edges else None
        self.moments = Moments() if rule.standardise and previous is None else None

    def add(self, column: pa.Array) -> None:
        """Count the values of training rows."""
        if self.spill is not None:
            self.spill.append(column.drop_null().to_numpy(zero_copy_only=False))
        elif self.rule.kind == "dense":
            if self.moments is not None:
                self.moments.add(column.drop_null().to_numpy(zero_copy_only=False))
        elif self.rule.kind == "multi":
            self._count(multi_parts(column)[1])
        else:
            self._count(column)

    def _count(self, column: pa.Array) -> None:
        if self.rule.kind == "numeric":
            self._count_bins(column.drop_null().to_numpy(zero_copy_only=False))
        else:
            values, codes = distinct_values(column)
            self.counter.add(values, np.bincount(codes, minlength=len(values) + 1)[: len(values)])

    def _count_bins(self, numbers: npt.NDArray[np.float64]) -> None:
        keys, codes = bin_groups(self.spec, numbers)
        self.counter.add(pa.array(keys, pa.string()), np.bincount(codes, minlength=len(keys)))

    def fit(self) -> tuple[FieldSpec, list[str]]:
        """The field (quantile edges fitted) and its known values in id order."""
        if self.spill is not None:
            self.spec = replace(self.spec, edges=self._quantiles(self.spill))
            for block in self.spill.blocks():
                self._count_bins(block)
            self.spill.close()
        if self.moments is not None:
            centre, scale = self.moments.fit(self.rule.name)
            self.spec = replace(self.spec, centre=centre, scale=scale)
        return self.spec, self.counter.ordered(self.rule.min_count)

    def _quantiles(self, spill: Spill) -> tuple[float, ...]:
        if not spill.count:
            raise UsageError(f"field {self.rule.name!r}: expected numbers in the training split, found none")
        ranks = [spill.count * i // self.rule.bins for i in range(1, self.rule.bins)]
        return tuple(sorted({float(e) for e in spill.ranked(ranks)}))


def _open(rule: FieldRule) -> tuple[float, ...]:
    return (0.0,) if rule.binning == "quantile" else ()  # a placeholder until the edges are fitted


def fit_encoder(counts: list[FieldCounts], previous: FieldEncoder | None) -> FieldEncoder:
    """The encoder of the counted fields; with ``previous`` every id it gave stays and new values are appended."""
    fitted = [c.fit() for c in counts]
    if previous is None:
        return FieldEncoder.build([spec for spec, _ in fitted], {spec.name: values for spec, values in fitted})
    extended = previous.extend({spec.name: values for spec, values in fitted})
    specs = [replace(spec, size=extended.fields[extended.index(spec.name)].size) for spec, _ in fitted]
    return FieldEncoder(specs, extended.tables)


def check_previous(previous: FieldEncoder, rules: tuple[FieldRule, ...], where: str) -> None:
    """``UsageError`` unless the fields are those of ``previous``: same names, sides, kinds, binning and order."""
    old = [(f.name, f.side, f.kind, f.binning) for f in previous.fields]
    new = [(r.name, r.side, r.kind, r.binning) for r in rules]
    if old != new:
        differs = next(
            (pair for pair in zip(old, new, strict=False) if pair[0] != pair[1]),
            (f"{len(old)} fields", f"{len(new)} fields"),
        )
        raise UsageError(
            f"previous {where}: expected the spec's fields to be the same as there, found {differs[1]} where it has "
            f"{differs[0]}. Prepare without previous to start new ids"
        )


__all__ = ["FieldCounts", "ValueCounter", "check_previous", "fit_encoder"]
