"""Scorers in one process, from feature rows to scores: ``scorer(context_rows [1, C], item_rows [n, I]) -> [n]``."""

from __future__ import annotations

from typing import Any

import numpy as np

from service.bench.authors import authors_scores
from service.kernels.dplr import DplrKernel
from service.kernels.of_artefact import KERNELS
from service.kernels.side import single
from tests.bench.peers.workload import Workload


class KernelScorer:
    """ctrank's kernel: context state, then every item's fields."""

    def __init__(self, workload: Workload) -> None:
        kernel = KERNELS["dplr"](workload.artefact)
        assert isinstance(kernel, DplrKernel)
        self.kernel = kernel

    def __call__(self, context: np.ndarray, items: np.ndarray) -> np.ndarray:
        return self.kernel.score_items(self.kernel.context_state(single(context)), single(items))


class PrecomputedScorer(KernelScorer):
    """ctrank's kernel on the precomputed item side; items by catalogue row, int32 [n]."""

    def __init__(self, workload: Workload) -> None:
        from service.kernels.catalogue import CatalogueKernel

        super().__init__(workload)
        self.g, self.beta = self.kernel.item_side(single(workload.items.rows))
        self.catalogue = CatalogueKernel(self.kernel.vector_size)

    def __call__(self, context: np.ndarray, index: np.ndarray) -> np.ndarray:
        alpha, a = self.kernel.query(self.kernel.context_state(single(context)))
        return self.catalogue.score_index(self.g, self.beta, alpha, a, index)


class NumpyScorer:
    """The authors' formulation, float32: the context's projection once, the items' on gathered vectors."""

    def __init__(self, workload: Workload) -> None:
        weights = workload.artefact.weights()
        self.vectors, self.linear = np.ascontiguousarray(weights.vectors), np.ascontiguousarray(weights.linear)
        U, self.e, self.bias = np.asarray(weights.U), np.asarray(weights.e), np.float32(weights.bias)
        n_context = sum(f.side == "context" for f in workload.artefact.manifest.fields)
        self.U_context, self.U_item = np.ascontiguousarray(U[:, :n_context]), np.ascontiguousarray(U[:, n_context:])
        d = -(self.e @ U**2)
        self.d_context, self.d_item = d[:n_context], d[n_context:]

    def __call__(self, context: np.ndarray, items: np.ndarray) -> np.ndarray:
        v = self.vectors[context[0]]
        t = self.bias + self.linear[context[0]].sum() + (np.square(v).sum(-1) @ self.d_context) / 2
        P = self.U_context @ v
        gathered = self.vectors[items], self.linear[items]
        return authors_scores(*gathered, self.U_item, self.e, self.d_item, P, t).astype(np.float32)


def _session(path: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OnnxScorer:
    """ONNX Runtime on the artefact's row-wise graph: every row carries its context, as a model server sends it."""

    def __init__(self, workload: Workload) -> None:
        self.session = _session(workload.artefact.path / "score.onnx")

    def __call__(self, context: np.ndarray, items: np.ndarray) -> np.ndarray:
        tiled = np.repeat(context, len(items), axis=0)
        return self.session.run(["scores"], {"context_rows": tiled, "item_rows": items})[0]


class SplitOnnxScorer:
    """ONNX Runtime on ctrank's two graphs: the context once, then the items."""

    def __init__(self, workload: Workload) -> None:
        folder = workload.artefact.path
        self.context, self.rank = _session(folder / "context.onnx"), _session(folder / "rank.onnx")

    def __call__(self, context: np.ndarray, items: np.ndarray) -> np.ndarray:
        (state,) = self.context.run(["state"], {"context_rows": context})
        fed = {"state": state, "state_index": np.zeros(1, np.int32), "item_rows": items}
        return self.rank.run(["scores"], fed)[0]


class VowpalWabbit:
    """``--cb_adf -q CI``: one linear weight per feature and per pair of a context and an item feature, hashed into
    2^22, the context given once per slate (``shared``). Weights of its own: learnt from 300 random slates of 20. Text
    in, scores out; the items' lines are made beforehand."""

    ARGUMENTS = "--cb_adf -q CI -b 22 --quiet"

    def __init__(self, workload: Workload) -> None:
        from vowpalwabbit import Workspace

        self.workspace = Workspace(self.ARGUMENTS)
        self.lines = [f"|I {' '.join(map(str, rows))}" for rows in workload.items.rows.tolist()]
        rng = np.random.default_rng(1)
        n_context = sum(f.side == "context" for f in workload.artefact.manifest.fields)
        for _ in range(300):
            slate = rng.integers(0, len(self.lines), 20).astype(np.int32)
            shared, *lines = self.text(rng.integers(0, 1000 * n_context, (1, n_context)), slate)
            lines[0] = f"0:{rng.random():.3f}:0.05 {lines[0]}"
            self.workspace.learn([shared, *lines])

    def text(self, context: np.ndarray, index: np.ndarray) -> list[str]:
        """The slate as examples."""
        shared = f"shared |C {' '.join(map(str, context[0].tolist()))}"
        return [shared, *[self.lines[i] for i in index.tolist()]]

    def __call__(self, context: np.ndarray, index: np.ndarray) -> Any:
        return self.workspace.predict(self.text(context, index))
