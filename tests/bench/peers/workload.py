"""The one model, the slates, and what each request's answer has to be."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models_export.encoded import EncodedSide
from models_export.reader import Artefact, read_artefact
from models_export.registry import Registry
from service.bench.synthetic_model import N_CONTEXT, N_ITEMS, VALUES_PER_FIELD, publish_model, value

MODEL = "bench"
SIZES = (100, 1_000, 10_000)
TOP_K = 10
#: Scores agree to this share of the largest one of the slate.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Request:
    """One context with one slate: ``drawn`` the value of each context field, ``index`` int32 [n] catalogue rows."""

    drawn: tuple[int, ...]
    index: np.ndarray

    @property
    def context(self) -> dict[str, str]:
        """Context field -> value, as JSON carries it."""
        return {f"c{i}": value(f"c{i}", j) for i, j in enumerate(self.drawn)}

    def body(self) -> bytes:
        """The rank request."""
        ids = [f"i{i}" for i in self.index.tolist()]
        return msgspec.json.encode({"context": self.context, "item_ids": ids, "top_k": TOP_K})


def draw_requests(size: int, count: int, n_items: int = N_ITEMS) -> Iterator[Request]:
    """Seeded requests of ``size`` candidates each, all different."""
    rng = np.random.default_rng(size)
    for _ in range(count):
        drawn = tuple(rng.integers(0, VALUES_PER_FIELD, N_CONTEXT).tolist())
        yield Request(drawn, rng.choice(n_items, size, replace=False).astype(np.int32))


class Workload:
    """The published model as arrays."""

    def __init__(self, artefact: Artefact) -> None:
        assert artefact.items is not None
        self.artefact = artefact
        self.items: EncodedSide = artefact.items.side
        offsets = artefact.encoder.offsets
        self._first = np.asarray(offsets[:N_CONTEXT]) + 2  # known values start at 2

    @classmethod
    def publish(cls, registry: Path, n_items: int = N_ITEMS) -> Workload:
        """Publish the benchmark's model (DPLR rank 3, k = 8, 25 + 38 fields, 100,000 items) and open it; with its ONNX
        graphs where onnx is installed."""
        graphs = None
        if importlib.util.find_spec("onnx") is not None:
            from models_export.onnx_writer import write_graphs as graphs
        publish_model(registry, MODEL, n_items, graphs)
        return cls.open(registry)

    @classmethod
    def open(cls, registry: Path) -> Workload:
        """The active version of a published registry."""
        found = Registry(registry)
        return cls(read_artefact(found.path(MODEL, str(found.active(MODEL)))))

    def context_rows(self, request: Request) -> np.ndarray:
        """Feature rows of the context, int32 [1, fields]."""
        return (self._first + np.array(request.drawn))[None].astype(np.int32)

    def item_rows(self, request: Request) -> np.ndarray:
        """Feature rows of the slate, int32 [n, fields]."""
        return self.items.rows[request.index]

    def expected(self, request: Request) -> np.ndarray:
        """Scores of the slate in float64, by equation 5 of the DPLR paper over all fields at once."""
        weights = self.artefact.weights()
        U, e = np.asarray(weights.U, np.float64), np.asarray(weights.e, np.float64)
        rows = self.item_rows(request)
        rows = np.hstack([np.repeat(self.context_rows(request), len(rows), axis=0), rows])
        vectors = np.asarray(weights.vectors, np.float64)[rows]
        P = np.einsum("rf,nfk->nrk", U, vectors)
        diagonal = (vectors**2).sum(-1) @ -(e @ U**2)
        linear = np.asarray(weights.linear, np.float64)[rows].sum(-1)
        return weights.bias + linear + ((P**2).sum(-1) @ e + diagonal) / 2


def check_scores(name: str, scores: Any, expected: np.ndarray) -> None:
    """RuntimeError unless scores of a whole slate are the expected ones."""
    worst = float(np.abs(np.asarray(scores, np.float64) - expected).max() / np.abs(expected).max())
    if not worst <= TOLERANCE:
        raise RuntimeError(f"{name}: expected the scores of the formula to {TOLERANCE:g}, found {worst:.2g} apart")


def check_reply(name: str, reply: bytes, request: Request, expected: np.ndarray) -> None:
    """RuntimeError unless a server's reply holds the best ``TOP_K`` items, each with its own score. (Items whose
    scores are equal in float32 may change places.)"""
    items = msgspec.json.decode(reply)["items"]
    place = {f"i{i}": p for p, i in enumerate(request.index.tolist())}
    if len({item["id"] for item in items}) != TOP_K or not all(item["id"] in place for item in items):
        raise RuntimeError(f"{name}: expected {TOP_K} items of the slate, found {items}")
    scores = np.array([item["score"] for item in items])
    own = expected[[place[item["id"]] for item in items]]
    best = np.sort(expected)[::-1][:TOP_K]
    worst = max(np.abs(scores - own).max(), np.abs(scores - best).max()) / np.abs(expected).max()
    if not worst <= TOLERANCE:
        raise RuntimeError(f"{name}: expected the best {TOP_K} with their scores, found {worst:.2g} apart: {items}")
