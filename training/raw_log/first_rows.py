"""The beginning of a log: at most so many rows of each file, for a trial of a long preparation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from training.raw_log.chunk import Chunk, RawLog, Rejected


class FirstRows:
    """``log`` cut to the first ``limit`` well-formed rows of each of its files."""

    def __init__(self, log: RawLog, limit: int) -> None:
        self._log, self._limit = log, limit
        self.columns, self.paths, self.own_items = log.columns, log.paths, log.own_items

    def chunks(self, columns: Sequence[str], rejected: Rejected) -> Iterator[Chunk]:
        """The log's chunks as far as the limit; files that follow a full one are still read."""
        taken: dict[str, int] = {}
        for chunk in self._log.chunks(columns, rejected):
            left = self._limit - taken.get(chunk.file, 0)
            if left > 0:
                taken[chunk.file] = taken.get(chunk.file, 0) + len(chunk)
                yield chunk.filter(np.arange(len(chunk)) < left)

    def items(self) -> pa.Table | None:
        """The file of items, whole."""
        return self._log.items()
