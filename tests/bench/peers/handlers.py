"""What a host serves: a request's body -> the reply's, the same whoever hosts it.

kernel   ctrank's compiled call, from body to reply (items by id: their side is precomputed)
numpy    the DPLR paper's authors' formulation on vectors gathered with NumPy
onnx     ONNX Runtime on the row-wise graph, the context tiled over the items, one thread
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

from service.bench.synthetic_model import N_CONTEXT, VALUES_PER_FIELD, value
from tests.bench.peers.scorers import NumpyScorer, OnnxScorer
from tests.bench.peers.workload import MODEL, TOP_K, Workload

Handler = Callable[[bytes], bytes]


class _Body(msgspec.Struct):
    context: dict[str, str]
    item_ids: list[str]
    top_k: int


def make_handler(kind: str, registry: Path) -> Handler:
    """Load the published model; the handler is warm when this returns."""
    return kernel_handler(registry) if kind == "kernel" else scoring_handler(kind, registry)


def kernel_handler(registry: Path) -> Handler:
    """One compiled call for each request."""
    from service.rank_reply import head
    from service.ranking import Meters, RankingModel

    model = RankingModel.load(Workload.open(registry).artefact)
    model.warm()
    first = head(MODEL, "v000001", "computed")
    whole = model.whole_request(MODEL, first, Meters.discarded())
    assert whole is not None

    def handle(body: bytes) -> bytes:
        reply = whole.answer(body, perf_counter())
        assert reply is not None
        return reply

    return handle


def scoring_handler(kind: str, registry: Path) -> Handler:
    """Decode, look up values and ids in dictionaries, score, choose the best, encode: what one writes around a scorer
    in an afternoon, with a fast JSON library."""
    workload = Workload.open(registry)
    scorer = {"numpy": NumpyScorer, "onnx": OnnxScorer}[kind](workload)
    ids = workload.artefact.items.ids  # type: ignore[union-attr]
    place = {item: i for i, item in enumerate(ids)}
    first = np.asarray(workload.artefact.encoder.offsets[:N_CONTEXT]).tolist()
    row = {value(f"c{i}", j): first[i] + 2 + j for i in range(N_CONTEXT) for j in range(VALUES_PER_FIELD)}
    names = [f"c{i}" for i in range(N_CONTEXT)]
    decoder, encoder = msgspec.json.Decoder(_Body), msgspec.json.Encoder()

    def handle(body: bytes) -> bytes:
        request = decoder.decode(body)
        context = np.array([[row[request.context[name]] for name in names]], np.int32)
        index = np.array([place[item] for item in request.item_ids], np.int32)
        scores = scorer(context, workload.items.rows[index])
        best = np.argpartition(-scores, min(TOP_K, len(scores) - 1))[: request.top_k]
        best = best[np.argsort(-scores[best], kind="stable")]
        probabilities = 1.0 / (1.0 + np.exp(-scores[best].astype(np.float64)))
        items = [
            {"id": request.item_ids[i], "score": s, "probability": p}
            for i, s, p in zip(best.tolist(), scores[best].tolist(), probabilities.tolist(), strict=True)
        ]
        return encoder.encode({"model": MODEL, "version": "v000001", "context_source": "computed", "items": items})

    return handle
