"""Model parameters as trained, and packed into the aligned rows that kernels gather.

A packed row is ``[v (dim floats, zero-padded to kp), folded, linear, zero padding]``, a multiple of 64 bytes, so that
one gather brings a feature's vector and everything that depends on the feature alone:

- FM (Rendle 2010):                folded = b - 1/2 |v|^2
- FwFM, pruned FwFM (Pan 2018):    folded = b   (and nfm, afm, dcn, deepfm)
- DPLR-FwFM (equations 5, 9, 10):  folded = b + 1/2 d_f |v|^2, with d_f = -sum_r e_r U_rf^2

RaFM's rows have several lengths: ``ragged_rows.py``. LLFM's hold a vector for every anchor: ``locality.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models_export.errors import ArtefactError
from models_export.locality import Locality, local_shapes, pack_local
from models_export.manifest import Manifest
from models_export.network import PREFIX, network_shapes
from models_export.ragged_rows import RaggedShape, pack_ragged

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


@dataclass
class Weights:
    """Plain parameters: ``vectors`` [n, dim], ``linear`` [n], ``bias``; ``field_matrix`` [m, m] symmetric with a zero
    diagonal (fwfm, pruned_fwfm); ``U`` [rho, m] and ``e`` [rho] (dplr); ``network``: arrays by name (nfm, afm, dcn,
    deepfm; see network.py). All float32, manifest field order.

    rafm: ``vectors`` [sum_p D_p |F_p|] are ragged (``RaggedShape``), with ``ranks`` and ``groups`` int32 [n].
    llfm, of m anchors: ``vectors`` [n, m, dim], ``linear`` [n, m], ``anchor_bias`` [m], ``anchors`` [m, n], and how
    they code a point, ``locality``.
    """

    family: str
    vectors: F32
    linear: F32
    bias: float
    field_matrix: F32 | None = None
    U: F32 | None = None
    e: F32 | None = None
    network: Mapping[str, F32] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    groups: I32 | None = None
    anchor_bias: F32 | None = None
    anchors: F32 | None = None
    locality: Locality | None = None

    @property
    def ragged(self) -> RaggedShape | None:
        """Where RaFM's vectors lie; None for families of one rank."""
        return None if self.groups is None else RaggedShape(self.ranks, self.groups)

    @property
    def diagonal(self) -> npt.NDArray[np.float64]:
        """DPLR's d, float64 [m]: minus the diagonal of U^T diag(e) U (equation 10)."""
        if self.U is None or self.e is None:
            raise ArtefactError("diagonal", "a dplr model", self.family)
        return -(self.e.astype(np.float64) @ self.U.astype(np.float64) ** 2)


def small_arrays(weights: Weights) -> dict[str, F32]:
    """Every tensor but the embedding rows, by its name in ``weights.safetensors``."""
    arrays = {"global_bias": np.array([weights.bias], dtype=np.float32)}
    if weights.field_matrix is not None:
        arrays["field_matrix"] = weights.field_matrix
    if weights.U is not None and weights.e is not None:
        arrays["low_rank_U"] = weights.U
        arrays["low_rank_e"] = weights.e
    if weights.anchors is not None and weights.anchor_bias is not None:
        arrays |= {"local_anchors": weights.anchors, "local_bias": weights.anchor_bias}
    return arrays | {PREFIX + name: array for name, array in weights.network.items()}


def small_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of ``small_arrays`` that the manifest's family must have."""
    m = len(manifest.fields)
    shapes: dict[str, tuple[int, ...]] = {"global_bias": (1,)}
    if manifest.family in ("fwfm", "pruned_fwfm"):
        shapes["field_matrix"] = (m, m)
    if manifest.rank is not None:
        shapes["low_rank_U"] = (manifest.rank, m)
        shapes["low_rank_e"] = (manifest.rank,)
    return shapes


def folded_scalars(weights: Weights, manifest: Manifest) -> F32:
    """What each feature adds alone when its value is 1, float32 [n]; computed in float64."""
    norms = np.einsum("nk,nk->n", weights.vectors, weights.vectors, dtype=np.float64)
    folded = weights.linear.astype(np.float64)
    if weights.family == "fm":
        folded = folded - 0.5 * norms
    elif weights.family == "dplr":
        d = np.repeat(weights.diagonal, [f.size for f in manifest.fields])
        folded = folded + 0.5 * d * norms
    return folded.astype(np.float32)


def pack_rows(weights: Weights, manifest: Manifest) -> F32:
    """Packed rows, float32 [n, stride]."""
    rows = np.zeros((manifest.n_features, manifest.stride), dtype=np.float32)
    rows[:, : manifest.dim] = weights.vectors
    rows[:, manifest.kp] = folded_scalars(weights, manifest)
    rows[:, manifest.kp + 1] = weights.linear
    return rows


def weight_tensors(weights: Weights, manifest: Manifest) -> dict[str, npt.NDArray[np.generic]]:
    """Every tensor of ``weights.safetensors``."""
    ragged = weights.ragged
    if ragged is not None:
        return {**pack_ragged(ragged, weights.vectors, weights.linear).tensors(), **small_arrays(weights)}
    if manifest.family == "llfm":
        return {
            "embedding_rows": pack_local(weights, manifest),
            "local_linear": weights.linear,
            **small_arrays(weights),
        }
    return {"embedding_rows": pack_rows(weights, manifest), **small_arrays(weights)}


def check_weights(weights: Weights, manifest: Manifest) -> None:
    """Shapes, dtypes, finiteness, and the field matrix's symmetry; ``ArtefactError`` names the tensor."""
    n = manifest.n_features
    if weights.family != manifest.family:
        raise ArtefactError("weights: family", manifest.family, weights.family)
    if weights.locality != manifest.locality:
        raise ArtefactError("weights: locality", str(manifest.locality), str(weights.locality))
    arrays: dict[str, F32] = {"vectors": weights.vectors, "linear": weights.linear, **small_arrays(weights)}
    ragged = weights.ragged
    if (ragged is not None) != (manifest.family == "rafm"):
        raise ArtefactError(f"weights of a {manifest.family}: groups", "for rafm, and for it alone", "others")
    if ragged is not None and ragged.ranks[-1] != manifest.dim:
        raise ArtefactError("weights: ranks", f"the last one to be dim = {manifest.dim}", str(list(ragged.ranks)))
    if ragged is not None and ragged.groups.shape != (n,):
        raise ArtefactError("weights: groups", f"int32 ({n},)", str(ragged.groups.shape))
    vectors = (n, manifest.dim) if ragged is None else (ragged.factors,)
    shapes: dict[str, tuple[int, ...]] = {"vectors": vectors, "linear": (n,), **small_shapes(manifest)}
    if manifest.family == "llfm":
        shapes |= local_shapes(manifest)
        shapes["linear"] = shapes.pop("local_linear")
        shapes["vectors"] = (*shapes["linear"], manifest.dim)
        del shapes["embedding_rows"]
    shapes |= network_shapes(manifest, arrays)
    if set(arrays) != set(shapes):
        raise ArtefactError(f"weights of a {manifest.family}", str(sorted(shapes)), str(sorted(arrays)))
    for name, shape in shapes.items():
        check_tensor(name, arrays[name], shape)
    if weights.field_matrix is not None:
        check_field_matrix(weights.field_matrix)


def check_tensor(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> F32:
    """``array`` itself if it is float32, of the given shape, and finite; ``ArtefactError`` otherwise."""
    if array.dtype != np.float32 or array.shape != shape:
        raise ArtefactError(f"tensor {name!r}", f"float32 {shape}", f"{array.dtype} {array.shape}")
    finite = np.isfinite(array)
    if not finite.all():
        where = np.argwhere(~finite)[0].tolist()
        raise ArtefactError(f"tensor {name!r} at {where}", "a finite number", str(array[tuple(where)]))
    return array


def check_field_matrix(matrix: F32) -> None:
    """Symmetric with a zero diagonal (section 3.2: a field does not interact with itself)."""
    if not np.array_equal(matrix, matrix.T) or np.diagonal(matrix).any():
        raise ArtefactError("tensor 'field_matrix'", "a symmetric matrix with a zero diagonal", "another matrix")
