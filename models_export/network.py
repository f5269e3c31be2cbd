"""Arrays of the families with a neural network (nfm, afm, dcn, deepfm): their names and shapes.

The widths of the layers are not in the manifest: they follow from the arrays, which must fit one another. Names in
``weights.safetensors`` carry the prefix ``network.``; formulas are in FORMAT.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from models_export.manifest import NETWORK_FAMILIES, Manifest

PREFIX = "network."


def network_shapes(manifest: Manifest, found: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Shapes that the arrays of a manifest's network must have, given those ``found``, by their names in the file; none
    for other families. Free sizes (widths, number of layers) are taken from the arrays.
    """
    if manifest.family not in NETWORK_FAMILIES:
        return {}
    vector, row = manifest.dim, manifest.dim * len(manifest.fields)
    if manifest.family == "afm":
        width = _first_size(found, "attention.weight")
        shapes = {"attention.weight": (width, vector), "attention.bias": (width,), "attention.out": (width,)}
        return _named(shapes | {"out.weight": (vector,)})
    n_in = vector if manifest.family == "nfm" else row
    shapes, width = _layers(found, n_in)
    if manifest.family == "dcn":
        depth = _first_size(found, "cross.weight")
        shapes |= {"cross.weight": (depth, row), "cross.bias": (depth, row)}
        width += row
    return _named(shapes | {"out.weight": (width,)})


def _named(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {PREFIX + name: shape for name, shape in shapes.items()}


def _first_size(found: Mapping[str, npt.NDArray[Any]], name: str) -> int:
    """First size of an array, 1 if it is missing or a number (its check then fails)."""
    array = found.get(PREFIX + name)
    return array.shape[0] if array is not None and array.ndim else 1


def _layers(found: Mapping[str, npt.NDArray[Any]], n_in: int) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes of the relu layers, and the width of the last one."""
    shapes: dict[str, tuple[int, ...]] = {}
    while f"{PREFIX}hidden_{len(shapes) // 2}.weight" in found:
        name = f"hidden_{len(shapes) // 2}"
        width = _first_size(found, f"{name}.weight")
        shapes |= {f"{name}.weight": (width, n_in), f"{name}.bias": (width,)}
        n_in = width
    return shapes, n_in
