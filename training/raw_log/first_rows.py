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
        """The log's chunks as far as the limit. Of a full file the rest is read past; of the last one it is not."""
        taken: dict[str, int] = {}
        for chunk in self._log.chunks(columns, rejected):
            left = self._limit - taken.get(chunk.file, 0)
            if left > 0:
                taken[chunk.file] = taken.get(chunk.file, 0) + len(chunk)
                yield chunk.filter(np.arange(len(chunk)) < left)
            if left <= len(chunk) and chunk.file == self.paths[-1].name:
                return

    def items(self) -> pa.Table | None:
        """The file of items, whole."""
        return self._log.items()
