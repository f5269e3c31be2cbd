"""A seeded model of the benchmark's size: plausible numbers, no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide
from models_export.fields import FieldEncoder
from models_export.items import Items
from models_export.manifest import FieldSpec, Manifest
from models_export.registry import Registry
from models_export.string_table import StringTable
from models_export.weights import Weights
from models_export.writer import write_artefact

VALUES_PER_FIELD = 1000
N_ITEMS = 100_000
N_CONTEXT = 25
N_ITEM = 38
DIM = 8
RANK = 3


Graphs = Callable[[Path, Manifest], None]
"""Writes ONNX graphs, as ``write_artefact`` takes it: the service itself has no onnx."""


def publish_model(
    root: Path, name: str = "bench", n_items: int = N_ITEMS, graphs: Graphs | None = None, rank: int = RANK
) -> None:
    """Publish and activate a DPLR model: 25 context and 38 item fields of 1,000 values each, items "i0", "i1", ..."""
    registry = Registry(root)
    registry.activate(name, registry.publish(name, lambda folder: write_model(folder, name, n_items, graphs, rank)))


def value(field: str, j: int) -> str:
    """The `j`-th known value of a field."""
    return f"{field}-{j}"


def write_model(
    folder: Path, name: str, n_items: int, graphs: Graphs | None, rank: int = RANK, hidden: Sequence[int] = ()
) -> None:
    """Write the DPLR model, or with ``hidden`` widths a DeepFM of the same fields, to a new folder; without items if
    there are none."""
    rng = np.random.default_rng(3)
    names = [f"c{i}" for i in range(N_CONTEXT)] + [f"f{i}" for i in range(N_ITEM)]
    sides = ["context"] * N_CONTEXT + ["item"] * N_ITEM
    specs = [FieldSpec(n, s, "categorical", 2) for n, s in zip(names, sides, strict=True)]
    encoder = FieldEncoder.build(specs, {n: [value(n, j) for j in range(VALUES_PER_FIELD)] for n in names})

    def draw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)

    m = len(names)
    n = encoder.n_features
    if hidden:
        widths = [m * DIM, *hidden]
        network = {"out.weight": draw(hidden[-1])}
        for i, (n_in, width) in enumerate(pairwise(widths)):
            network |= {f"hidden_{i}.weight": draw(width, n_in), f"hidden_{i}.bias": draw(width)}
        weights = Weights("deepfm", draw(n, DIM), draw(n), -1.0, network=network)
    else:
        weights = Weights("dplr", draw(n, DIM), draw(n), -1.0, U=draw(rank, m) * 5, e=draw(rank) * 10)
    items = None
    if n_items:
        ids = StringTable.build([f"i{i}" for i in range(n_items)], 0)
        items = Items(ids, EncodedSide.without_multi(random_items(rng, encoder, n_items)))
    training, rho = {"fingerprint": "synthetic"}, None if hidden else rank
    manifest = Manifest(name, weights.family, "logistic", DIM, encoder.fields, rank=rho, training=training)
    write_artefact(folder, manifest, weights, encoder, items, graphs)


def random_items(rng: np.random.Generator, encoder: FieldEncoder, n: int) -> npt.NDArray[np.int32]:
    """Feature rows of ``n`` items of known values, int32 [n, N_ITEM]."""
    local = rng.integers(2, 2 + VALUES_PER_FIELD, size=(n, N_ITEM))
    rows: npt.NDArray[np.int32] = (local + encoder.offsets[N_CONTEXT:-1]).astype(np.int32)
    return rows
