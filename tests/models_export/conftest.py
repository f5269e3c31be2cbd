"""A small real artefact for the contract's tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from models_export.encoded import EncodedSide
from models_export.fields import FieldEncoder
from models_export.items import Items
from models_export.locality import Locality
from models_export.manifest import FieldSpec, Manifest
from models_export.ragged_rows import RaggedShape
from models_export.string_table import StringTable
from models_export.weights import Weights
from models_export.writer import write_artefact


@dataclass
class Model:
    manifest: Manifest
    weights: Weights
    encoder: FieldEncoder
    items: Items

    def write(self, folder: Path) -> Manifest:
        return write_artefact(folder, self.manifest, self.weights, self.encoder, self.items)


def make_model(family: str = "dplr", dim: int = 6) -> Model:
    rng = np.random.default_rng(0)
    specs = [
        FieldSpec("user", "context", "categorical", 2),
        FieldSpec("age", "context", "numeric", 2, binning="ln2"),
        FieldSpec("movie", "item", "categorical", 2),
        FieldSpec("genres", "item", "multi", 2),
    ]
    values = {"user": ["u1", "ü2"], "age": ["1", "ln2:9"], "movie": ["m1", "m2", "m3"], "genres": ["War", "Drama"]}
    encoder = FieldEncoder.build(specs, values)
    n, m, rank = encoder.n_features, len(specs), 2 if family == "dplr" else None
    if family == "rafm":
        ranks, groups = (2, dim), rng.integers(1, 3, n).astype(np.int32)
        vectors = rng.normal(size=RaggedShape(ranks, groups).factors).astype(np.float32)
        ragged = {"vectors": vectors, "ranks": ranks, "groups": groups}
    matrix = np.triu(rng.normal(size=(m, m)), 1).astype(np.float32)
    weights = Weights(
        family,
        rng.normal(size=(n, dim)).astype(np.float32),
        rng.normal(size=n).astype(np.float32),
        0.25,
        field_matrix=matrix + matrix.T if "fwfm" in family else None,
        U=rng.normal(size=(2, m)).astype(np.float32) if rank else None,
        e=rng.normal(size=2).astype(np.float32) if rank else None,
    )
    if family == "rafm":
        weights = replace(weights, **ragged)
    locality = None
    if family == "llfm":
        locality = Locality("apl", 5, 3, 1.0, 1.0, False)
        shapes = {"vectors": (n, 5, dim), "linear": (n, 5), "anchor_bias": (5,), "anchors": (5, n)}
        local = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        weights = replace(weights, **local, locality=locality)
    manifest = Manifest(
        "movielens", family, "logistic", dim, encoder.fields, rank=rank, item_id_field="movie", locality=locality
    )
    side = encoder.encode_side(
        "item", [{"movie": "m1", "genres": ["War"]}, {"movie": "m2"}, {"movie": "m3", "genres": {"War": 2, "x": 1}}]
    )
    assert isinstance(side, EncodedSide)
    return Model(manifest, weights, encoder, Items(StringTable.build(["m1", "m2", "m3"], 0), side))


@pytest.fixture
def model() -> Model:
    return make_model()
