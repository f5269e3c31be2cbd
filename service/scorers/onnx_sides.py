"""Encoded rows as the inputs of the ONNX graphs: lists of values padded to the longest one, with weight 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide
from models_export.manifest import Side
from models_export.reader import Artefact

Feeds = dict[str, npt.NDArray[np.generic]]


def side_feeds(side: Side, encoded: EncodedSide, n_multi: int) -> Feeds:
    """The inputs of one side, n > 0 rows with ``n_multi`` lists each: ``rows`` int32 [n, n_single], and with lists
    ``multi_rows`` int32 and ``multi_weights`` float32 [n, n_multi, L], L the longest list's length (at least 1)."""
    feeds: Feeds = {f"{side}_rows": np.ascontiguousarray(encoded.rows)}
    if n_multi:
        lengths = np.diff(encoded.multi_indptr)
        longest = max(int(lengths.max(initial=0)), 1)
        there = np.arange(longest) < lengths[:, None]
        rows, weights = np.zeros(there.shape, np.int32), np.zeros(there.shape, np.float32)
        rows[there], weights[there] = encoded.multi_rows, encoded.multi_weights
        shape = len(encoded), n_multi, longest
        feeds[f"{side}_multi_rows"] = rows.reshape(shape)
        feeds[f"{side}_multi_weights"] = weights.reshape(shape)
    return feeds


@dataclass(frozen=True)
class RunSize:
    """Floats of the intermediate results of a run, ``per_value`` of an encoded row (padding included) and ``per_row``,
    and the ``most`` of them that one run may take."""

    per_value: int
    per_row: int
    most: int

    @classmethod
    def of(cls, artefact: Artefact, vector_size: int, most: int) -> RunSize:
        """For a model whose precomputed items have ``vector_size`` floats."""
        m = artefact.manifest
        n_fields, widths = len(m.fields), [len(array) for array in artefact.network.values() if array.ndim > 1]
        per_row = 2 * vector_size + 3 * sum(widths)
        if m.family == "afm":
            per_row += n_fields * (n_fields - 1) // 2 * (m.dim + max(widths, default=0))
        elif artefact.network:
            per_row += 3 * n_fields * m.dim
        stride = m.dim if artefact.ragged is not None else artefact.embedding_rows.shape[1]
        return cls(stride, per_row, most)

    @property
    def items(self) -> int:
        """Precomputed items of one run, at least one."""
        return max(self.most // self.per_row, 1)

    def spans(self, encoded: EncodedSide, n_multi: int) -> Iterator[tuple[int, int]]:
        """Spans (start, stop) of rows, each for one run; of at least one row."""
        n, n_single = encoded.rows.shape
        rows = max(self.most // ((n_single + n_multi) * self.per_value + self.per_row), 1)  # of lists of one value
        start = 0
        while start < n:
            stop = min(start + rows, n)
            if n_multi:  # lists, padded to the longest of the run, leave room for fewer
                lengths = np.diff(encoded.multi_indptr[start * n_multi : stop * n_multi + 1])
                longest = np.maximum.accumulate(np.maximum(lengths.reshape(-1, n_multi).max(1), 1))
                floats = (n_single + n_multi * longest) * self.per_value + self.per_row
                taken = floats * np.arange(1, len(floats) + 1)
                stop = start + max(int(np.searchsorted(taken, self.most, side="right")), 1)
            yield start, stop
            start = stop
