"""A seeded model of the benchmark's size: plausible numbers, no training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

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
    registry.activate(name, registry.publish(name, lambda folder: _write(folder, name, n_items, graphs, rank)))


def value(field: str, j: int) -> str:
    """The `j`-th known value of a field."""
    return f"{field}-{j}"


def _write(folder: Path, name: str, n_items: int, graphs: Graphs | None, rank: int) -> None:
    rng = np.random.default_rng(3)
    names = [f"c{i}" for i in range(N_CONTEXT)] + [f"f{i}" for i in range(N_ITEM)]
    sides = ["context"] * N_CONTEXT + ["item"] * N_ITEM
    specs = [FieldSpec(n, s, "categorical", 2) for n, s in zip(names, sides, strict=True)]
    encoder = FieldEncoder.build(specs, {n: [value(n, j) for j in range(VALUES_PER_FIELD)] for n in names})

    def draw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)

    m = len(names)
    n = encoder.n_features
    weights = Weights("dplr", draw(n, DIM), draw(n), -1.0, U=draw(rank, m) * 5, e=draw(rank) * 10)
    local = rng.integers(2, 2 + VALUES_PER_FIELD, size=(n_items, N_ITEM))
    rows = (local + encoder.offsets[N_CONTEXT:-1]).astype(np.int32)
    items = Items(StringTable.build([f"i{i}" for i in range(n_items)], 0), EncodedSide.without_multi(rows))
    manifest = Manifest(name, "dplr", "logistic", DIM, encoder.fields, rank=rank, training={"fingerprint": "synthetic"})
    write_artefact(folder, manifest, weights, encoder, items, graphs)
