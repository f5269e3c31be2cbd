"""Implicit feedback with one user per line: the user's id, then the ids of its items, separated by blanks.

This is the form of the public LightGCN splits. A line of n items is n rows with the columns ``user`` and ``item``,
all of them positive; a row's number counts the pairs of all files. A user without items (the public test files have
some) is no row. An item that a line repeats is one row: the repeats are rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.errors import UsageError
from training.raw_log.chunk import Chunk, Rejected
from training.raw_log.files import find_files
from training.raw_log.lines import Block, line_blocks
from training.spec_rules import SourceRule


class UserItems:
    """The files of ``rule``, streamed."""

    own_items = False
    columns: tuple[str, ...] = ("user", "item")

    def __init__(self, rule: SourceRule, root: Path) -> None:
        self.files = [
            (p, s) for s, names in rule.files.items() for n in names for p in find_files(root, rule.folder, n)
        ]
        self.paths = tuple(p for p, _ in self.files)

    def chunks(self, columns: Sequence[str], rejected: Rejected) -> Iterator[Chunk]:
        """The pairs of all files."""
        start = 0
        for path, split in self.files:
            total = 0
            for block in line_blocks(path, rejected):
                chunk, pairs = _pairs(block, path.name, split, start, rejected)
                yield Chunk(
                    chunk.file,
                    {n: chunk.columns[n] for n in columns},
                    chunk.rows,
                    chunk.lines,
                    chunk.split,
                    chunk.bytes_read,
                )
                start += pairs
                total += block.total
            if total == 0:
                raise UsageError(f"{path}: expected lines of a user and its items, found an empty file")

    def items(self) -> None:
        """Such a log has no file of items."""


def _pairs(block: Block, file: str, split: str, start: int, rejected: Rejected) -> tuple[Chunk, int]:
    """The block's pairs as a chunk, and how many there were before repeats were rejected."""
    parts = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(block.lines))
    lengths = pc.list_value_length(parts).to_numpy(zero_copy_only=False).astype(np.int64)
    flat, heads = parts.flatten().dictionary_encode(), np.cumsum(lengths) - lengths
    is_item = np.ones(len(flat), dtype=bool)
    is_item[heads] = False
    counts = lengths - 1
    items = flat.filter(pa.array(is_item))
    line = np.repeat(np.arange(len(lengths)), counts)
    codes = items.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.zeros(len(codes), dtype=bool)
    first[np.unique(line * max(1, len(items.dictionary)) + codes, return_index=True)[1]] = True
    columns = {"user": flat.take(pa.array(np.repeat(heads, counts))), "item": items}
    numbers = block.numbers[line]
    rejected.add("an item that its line repeats", file, numbers[~first])
    rows = start + np.arange(len(codes), dtype=np.int64)
    return Chunk(file, columns, rows, numbers, split, block.bytes_read).filter(first), len(codes)
