"""Appends encoded rows of one split to its ``.npy`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide
from models_export.fields import FieldEncoder
from training.array_file import ArrayFile


class SplitWriter:
    """Writes the arrays that ``training.prepared`` lists into the new folder ``folder``."""

    def __init__(self, folder: Path, encoder: FieldEncoder) -> None:
        folder.mkdir()
        single = sum(not f.weighted for f in encoder.fields)
        self.has_multi = single < len(encoder.fields)
        self.rows = ArrayFile(folder / "rows.npy", np.int32, (single,))
        self.multi_indptr = ArrayFile(folder / "multi_indptr.npy", np.int64)
        self.multi_rows = ArrayFile(folder / "multi_rows.npy", np.int32)
        self.multi_weights = ArrayFile(folder / "multi_weights.npy", np.float32)
        self.label = ArrayFile(folder / "label.npy", np.float32)
        self.row_number = ArrayFile(folder / "row_number.npy", np.int64)
        self.multi_indptr.append(np.zeros(1, dtype=np.int64))
        self.values = 0
        self.label_sum = 0.0

    def append(self, side: EncodedSide, label: npt.NDArray[np.float32], row_number: npt.NDArray[np.int64]) -> None:
        """Append rows over all fields with their labels and row numbers."""
        self.rows.append(side.rows)
        if self.has_multi:
            self.multi_indptr.append(side.multi_indptr[1:] + self.values)
            self.multi_rows.append(side.multi_rows)
            self.multi_weights.append(side.multi_weights)
            self.values += len(side.multi_rows)
        self.label.append(label)
        self.row_number.append(row_number)
        self.label_sum += float(label.astype(np.float64).sum())

    def close(self) -> dict[str, Any]:
        """Finish the files; returns the number of rows and the mean label (0 if there are none)."""
        for file in (self.rows, self.multi_indptr, self.multi_rows, self.multi_weights, self.label, self.row_number):
            file.close()
        return {"rows": self.label.count, "label_mean": round(self.label_sum / max(1, self.label.count), 9)}
