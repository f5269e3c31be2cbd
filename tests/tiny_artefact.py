"""Small real artefacts of every family, published in a registry through `models_export`, for tests.

The fields cover every kind on both sides:

- context: `user_id` (categorical), `hour` (categorical, an integer), `age` (numeric, ln2 bins), `recent` (multi),
  `tenure` (dense);
- item: `item_id` (categorical), `year` (categorical), `price` (numeric, quantile bins), `genre` (multi), `margin`
  (dense).

User ids are "u0".."u39", item ids "i0"... Values are drawn from a seeded generator: equal arguments, equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models_export.calibration import Calibration
from models_export.fields import FieldEncoder
from models_export.items import Items
from models_export.locality import Locality
from models_export.manifest import COMPILED_FAMILIES, FieldSpec, Manifest
from models_export.onnx_writer import write_graphs
from models_export.ragged_rows import RaggedShape
from models_export.reader import Artefact, read_artefact
from models_export.registry import Registry
from models_export.string_table import StringTable
from models_export.weights import Weights
from models_export.writer import write_artefact

USERS = [f"u{i}" for i in range(40)]
GENRES = ["Action", "Comedy", "Drama", "Film-Noir", "Kinderfilm für Große", "War"]
YEARS = [str(y) for y in range(1990, 2001)]
PRICE_EDGES = (1.0, 2.5, 5.0, 10.0)
CONTEXT: dict[str, Any] = {"user_id": "u7", "hour": 17, "age": 31, "recent": ["i1", "i2", "i3"], "tenure": 3.5}


def item_rows(n_items: int, seed: int = 0) -> list[dict[str, Any]]:
    """Raw item fields of the catalogue, in its order."""
    rng = np.random.default_rng([seed, 1])
    return [
        {
            "item_id": f"i{i}",
            "year": YEARS[int(rng.integers(len(YEARS)))],
            "price": round(float(rng.uniform(0, 15)), 2),
            "genre": [GENRES[j] for j in rng.choice(len(GENRES), size=int(rng.integers(1, 4)), replace=False)],
            "margin": round(float(rng.normal()), 3),
        }
        for i in range(n_items)
    ]


def tiny_encoder(n_items: int) -> FieldEncoder:
    """The encoder of the tiny models."""
    item_ids = [f"i{i}" for i in range(n_items)]
    values: dict[str, Sequence[str]] = {
        "user_id": USERS,
        "hour": [str(h) for h in range(24)],
        "age": [str(a) for a in range(3)] + [f"ln2:{b}" for b in range(25)],
        "recent": item_ids,
        "item_id": item_ids,
        "year": YEARS,
        "price": [str(b) for b in range(len(PRICE_EDGES) + 1)],
        "genre": GENRES,
        "tenure": (),
        "margin": (),
    }
    fields = [
        FieldSpec("user_id", "context", "categorical", 2),
        FieldSpec("hour", "context", "categorical", 2),
        FieldSpec("age", "context", "numeric", 2, "ln2"),
        FieldSpec("recent", "context", "multi", 2),
        FieldSpec("tenure", "context", "dense", 2, centre=3.0, scale=2.5),
        FieldSpec("item_id", "item", "categorical", 2),
        FieldSpec("year", "item", "categorical", 2),
        FieldSpec("price", "item", "numeric", 2, "quantile", PRICE_EDGES),
        FieldSpec("genre", "item", "multi", 2),
        FieldSpec("margin", "item", "dense", 2),
    ]
    return FieldEncoder.build(fields, values)


def random_weights(family: str, n: int, m: int, dim: int, rank: int, seed: int) -> Weights:
    """Seeded weights of plausible size: `n` features, `m` fields."""
    rng = np.random.default_rng([seed, 2])

    def draw(*shape: int, scale: float = 0.3) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    if family == "rafm":
        ranks = tuple(sorted({max(dim // 3, 1), max(dim // 2, 1), dim}))
        groups = rng.integers(1, len(ranks) + 1, n).astype(np.int32)
        vectors = draw(RaggedShape(ranks, groups).factors)
        return Weights(family, vectors, draw(n, scale=0.2), -0.5, ranks=ranks, groups=groups)
    matrix = low_rank_u = low_rank_e = None
    if family in ("fwfm", "pruned_fwfm"):
        upper = np.triu(draw(m, m), 1)
        if family == "pruned_fwfm":
            magnitude = np.abs(upper[upper != 0])
            upper[np.abs(upper) < np.median(magnitude)] = 0
        matrix = np.ascontiguousarray(upper + upper.T)
    elif family == "dplr":
        low_rank_u, low_rank_e = draw(rank, m, scale=0.7), draw(rank, scale=1.0)
    network = random_network(family, m, dim, draw)
    return Weights(family, draw(n, dim), draw(n, scale=0.2), -0.5, matrix, low_rank_u, low_rank_e, network)


def random_local(n: int, dim: int, locality: Locality, seed: int) -> Weights:
    """LLFM's anchors and machines for `n` features."""
    rng, m = np.random.default_rng([seed, 3]), locality.anchors

    def draw(*shape: int, scale: float = 0.3) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    machines = draw(n, m, dim), draw(n, m, scale=0.2), -0.5
    return Weights("llfm", *machines, anchor_bias=draw(m), anchors=draw(m, n, scale=0.1), locality=locality)


def random_network(family: str, m: int, dim: int, draw: Callable[..., np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a network with two hidden layers (afm: an attention of width 4; dcn: two cross layers)."""
    if family == "afm":
        return {
            "attention.weight": draw(4, dim), "attention.bias": draw(4), "attention.out": draw(4),
            "out.weight": draw(dim),
        }  # fmt: skip
    if family not in ("nfm", "dcn", "deepfm"):
        return {}
    n_in = dim if family == "nfm" else m * dim
    network = {"hidden_0.weight": draw(6, n_in), "hidden_0.bias": draw(6)}
    network |= {"hidden_1.weight": draw(5, 6), "hidden_1.bias": draw(5)}
    if family == "dcn":
        network |= {"cross.weight": draw(2, n_in), "cross.bias": draw(2, n_in)}
    return network | {"out.weight": draw(5 + (n_in if family == "dcn" else 0))}


def write_tiny(
    folder: Path,
    family: str = "dplr",
    *,
    name: str = "tiny",
    n_items: int = 60,
    dim: int = 8,
    rank: int = 2,
    seed: int = 0,
    loss: str = "logistic",
    calibration: Calibration | None = None,
    catalogue: bool = True,
    locality: Locality | None = None,
    graphs: bool = False,
) -> Manifest:
    """Write one artefact to `folder`, which must not exist, with its ONNX graphs if `graphs`."""
    encoder = tiny_encoder(n_items)
    manifest = Manifest(
        name=name,
        family=family,
        loss=loss,
        dim=dim,
        rank=rank if family == "dplr" else None,
        item_id_field="item_id",
        fields=encoder.fields,
        locality=locality or (Locality("jo", 21, 5, 1.0, 0.5, True) if family == "llfm" else None),
        training={"fingerprint": f"tiny-{seed}", "rows": 0},
        metrics={"auc": 0.5},
        calibration=calibration or Calibration(),
    )
    weights = random_weights(family, encoder.n_features, len(encoder.fields), dim, rank, seed)
    if manifest.locality is not None:
        weights = random_local(encoder.n_features, dim, manifest.locality, seed)
    items = None
    if catalogue:
        rows = item_rows(n_items)
        items = Items(StringTable.build([r["item_id"] for r in rows], 0), encoder.encode_side("item", rows))
    return write_artefact(folder, manifest, weights, encoder, items, write_graphs if graphs else None)


def tiny_artefact(folder: Path, family: str = "dplr", **options: Any) -> Artefact:
    """Write one artefact to `folder` and read it back. Options are those of `write_tiny`."""
    write_tiny(folder, family, **options)
    return read_artefact(folder)


def publish_tiny(root: Path, family: str = "dplr", *, name: str = "tiny", activate: bool = True, **options: Any) -> str:
    """Publish one version in the registry `root`, activate it, and return the version."""
    registry = Registry(root)
    version = registry.publish(name, lambda folder: write_tiny(folder, family, name=name, **options))
    if activate:
        registry.activate(name, version)
    return version


def tiny_registry(root: Path, families: Sequence[str] = COMPILED_FAMILIES, **options: Any) -> Registry:
    """A registry with one active model per family, each under its family's name."""
    for family in families:
        publish_tiny(root, family, name=family, **options)
    return Registry(root)
