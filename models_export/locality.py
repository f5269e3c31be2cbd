"""LLFM: how a point is coded by its anchors, as the manifest states it, and the packed rows of an anchor's machine.

A feature's packed row holds what it adds to a point when its value is 1, for every anchor a:

    [ 1 - 2 z_ia: m floats, zeros up to mp | slot of anchor 0 | slot of anchor 1 | ... ]
    slot of anchor a: [ v_ia: k floats | w_ia - 1/2 |v_ia|^2 | zeros up to the slot's width ]

with mp = 16 ceil(m / 16) and a slot of 8 ceil((k + 1) / 8) floats. The first part is the feature's share of the squared
distance |x - z_a|^2 = |z_a|^2 + sum_i (x_i^2 - 2 x_i z_ia); a slot's sum over features holds S_a = sum x v and, behind
it, what a machine adds by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models_export.errors import ArtefactError

if TYPE_CHECKING:
    from models_export.manifest import Manifest
    from models_export.weights import Weights

F32 = npt.NDArray[np.float32]
SCHEMES = ("do", "apl", "jo")
MOST_ANCHORS = 1024


@dataclass(frozen=True)
class Locality:
    """``scheme``: do and apl code a point by its ``neighbours`` nearest anchors, gamma ~ exp(-``beta`` d^2); jo by as
    many as minimise |gamma|_2 + <gamma, u>, u = ``ratio`` d, or ``ratio`` d^2 if ``squared``.
    """

    scheme: str
    anchors: int
    neighbours: int
    beta: float
    ratio: float
    squared: bool

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ArtefactError("manifest: locality: scheme", "one of " + ", ".join(SCHEMES), repr(self.scheme))
        if not 1 <= self.anchors <= MOST_ANCHORS:
            raise ArtefactError("manifest: locality: anchors", f"1 to {MOST_ANCHORS}", str(self.anchors))
        if not 1 <= self.neighbours <= self.anchors:
            raise ArtefactError("manifest: locality: neighbours", f"1 to {self.anchors}", str(self.neighbours))
        for name, value in (("beta", self.beta), ("ratio", self.ratio)):
            if not 0.0 <= value <= 1e6:
                raise ArtefactError(f"manifest: locality: {name}", "0 to 1e6", str(value))

    @property
    def near(self) -> int:
        """Floats of a packed row's distances, mp."""
        return -(-self.anchors // 16) * 16


def slot_width(dim: int) -> int:
    """Floats of an anchor's slot in a packed row."""
    return -(-(dim + 1) // 8) * 8


def local_stride(manifest: Manifest) -> int:
    """Floats of a packed row: whole lines of 64 bytes."""
    locality = locality_of(manifest)
    return -(-(locality.near + locality.anchors * slot_width(manifest.dim)) // 16) * 16


def locality_of(manifest: Manifest) -> Locality:
    """The locality of an llfm manifest."""
    if manifest.locality is None:
        raise ArtefactError("manifest: locality", "an object for llfm", "null")
    return manifest.locality


def local_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Shapes of llfm's tensors in ``weights.safetensors``."""
    n, m = manifest.n_features, locality_of(manifest).anchors
    return {
        "embedding_rows": (n, local_stride(manifest)),
        "local_anchors": (m, n),
        "local_bias": (m,),
        "local_linear": (n, m),
        "global_bias": (1,),
    }


def local_slots(manifest: Manifest, rows: F32) -> F32:
    """The slots [n, m, width] of packed rows (a view)."""
    locality, width = locality_of(manifest), slot_width(manifest.dim)
    return rows[:, locality.near : locality.near + locality.anchors * width].reshape(len(rows), -1, width)


def pack_local(weights: Weights, manifest: Manifest) -> F32:
    """Packed rows, float32 [n, stride]."""
    rows = np.zeros((manifest.n_features, local_stride(manifest)), dtype=np.float32)
    slots = local_slots(manifest, rows)
    slots[:, :, : manifest.dim] = weights.vectors
    rows[:, : locality_of(manifest).anchors], slots[:, :, manifest.dim] = derived(weights)
    return rows


def derived(weights: Weights) -> tuple[F32, F32]:
    """What packed rows hold beside vectors, each float32 [n, m]: shares of the distances, and folded scalars."""
    if weights.anchors is None:
        raise ArtefactError("weights: anchors", "float32 [anchors, features] for llfm", "none")
    near = 1.0 - 2.0 * weights.anchors.T.astype(np.float64)
    norms = np.einsum("nmk,nmk->nm", weights.vectors, weights.vectors, dtype=np.float64)
    return near.astype(np.float32), (weights.linear - 0.5 * norms).astype(np.float32)


def check_derived(weights: Weights, manifest: Manifest, rows: F32) -> None:
    """Padding is zero, and the rest what the weights say, to float32 rounding; ``ArtefactError`` names the row."""
    locality, dim = locality_of(manifest), manifest.dim
    slots = local_slots(manifest, rows)
    end = locality.near + slots.shape[1] * slots.shape[2]
    if rows[:, locality.anchors : locality.near].any() or slots[:, :, dim + 1 :].any() or rows[:, end:].any():
        raise ArtefactError("tensor 'embedding_rows'", "zero padding", "another number in the padding")
    near, folded = derived(weights)
    for name, found, expected in (
        ("share of a distance", rows[:, : locality.anchors], near),
        ("folded scalar", slots[:, :, dim], folded),
    ):
        bad = np.argwhere(~np.isclose(found, expected, rtol=1e-4, atol=1e-5))
        if len(bad):
            i, a = bad[0].tolist()
            raise ArtefactError(f"embedding_rows[{i}]: {name} of anchor {a}", str(expected[i, a]), str(found[i, a]))
