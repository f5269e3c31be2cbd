"""Random models and encoded sides for kernel tests: every shape the kernels know, a few compiled specialisations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from models_export.encoded import EncodedSide
from models_export.locality import Locality, pack_local
from models_export.manifest import FieldSpec, Manifest
from models_export.ragged_rows import RaggedShape, pack_ragged
from models_export.weights import Weights, pack_rows
from service.kernels.dplr import DplrKernel
from service.kernels.fm import FmKernel
from service.kernels.fwfm import FwfmKernel
from service.kernels.llfm import LlfmKernel
from service.kernels.rafm import RafmKernel
from service.kernels.side import Side

FIELD_SIZE = 4


@dataclass
class Case:
    """A model, a context and a slate, and the kernel over them."""

    manifest: Manifest
    weights: Weights
    kernel: Any
    context: EncodedSide
    items: EncodedSide


def arrays(side: EncodedSide) -> Side:
    return side.rows, side.multi_indptr, side.multi_rows, side.multi_weights


def make_case(
    family: str,
    *,
    dim: int,
    rank: int = 2,
    singles: tuple[int, int] = (2, 3),
    multis: tuple[int, int] = (1, 1),
    n_items: int = 6,
    most_values: int = 3,
    scale: float = 0.5,
    seed: int = 0,
) -> Case:
    """A seeded case: `singles` and `multis` count the context's and the item's fields of each kind."""
    rng = np.random.default_rng(seed)
    fields = []
    for side, n_single, n_multi in zip(("context", "item"), singles, multis, strict=True):
        kinds = ["categorical"] * n_single + ["multi"] * n_multi
        rng.shuffle(kinds)  # the manifest mixes kinds: kernel order is another order
        fields += [FieldSpec(f"{side}{i}", side, kind, FIELD_SIZE) for i, kind in enumerate(kinds)]  # type: ignore
    manifest = Manifest(
        name="case",
        family=family,
        loss="logistic",
        dim=dim,
        rank=rank if family == "dplr" else None,
        item_id_field=None,
        fields=tuple(fields),
        training={},
        metrics={},
        locality=random_locality(rng) if family == "llfm" else None,
    )
    weights = random_weights(rng, family, manifest.n_features, len(fields), dim, rank, scale)
    if manifest.locality is not None:
        weights = random_local(rng, manifest, scale)
    context = random_side(rng, manifest, "context", 1, most_values)
    items = random_side(rng, manifest, "item", n_items, most_values)
    return Case(manifest, weights, make_kernel(manifest, weights), context, items)


def random_locality(rng: np.random.Generator) -> Locality:
    """Any scheme; few sizes, so that few kernels are compiled."""
    anchors = int(rng.choice([1, 5, 16, 21]))
    neighbours = int(rng.integers(1, anchors + 1))
    scheme = ("do", "apl", "jo")[rng.integers(3)]
    beta, ratio = float(rng.choice([0.0, 0.3, 1.0])), float(rng.choice([0.1, 1.0]))
    return Locality(scheme, anchors, neighbours, beta, ratio, bool(rng.integers(2)))


def random_local(rng: np.random.Generator, manifest: Manifest, scale: float) -> Weights:
    """Random anchors, each with its machine."""
    assert manifest.locality is not None
    n, m = manifest.n_features, manifest.locality.anchors

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    machines = draw(n, m, manifest.dim), draw(n, m), float(draw(1)[0])
    return Weights("llfm", *machines, anchor_bias=draw(m), anchors=draw(m, n), locality=manifest.locality)


def random_weights(rng: np.random.Generator, family: str, n: int, m: int, dim: int, rank: int, scale: float) -> Weights:
    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    matrix = U = e = None
    if family == "rafm":
        ranks = ranks_of(dim, rank)
        groups = rng.integers(1, len(ranks) + 1, n).astype(np.int32)
        return Weights(
            family, draw(RaggedShape(ranks, groups).factors), draw(n), float(draw(1)[0]), ranks=ranks, groups=groups
        )
    if family in ("fwfm", "pruned_fwfm"):
        upper = np.triu(draw(m, m), 1)
        if family == "pruned_fwfm":
            upper[rng.random(upper.shape) < 0.6] = 0
        matrix = upper + upper.T
    elif family == "dplr":
        U, e = draw(rank, m), draw(rank)
    return Weights(family, draw(n, dim), draw(n), float(draw(1)[0]), matrix, U, e)


def ranks_of(dim: int, rank: int) -> tuple[int, ...]:
    """Up to `rank` ranks, the last one `dim`, each half of the next."""
    return tuple(sorted({max(dim >> shift, 1) for shift in range(rank)}))


def random_side(rng: np.random.Generator, manifest: Manifest, side: Any, n: int, most_values: int) -> EncodedSide:
    """Random rows; multi-valued fields have 0 to `most_values` values, duplicates included."""
    first = [manifest.offsets[f] for f in manifest.kernel_order(side)]
    n_multi = manifest.n_multi(side)
    n_single = len(first) - n_multi
    rows = rng.integers(0, FIELD_SIZE, (n, n_single)) + np.array(first[:n_single], np.int64)
    counts = rng.integers(0, most_values + 1, n * n_multi)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    starts = np.repeat(np.tile(np.array(first[n_single:], np.int64), n), counts)
    values = starts + rng.integers(0, FIELD_SIZE, len(starts))
    x = rng.uniform(0, 2, len(starts)).astype(np.float32)
    return EncodedSide(rows.astype(np.int32), indptr, values.astype(np.int32), x)


def make_kernel(manifest: Manifest, weights: Weights, family: str | None = None) -> Any:
    """The kernel over the packed rows of `weights`; its table is read-only, as a memory-mapped one is."""
    if weights.ragged is not None:
        packed = pack_ragged(weights.ragged, weights.vectors, weights.linear)
        for array in (packed.rows, packed.records, packed.linear):
            array.flags.writeable = False
        return RafmKernel(packed.ranks, packed.rows, packed.records, packed.linear, weights.bias)
    if weights.locality is not None:
        assert weights.anchors is not None and weights.anchor_bias is not None
        table = pack_local(weights, manifest)
        table.flags.writeable = False
        places = table, weights.anchors, weights.anchor_bias, manifest.dim, weights.bias
        return LlfmKernel(weights.locality, *places, manifest.n_multi("context"), manifest.n_multi("item"))
    table = pack_rows(weights, manifest)
    table.flags.writeable = False
    kp, bias = manifest.kp, weights.bias
    context, item = manifest.kernel_order("context"), manifest.kernel_order("item")
    n_multi = manifest.n_multi("context"), manifest.n_multi("item")
    family = family or manifest.family
    if family == "fm":
        return FmKernel(table, kp, bias, *n_multi)
    if family == "dplr":
        assert weights.U is not None and weights.e is not None
        return DplrKernel(table, kp, bias, weights.U[:, context], weights.U[:, item], weights.e, *n_multi)
    R = weights.field_matrix
    assert R is not None
    blocks = R[np.ix_(context, context)], R[np.ix_(context, item)], R[np.ix_(item, item)]
    return FwfmKernel(table, kp, bias, *blocks, family == "pruned_fwfm", *n_multi)


@st.composite
def cases(draw: st.DrawFn, family: str) -> Case:
    """Any small case: kp is 8, 16 or 24 and the rank 1 to 4, so that few kernels are compiled."""
    singles = draw(st.tuples(st.integers(0, 6), st.integers(0, 6)))
    multis = draw(st.tuples(st.integers(int(singles[0] == 0), 2), st.integers(int(singles[1] == 0), 2)))
    return make_case(
        family,
        dim=draw(st.integers(1, 20)),
        rank=draw(st.integers(1, 4)),
        singles=singles,
        multis=multis,
        n_items=draw(st.integers(0, 11)),
        most_values=draw(st.integers(0, 4)),
        scale=draw(st.sampled_from([0.1, 1.0])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )
