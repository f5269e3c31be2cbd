"""libFM (and LIBSVM) files: ``label index:value index:value ...``.

``[source.ranges]`` names the columns by index range (``user = [0, 956]``), ``columns`` by position in the line. A
column that a categorical field reads gives the index, and its value must be 1; one that a multi-valued field reads
gives all its indices with their values as weights; one that a numeric or dense field reads (a range of one index)
gives the value. An index that a line leaves out is missing to a numeric field and 0 to a dense one, as in a sparse
vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models_export.fields import MAX_WEIGHT
from training.errors import UsageError
from training.raw_log.chunk import Chunk, Rejected
from training.raw_log.files import find_files
from training.raw_log.lines import Block, line_blocks
from training.spec_rules import FieldRule, SourceRule

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
LABEL = "label"


class LibFM:
    """The libFM files of ``rule``; ``kinds`` of the spec's fields say how a column is read."""

    own_items = False

    def __init__(self, rule: SourceRule, root: Path, fields: Sequence[FieldRule]) -> None:
        if bool(rule.ranges) == bool(rule.columns):
            raise UsageError("[source]: a libfm log: expected either ranges or columns that name its columns, found "
                             + ("both" if rule.ranges else "neither"))  # fmt: skip
        self.files = [
            (p, s) for s, names in rule.files.items() for n in names for p in find_files(root, rule.folder, n)
        ]
        self.paths = tuple(p for p, _ in self.files)
        self.names = tuple(sorted(rule.ranges, key=lambda n: rule.ranges[n])) or rule.columns
        self.ranges = [rule.ranges[n] for n in self.names] if rule.ranges else []
        self.columns = (LABEL, *self.names)
        self.kinds = {f.column: f.kind for f in fields}
        for name, (first, last) in zip(self.names, self.ranges, strict=False):
            if self.kinds.get(name) in ("numeric", "dense") and first != last:
                raise UsageError(
                    f"[source.ranges] {name}: expected one index for a {self.kinds[name]} field, "
                    f"found {first} to {last}"
                )
        if rule.columns and "multi" in self.kinds.values():
            raise UsageError("[source] columns: expected ranges where a libfm field is multi-valued, found positions")

    def chunks(self, columns: Sequence[str], rejected: Rejected) -> Iterator[Chunk]:
        """The rows of all files."""
        start = 0
        for path, split in self.files:
            total = 0
            for block in line_blocks(path, rejected):
                total += block.total
                yield self._chunk(block, path.name, split, start, columns, rejected)
            if total == 0:
                raise UsageError(f"{path}: expected rows, found an empty file")
            start += total

    def _chunk(
        self, block: Block, file: str, split: str, start: int, columns: Sequence[str], rejected: Rejected
    ) -> Chunk:
        parts = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(block.lines))
        lengths = pc.list_value_length(parts).to_numpy(zero_copy_only=False).astype(np.int64)
        flat, heads = parts.flatten(), np.cumsum(lengths) - lengths
        is_entry = np.ones(len(flat), dtype=bool)
        is_entry[heads] = False
        row = np.repeat(np.arange(len(lengths)), lengths)[is_entry]
        position = (np.arange(len(flat)) - np.repeat(heads, lengths))[is_entry] - 1
        index, value = _entries(flat.filter(pa.array(is_entry)))
        bad = np.zeros(len(lengths), dtype=bool)

        def refuse(reason: str, rows: I64) -> None:
            fresh = np.unique(rows[~bad[rows]])
            found = block.lines[int(fresh[0])].as_py() if len(fresh) else None
            rejected.add(reason, file, block.numbers[fresh], found)
            bad[fresh] = True

        refuse("an entry that is not index:value", row[np.isnan(value)])
        column = self._column_of(index, position)
        if self.ranges:
            refuse("a feature index outside the ranges", row[column < 0])
        else:
            refuse(f"not {len(self.names)} entries", np.flatnonzero(lengths - 1 != len(self.names)))
        out: dict[str, pa.Array] = {LABEL: flat.take(pa.array(heads))}
        for j, name in enumerate(self.names):
            if name not in columns:
                continue
            of = np.flatnonzero((column == j) & ~np.isnan(value))
            kind = self.kinds.get(name, "categorical")
            if kind == "multi":
                refuse(
                    f"a weight of {name!r} outside 0 to {MAX_WEIGHT:g}",
                    row[of][~((value[of] >= 0) & (value[of] <= MAX_WEIGHT))],
                )
                out[name] = _weighted(row[of], index[of], value[of], len(lengths))
                continue
            twice = np.flatnonzero(np.bincount(row[of], minlength=len(lengths)) > 1)
            refuse(f"two values of {name!r}", twice)
            if kind in ("numeric", "dense"):
                numbers, given = np.zeros(len(lengths)), np.full(len(lengths), kind == "dense")
                numbers[row[of]], given[row[of]] = value[of], True
                out[name] = pa.array(numbers, mask=~given)
            else:
                refuse(f"a value of {name!r} other than 1", row[of][value[of] != 1.0])
                indices, given = np.zeros(len(lengths), dtype=np.int64), np.zeros(len(lengths), dtype=bool)
                indices[row[of]], given[row[of]] = index[of], True
                out[name] = pa.array(indices, mask=~given)
        rows = start + block.numbers - 1
        return Chunk(file, out, rows, block.numbers, split, block.bytes_read).filter(~bad)

    def _column_of(self, index: I64, position: I64) -> I64:
        if not self.ranges:
            return np.where(position < len(self.names), position, -1)
        first, last = (np.array(side, dtype=np.int64) for side in zip(*self.ranges, strict=True))
        column = np.searchsorted(first, index, side="right") - 1
        inside = (column >= 0) & (index <= last[np.maximum(column, 0)])
        return np.where(inside, column, -1)

    def items(self) -> None:
        """A libFM log has no file of items."""


def _entries(entries: pa.Array) -> tuple[I64, F64]:
    """Index and value of each ``index:value``; a value of NaN marks an entry that is none."""
    encoded = entries.dictionary_encode()
    parsed = [_entry(e) for e in encoded.dictionary.to_pylist()]
    index = np.array([p[0] for p in parsed], dtype=np.int64)
    value = np.array([p[1] for p in parsed], dtype=np.float64)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return index[codes], value[codes]


def _entry(text: str) -> tuple[int, float]:
    index, colon, value = text.partition(":")
    try:
        if colon and index.isascii() and index.isdigit() and len(index) < 19 and "_" not in value:
            number = float(value)
            return int(index), number if np.isfinite(number) else float("nan")
    except ValueError:
        pass
    return 0, float("nan")


def _weighted(row: I64, index: I64, value: F64, n: int) -> pa.Array:
    """map<string, float32> per row; ``row`` is ascending."""
    offsets = np.zeros(n + 1, dtype=np.int32)
    np.cumsum(np.bincount(row, minlength=n), out=offsets[1:])
    keys = pa.array(index).cast(pa.string())
    return pa.MapArray.from_arrays(pa.array(offsets), keys, pa.array(value.astype(np.float32)))
