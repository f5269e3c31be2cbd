"""The catalogue of an artefact: item ids and their encoded fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide
from models_export.errors import ArtefactError
from models_export.fields import FieldEncoder
from models_export.string_table import StringTable

_PARTS = ("rows", "multi_indptr", "multi_rows", "multi_weights")


@dataclass
class Items:
    """``ids``: item id -> catalogue index from 0; ``side``: the encoded item fields, one row per item."""

    ids: StringTable
    side: EncodedSide

    def __len__(self) -> int:
        return len(self.ids)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Named arrays for ``items.safetensors``."""
        return {**self.ids.arrays("ids"), **{part: getattr(self.side, part) for part in _PARTS}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Items:
        """The catalogue stored in ``arrays``; call ``verify`` before use."""
        missing = [part for part in _PARTS if part not in arrays]
        if missing:
            raise ArtefactError(f"items: tensor {missing[0]!r}", "to be present", "no such tensor")
        side = EncodedSide(*(arrays[part] for part in _PARTS))  # type: ignore[arg-type]
        return cls(StringTable.from_arrays("ids", arrays, 0), side)

    def verify(self, encoder: FieldEncoder) -> None:
        """Check ids, shapes and that every encoded value lies in its own field."""
        self.ids.verify("items: ids")
        if len(self.side) != len(self.ids):
            raise ArtefactError("items: rows", f"one per item id ({len(self.ids)})", str(len(self.side)))
        n_single = sum(f.side == "item" and not f.weighted for f in encoder.fields)
        self.side.verify("items", *encoder.bounds("item"), n_single, encoder.signed("item"))
