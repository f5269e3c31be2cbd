"""What the graphs ask of a family: its context state, its item side, and how the two become scores."""

from __future__ import annotations

from abc import ABC, abstractmethod

from models_export.manifest import Manifest
from models_export.onnx_graph import GraphBuilder
from models_export.onnx_side import SideInputs


class GraphFamily(ABC):
    """A family over an artefact. Batches: c contexts, n items; ``state`` that meets items has r = 1 or n rows."""

    state_size: int
    vector_size: int

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @abstractmethod
    def context(self, b: GraphBuilder, inputs: SideInputs) -> str:
        """States [c, state_size]."""

    @abstractmethod
    def item(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """The item side: g [n, vector_size] and beta [n]."""

    @abstractmethod
    def scores(self, b: GraphBuilder, state: str, g: str, beta: str) -> str:
        """Scores [n] of items whose sides are ``g`` and ``beta``; ``state`` [r, state_size]."""

    def catalogue(self, b: GraphBuilder, state: str, g: str, beta: str) -> str:
        """``scores`` for one state [1, state_size] and many items."""
        return self.scores(b, state, g, beta)


class QueryFamily(GraphFamily):
    """A family whose scores are alpha + beta + <a, g>."""

    @abstractmethod
    def query(self, b: GraphBuilder, state: str) -> tuple[str, str]:
        """Alpha [r] and a [r, vector_size] of states."""

    def scores(self, b: GraphBuilder, state: str, g: str, beta: str) -> str:
        """See ``GraphFamily``."""
        alpha, a = self.query(b, state)
        return b.add(b.sum(b.mul(a, g), 1), beta, alpha)

    def catalogue(self, b: GraphBuilder, state: str, g: str, beta: str) -> str:
        """See ``GraphFamily``: one matrix product. Gemm, since a matrix-vector product of ONNX Runtime rounds the last
        rows of a matrix differently, and equal items are to have equal scores."""
        alpha, a = self.query(b, state)
        products = b.op("Gemm", g, a, transB=1)
        return b.add(b.squeeze(products, 1), beta, alpha)


class SymmetricFamily(QueryFamily):
    """A query family whose sides are alike: [t, s] each, score = t_C + t_I + 1/2 <a(s_C + s_I), s_C + s_I>, a linear
    and symmetric. State: [t_C, s_C]; g = s_I, beta = t_I + 1/2 <a(s_I), s_I>."""

    @abstractmethod
    def sums(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """Of each row t [n, 1], without the global bias, and s [n, vector_size]."""

    @abstractmethod
    def partner(self, b: GraphBuilder, s: str) -> str:
        """a(s), [r, vector_size]."""

    @property
    def state_size(self) -> int:  # type: ignore[override]
        """One scalar before the sums."""
        return 1 + self.vector_size

    def context(self, b: GraphBuilder, inputs: SideInputs) -> str:
        """See ``GraphFamily``."""
        t, s = self._sums(b, inputs)
        return b.concat(b.add(t, b.weight("global_bias")), s)

    def item(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``GraphFamily``."""
        t, s = self._sums(b, inputs)
        return s, b.add(b.squeeze(t, 1), self._own(b, s, self.partner(b, s)))

    def query(self, b: GraphBuilder, state: str) -> tuple[str, str]:
        """See ``QueryFamily``."""
        t, s = b.parts(state, 1, self.vector_size)
        a = self.partner(b, s)
        return b.add(b.squeeze(t, 1), self._own(b, s, a)), a

    def _sums(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """``sums``; zeros without fields, over which a MatMul of ONNX Runtime is not defined."""
        return self.sums(b, inputs) if inputs.n_fields else (inputs.zeros(b, 1), inputs.zeros(b, self.vector_size))

    @staticmethod
    def _own(b: GraphBuilder, s: str, a: str) -> str:
        """1/2 <a(s), s>, [r]."""
        return b.half(b.sum(b.mul(a, s), 1))
