"""Random models of every family beside their graphs, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from models_export.encoded import EncodedSide
from models_export.manifest import NETWORK_FAMILIES, FieldSpec, Manifest, Side
from models_export.onnx_writer import write_graphs
from models_export.tensor_file import write_tensors
from models_export.weights import Weights, weight_tensors
from tests.service.kernels.cases import FIELD_SIZE, random_local, random_locality, random_side, random_weights
from tests.tiny_artefact import random_network

Feeds = dict[str, np.ndarray]


def feeds(manifest: Manifest, side: Side, encoded: EncodedSide, padding: int = 0) -> Feeds:
    """The inputs of a side: lists padded to the longest one, and by ``padding`` more."""
    n, n_multi = len(encoded), manifest.n_multi(side)
    out: Feeds = {f"{side}_rows": encoded.rows}
    if n_multi:
        counts = np.diff(encoded.multi_indptr)
        there = np.arange(max(counts.max(initial=0), 1) + padding) < counts[:, None]
        rows, x = np.zeros(there.shape, np.int32), np.zeros(there.shape, np.float32)
        rows[there], x[there] = encoded.multi_rows, encoded.multi_weights
        shape = n, n_multi, there.shape[1]
        out |= {f"{side}_multi_rows": rows.reshape(shape), f"{side}_multi_weights": x.reshape(shape)}
    return out


@dataclass
class Graphs:
    """The graphs of a folder; sessions are opened when they are first run."""

    folder: Path
    manifest: Manifest
    sessions: dict[str, Any] = field(default_factory=dict)

    def run(self, name: str, inputs: Feeds) -> list[np.ndarray]:
        """The outputs of a graph."""
        if name not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.sessions[name] = onnxruntime.InferenceSession(
                str(self.folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
            )
        found: list[np.ndarray] = self.sessions[name].run(None, inputs)
        return found

    def state(self, context: EncodedSide) -> np.ndarray:
        """States [c, S]."""
        return self.run("context", feeds(self.manifest, "context", context))[0]

    def item(self, items: EncodedSide) -> Feeds:
        """G and beta, by name."""
        return dict(zip(("g", "beta"), self.run("item", feeds(self.manifest, "item", items)), strict=True))

    def rank(self, state: np.ndarray, items: EncodedSide, index: Any = (0,), padding: int = 0) -> np.ndarray:
        """Scores [n]."""
        states = {"state": state, "state_index": np.array(index, np.int32)}
        return self.run("rank", states | feeds(self.manifest, "item", items, padding))[0]

    def score(self, context: EncodedSide, items: EncodedSide) -> np.ndarray:
        """Scores [n], row by row."""
        return self.run("score", feeds(self.manifest, "context", context) | feeds(self.manifest, "item", items))[0]


@dataclass
class Case:
    """A model, contexts and a slate."""

    manifest: Manifest
    weights: Weights
    contexts: EncodedSide
    items: EncodedSide

    def write(self, folder: Path) -> Graphs:
        """The weights and graphs in ``folder``."""
        write_tensors(folder / "weights.safetensors", weight_tensors(self.weights, self.manifest))
        write_graphs(folder, self.manifest)
        return Graphs(folder, self.manifest)


def make_case(
    family: str,
    *,
    dim: int = 5,
    rank: int = 2,
    singles: tuple[int, int] = (2, 3),
    multis: tuple[int, int] = (1, 2),
    dense: tuple[int, int] = (1, 1),
    n_items: int = 7,
    most_values: int = 3,
    scale: float = 0.5,
    seed: int = 0,
) -> Case:
    """A seeded case with two contexts; `singles`, `multis` and `dense` count the context's and the item's fields."""
    rng = np.random.default_rng(seed)
    fields = []
    for side, *counts in zip(("context", "item"), singles, multis, dense, strict=True):
        kinds = [kind for kind, n in zip(("categorical", "multi", "dense"), counts, strict=True) for _ in range(n)]
        rng.shuffle(kinds)  # the manifest mixes kinds: kernel order is another order
        fields += [FieldSpec(f"{side}{i}", side, kind, FIELD_SIZE) for i, kind in enumerate(kinds)]
    locality = random_locality(rng) if family == "llfm" else None
    manifest = Manifest(
        "case", family, "logistic", dim, tuple(fields), rank=rank if family == "dplr" else None, locality=locality
    )
    n = manifest.n_features
    weights = random_weights(rng, family, n, len(fields), dim, rank, scale)
    if family in NETWORK_FAMILIES:
        weights.network = random_network(
            family, len(fields), dim, lambda *shape: (rng.standard_normal(shape) * scale).astype(np.float32)
        )
    if locality is not None:
        weights = random_local(rng, manifest, scale)
    sides = (
        random_side(rng, manifest, "context", 2, most_values),
        random_side(rng, manifest, "item", n_items, most_values),
    )
    for side in sides:
        side.multi_weights[:] -= 0.5  # the number of a dense field may be negative
    return Case(manifest, weights, *sides)
