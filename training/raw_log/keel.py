"""KEEL files: a header of ``@attribute`` lines that name the columns, then ``@data`` and rows of values with commas.

``?`` and ``<null>`` are missing. Every attribute is a column of its name, text as it stands in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from training.errors import UsageError
from training.raw_log.chunk import Chunk, Rejected
from training.raw_log.files import find_files, open_bytes
from training.raw_log.lines import line_blocks, split_lines
from training.spec_rules import SourceRule

_ATTRIBUTE = re.compile(r"@attribute\s+(?:'([^']+)'|\"([^\"]+)\"|([^\s{\[]+))", re.IGNORECASE)
_MISSING = pa.array(["?", "<null>"])
_LONGEST_HEADER = 100_000


class Keel:
    """The KEEL files of ``rule``, which have the same attributes."""

    own_items = False

    def __init__(self, rule: SourceRule, root: Path) -> None:
        self.files = [
            (p, s) for s, names in rule.files.items() for n in names for p in find_files(root, rule.folder, n)
        ]
        self.paths = tuple(p for p, _ in self.files)
        headers = {path: _header(path) for path in self.paths}
        self.columns = headers[self.paths[0]][0]
        self.data_starts = {path: line for path, (_, line) in headers.items()}
        for path, (columns, _) in headers.items():
            if columns != self.columns:
                raise UsageError(f"{path}: expected the attributes {', '.join(self.columns)}, found others")

    def chunks(self, columns: Sequence[str], rejected: Rejected) -> Iterator[Chunk]:
        """The rows of all files."""
        start = 0
        for path, split in self.files:
            header, rows = self.data_starts[path], 0
            for block in line_blocks(path, _Body(rejected, header)):
                body = block.numbers > header
                block.lines, block.numbers = block.lines.filter(pa.array(body)), block.numbers[body]
                if not len(block.lines):
                    continue
                parts, numbers = split_lines(block, ",", len(self.columns), path.name, rejected)
                named = {n: _plain(c) for n, c in zip(self.columns, parts, strict=True) if n in columns}
                yield Chunk(path.name, named, start + numbers - header - 1, numbers, split, block.bytes_read)
                rows = int(block.numbers[-1]) - header
            if not rows:
                raise UsageError(f"{path}: expected rows behind @data, found none")
            start += rows

    def items(self) -> None:
        """A KEEL log has no file of items."""


class _Body(Rejected):
    """Refusals behind the header alone: its blank lines are none."""

    def __init__(self, of: Rejected, header: int) -> None:
        super().__init__(of.counts, of.examples)
        self._header = header

    def add(self, reason: str, file: str, lines: Sequence[int] | npt.NDArray[np.int64], found: object = None) -> None:
        """Count the lines behind the header."""
        super().add(reason, file, [int(n) for n in lines if n > self._header], found)


def _header(path: Path) -> tuple[tuple[str, ...], int]:
    """The attributes, and the 1-based line of ``@data``."""
    columns: list[str] = []
    with open_bytes(path) as (stream, _):
        for number in range(1, _LONGEST_HEADER):
            line = stream.readline(1 << 16).decode("utf-8", "replace")
            if not line:
                break
            text = line.strip()
            if text.lower() == "@data":
                if not columns or len(set(columns)) != len(columns):
                    raise UsageError(f"{path}: expected attributes of distinct names before @data, found {columns}")
                return tuple(columns), number
            found = _ATTRIBUTE.match(text)
            if found:
                columns.append(next(group for group in found.groups() if group))
            elif text and text[0] not in "@%":
                break
    raise UsageError(f"{path}: expected a KEEL header (@attribute lines, then @data), found none")


def _plain(column: pa.Array) -> pa.Array:
    """Trimmed text, empty where it is missing."""
    text = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(text, _MISSING), "", text)
