"""A prepared folder, read: encoded splits as memory maps, encoder, catalogue, and what the log was like.

Files: ``prepared.json``, ``vocabulary.safetensors``, ``items.safetensors`` and ``titles.json`` (where the spec has
items), and per split ``rows.npy`` int32 [n, n_single], ``multi_indptr.npy`` int64 [n * n_multi + 1],
``multi_rows.npy`` int32 and ``multi_weights.npy`` float32 [nnz], ``label.npy`` float32 [n], ``row_number.npy``
int64 [n] (0-based row of the log). The arrays are an ``EncodedSide`` over both sides: single-valued fields in
manifest order, then multi-valued ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide
from models_export.errors import ArtefactError
from models_export.fields import FieldEncoder
from models_export.items import Items
from models_export.manifest import FieldSpec
from models_export.tensor_file import parse_tensors, read_bytes_map
from training.errors import UsageError
from training.spec_rules import SPLITS

PREPARED_VERSION = 1


@dataclass(frozen=True)
class PreparedSplit:
    """One split: ``encoded`` over all fields, ``label`` float32 [n], ``row_number`` int64 [n]; memory-mapped."""

    encoded: EncodedSide
    label: npt.NDArray[np.float32]
    row_number: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Prepared:
    """An opened folder. ``info`` is ``prepared.json``: name, counts per split, rejected lines, the spec's text."""

    path: Path
    info: dict[str, Any]
    encoder: FieldEncoder
    items: Items | None

    @classmethod
    def open(cls, path: str | Path) -> Prepared:
        """Open ``path``; ``UsageError`` if it is not a whole prepared folder of this version."""
        path = Path(path)
        info = _read_json(path / "prepared.json")
        if info.get("format_version") != PREPARED_VERSION:
            raise UsageError(
                f"{path / 'prepared.json'}: expected format_version {PREPARED_VERSION}, found "
                f"{info.get('format_version')!r}. Prepare the log again"
            )
        try:
            fields = tuple(FieldSpec(**{**f, "edges": tuple(f["edges"])}) for f in info["fields"])
            encoder = FieldEncoder.from_arrays(fields, _tensors(path / "vocabulary.safetensors"))
            items = Items.from_arrays(_tensors(path / "items.safetensors")) if info["catalogue"] else None
        except (ArtefactError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: expected a prepared folder, found a damaged one ({error})") from error
        return cls(path, info, encoder, items)

    @property
    def name(self) -> str:
        """The spec's name."""
        return str(self.info["name"])

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The model's fields, context fields first."""
        return self.encoder.fields

    @property
    def task(self) -> str:
        """``binary`` (labels 0 and 1), ``rating``, or ``implicit`` (positives only; the stored labels are all 1)."""
        return str(self.info["label"]["task"])

    @property
    def item_id_field(self) -> str | None:
        """The field whose values are item ids, or None."""
        found: str | None = self.info["item_id_field"]
        return found

    @property
    def user_id_field(self) -> str | None:
        """The context field whose values are user ids, or None."""
        found: str | None = self.info.get("user_id_field")
        return found

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the source files' bytes, the spec and what was asked for beside it."""
        return str(self.info["fingerprint"])

    def rows(self, split: str) -> int:
        """Number of rows of a split."""
        return int(self.info["splits"][split]["rows"])

    @cached_property
    def titles(self) -> dict[str, str]:
        """Display name by item id; empty where the spec has none."""
        path = self.path / "titles.json"
        return {str(k): str(v) for k, v in _read_json(path).items()} if path.exists() else {}

    def split(self, name: str) -> PreparedSplit:
        """The split ``train``, ``valid`` or ``test``; ``UsageError`` if its files do not fit together."""
        if name not in SPLITS:
            raise UsageError(f"split {name!r}: expected one of {', '.join(SPLITS)}")
        folder, expected = self.path / name, int(self.info["splits"][name]["rows"])
        parts = [_array(folder / f"{part}.npy") for part in ("rows", "multi_indptr", "multi_rows", "multi_weights")]
        label, row_number = _array(folder / "label.npy"), _array(folder / "row_number.npy")
        side = EncodedSide(*parts)
        n_multi = sum(f.weighted for f in self.fields)
        shapes = ((expected, len(self.fields) - n_multi), (expected * n_multi + 1,), (expected,), (expected,))
        found = (side.rows.shape, side.multi_indptr.shape, label.shape, row_number.shape)
        if found != shapes:
            raise UsageError(f"{folder}: expected arrays of shapes {shapes}, found {found}. Prepare the log again")
        return PreparedSplit(side, label, row_number)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(
            f"{path.parent}: expected a folder made by ctrank-train prepare, found no {path.name}"
        ) from None
    except ValueError as error:
        raise UsageError(f"{path}: expected JSON, found otherwise ({error})") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def _tensors(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    return parse_tensors(path.name, read_bytes_map(path))


def _array(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode=None if path.stat().st_size <= 128 else "r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: expected an array, found otherwise ({error}). Prepare the log again") from error
    return np.asarray(array) if array.size == 0 else array
