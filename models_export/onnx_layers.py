"""The networks' relu layers inside a graph: the first one split into context and item shares, the rest per item."""

from __future__ import annotations

from collections.abc import Mapping

from models_export.network import PREFIX
from models_export.onnx_graph import GraphBuilder
from models_export.tensor_file import Array


class Layers:
    """out . layers(x), x of ``n_in`` floats; ``out`` is ``out.weight`` without its first ``skipped`` numbers. Without a
    hidden layer, ``out`` itself is the first matrix: h has one row."""

    def __init__(self, tensors: Mapping[str, Array], n_in: int, skipped: int = 0) -> None:
        self._n_in, self._skipped = n_in, skipped
        self.widths: list[int] = []
        while (name := f"{PREFIX}hidden_{len(self.widths)}.weight") in tensors:
            self.widths.append(len(tensors[name]))
        self.n_first = self.widths[0] if self.widths else 1

    def first(self, b: GraphBuilder) -> str:
        """The matrix of the first layer, [n_first, n_in]."""
        return b.weight(f"{PREFIX}hidden_0.weight") if self.widths else b.reshape(self._out(b), 1, self._n_in)

    def with_bias(self, b: GraphBuilder, h: str) -> str:
        """The first layer's bias added to a share [c, n_first]."""
        return b.add(h, b.weight(f"{PREFIX}hidden_0.bias")) if self.widths else h

    def finish(self, b: GraphBuilder, h: str) -> str:
        """Out . layers(x), [n, 1], of the first layer's sums h [n, n_first], bias included."""
        if not self.widths:
            return h
        x = b.op("Relu", h)
        for number in range(1, len(self.widths)):
            name = f"{PREFIX}hidden_{number}"
            x = b.op("Relu", b.op("Gemm", x, b.weight(f"{name}.weight"), b.weight(f"{name}.bias"), transB=1))
        return b.op("Gemm", x, b.reshape(self._out(b), 1, self.widths[-1]), transB=1)

    def apply(self, b: GraphBuilder, x: str) -> str:
        """Out . layers(x), [n, 1], of x [n, n_in]."""
        return self.finish(b, self.with_bias(b, b.op("Gemm", x, self.first(b), transB=1)))

    def _out(self, b: GraphBuilder) -> str:
        size = self.widths[-1] if self.widths else self._n_in
        return b.part(b.weight(f"{PREFIX}out.weight"), self._skipped, self._skipped + size)
