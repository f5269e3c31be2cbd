"""Verification of RaFM's tensors: ranks, group table, row addresses, padding, folded scalars."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models_export.errors import ArtefactError
from models_export.manifest import MAX_RANKS, Manifest
from models_export.ragged_rows import RaggedRows, ragged_shape
from models_export.tensor_file import Array
from models_export.weights import check_tensor

_NAMES = ("embedding_rows", "global_bias", "linear", "ranks", "records")


def read_ragged(manifest: Manifest, tensors: dict[str, Array]) -> RaggedRows:
    """RaFM's rows from the tensors of ``weights.safetensors``; ``ArtefactError`` names the culprit. After it kernels
    need no bounds checks: every row lies inside ``embedding_rows``, by its group's width.
    """
    if set(tensors) != set(_NAMES):
        raise ArtefactError("file 'weights.safetensors'", f"the tensors {sorted(_NAMES)}", str(sorted(tensors)))
    n = manifest.n_features
    ranks = _integers("ranks", tensors["ranks"], "[P]")
    if ranks.ndim != 1 or not 1 <= len(ranks) <= MAX_RANKS or ranks[-1] != manifest.dim:
        raise ArtefactError("tensor 'ranks'", f"up to {MAX_RANKS} ranks, the last one {manifest.dim}", str(ranks[:17]))
    records = _integers("records", tensors["records"], f"({n}, 2)")
    if records.shape != (n, 2):
        raise ArtefactError("tensor 'records'", f"int32 ({n}, 2)", f"int32 {records.shape}")
    row_at = records[:, 0]
    shape = ragged_shape(ranks, (row_at & 15) + 1)
    expected_at = shape.row_at
    if (wrong := row_at != expected_at).any():
        row = int(np.argmax(wrong))
        raise ArtefactError(f"row address of feature {row}", f"{expected_at[row]} by the groups", str(row_at[row]))
    rows = check_tensor("embedding_rows", tensors["embedding_rows"], (shape.packed_floats,))
    if rows.ctypes.data % 64:
        raise ArtefactError("tensor 'embedding_rows'", "64-byte aligned rows", "another alignment")
    folded = check_tensor("records: folded", np.ascontiguousarray(records.view(np.float32)[:, 1]), (n,))
    linear = check_tensor("linear", tensors["linear"], (n,))
    if shape.padding_used(rows):
        raise ArtefactError("tensor 'embedding_rows'", "zero padding", "another number in the padding")
    expected = shape.folded(rows, linear)
    if (bad := ~np.isclose(folded, expected, rtol=1e-4, atol=1e-5)).any():
        row = int(np.argmax(bad))
        raise ArtefactError(f"folded scalar of feature {row}", str(expected[row]), str(folded[row]))
    return RaggedRows(shape.ranks, rows, records, linear)


def _integers(name: str, array: Array, shape: str) -> npt.NDArray[np.int32]:
    if array.dtype != np.int32:
        raise ArtefactError(f"tensor {name!r}", f"int32 {shape}", f"{array.dtype} {array.shape}")
    return array.view(np.int32)
