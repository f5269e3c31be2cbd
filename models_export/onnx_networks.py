"""Graphs of the networks NFM, DCN and DeepFM (AFM: ``onnx_attention.py``), split where the split is exact.

What a side adds by itself is computed once: sums and squares of its vectors, and its columns' share of the first layer,
h = W_C x_C + W_I x_I + bias. DCN's crosses need no more than scalars of each side, since x_l = a_l x_0 + p_l:

    a_0 = 1, p_0 = 0,   a_{l+1} = a_l (1 + x_C . w_l + x_I . w_l) + p_l . w_l,   p_{l+1} = p_l + c_l
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from models_export.manifest import Manifest
from models_export.network import PREFIX
from models_export.onnx_closed import ROWS
from models_export.onnx_family import GraphFamily
from models_export.onnx_graph import GraphBuilder
from models_export.onnx_layers import Layers
from models_export.onnx_side import SideInputs, field_rows
from models_export.tensor_file import Array


class NetworkGraphs(GraphFamily):
    """A network whose sides are [t, shares]: t holds the linear sum, with the global bias for contexts."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest)
        self.tensors = tensors

    @abstractmethod
    def side(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """T [n, 1] without the global bias, and the shares [n, vector_size or state_size - 1]."""

    def context(self, b: GraphBuilder, inputs: SideInputs) -> str:
        """See ``GraphFamily``."""
        t, shares = self.side(b, inputs)
        return b.concat(b.add(t, b.weight("global_bias")), shares)

    def item(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``GraphFamily``."""
        t, shares = self.side(b, inputs)
        return shares, b.squeeze(t, 1)

    def linear(self, b: GraphBuilder, rows: str) -> str:
        """Sum x b of field rows, [n, 1]."""
        kp = self.manifest.kp
        return b.sum(b.part(rows, kp + 1, kp + 2), 1)

    def row_share(self, b: GraphBuilder, inputs: SideInputs, rows: str, matrix: str) -> str:
        """The side's part of ``matrix`` [h, m k] x_0, float32 [n, h]: x_0 is v_1 .. v_m side by side."""
        m, side = self.manifest, inputs.side
        own, order, dim = m.side_fields(side), m.kernel_order(side), m.dim
        v = b.part(rows, 0, dim)
        if own != order:
            v = b.pick(v, [order.index(f) for f in own], axis=1)
        start = 0 if side == "context" else len(m.side_fields("context")) * dim
        columns = b.part(matrix, start, start + len(own) * dim)
        return b.op("Gemm", b.reshape(v, 0, len(own) * dim), columns, transB=1)


class SumsGraphs(NetworkGraphs):
    """A network over sums of features."""

    def sums(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """S = sum x v and sum x^2 v * v over features, each [n, dim]."""
        dim, table, s, squares = self.manifest.dim, b.weight(ROWS), [], []
        if inputs.n_single or not inputs.n_multi:
            v = b.part(inputs.gather(b, table), 0, dim)
            s.append(b.sum(v, 1))
            squares.append(b.squares(v, 1))
        if inputs.n_multi:
            rows, x = inputs.gather_lists(b, table)
            v = b.mul(x, b.part(rows, 0, dim))
            s.append(b.sum(v, 1, 2))
            squares.append(b.squares(v, 1, 2))
        return b.add(*s), b.add(*squares)


class NfmGraphs(SumsGraphs):
    """Shares [S, B], B = 1/2 (S * S - sum x^2 v * v); pooled = B_C + B_I + S_C * S_I (He and Chua 2017)."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest, tensors)
        self.vector_size = 2 * manifest.dim
        self.state_size = 1 + self.vector_size
        self._layers = Layers(tensors, manifest.dim)

    def side(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``NetworkGraphs``."""
        s, squares = self.sums(b, inputs)
        pairs = b.half(b.op("Sub", b.mul(s, s), squares))
        return self.linear(b, field_rows(b, inputs, b.weight(ROWS))), b.concat(s, pairs)

    def scores(self, b: GraphBuilder, state: str, g: str, beta: str) -> str:
        """See ``GraphFamily``."""
        dim = self.manifest.dim
        t, s, pairs = b.parts(state, 1, dim, dim)
        item_s, item_pairs = b.parts(g, dim, dim)
        pooled = b.add(b.mul(s, item_s), item_pairs, pairs)
        return b.add(b.squeeze(b.add(self._layers.apply(b, pooled), t), 1), beta)


class DeepFmGraphs(SumsGraphs):
    """Shares [S, h] beside FM's own scalar (Guo et al. 2017)."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest, tensors)
        self._layers = Layers(tensors, manifest.dim * len(manifest.fields))
        self.vector_size = manifest.dim + self._layers.n_first
        self.state_size = 1 + self.vector_size

    def side(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``NetworkGraphs``: t = sum x b + 1/2 (|S|^2 - sum x^2 |v|^2)."""
        rows = field_rows(b, inputs, b.weight(ROWS))
        s, squares = self.sums(b, inputs)
        pairs = b.half(b.row_sum(b.op("Sub", b.mul(s, s), squares), self.manifest.dim))
        h = self.row_share(b, inputs, rows, self._layers.first(b))
        if inputs.side == "context":
            h = self._layers.with_bias(b, h)
        return b.add(self.linear(b, rows), pairs), b.concat(s, h)

    def scores(self, b: GraphBuilder, state: str, g: str, beta: str) -> str:
        """See ``GraphFamily``."""
        dim, n_first = self.manifest.dim, self._layers.n_first
        t, s, h = b.parts(state, 1, dim, n_first)
        item_s, item_h = b.parts(g, dim, n_first)
        deep = self._layers.finish(b, b.add(item_h, h))
        return b.add(b.squeeze(b.add(deep, b.row_sum(b.mul(s, item_s), dim), t), 1), beta)


class DcnGraphs(NetworkGraphs):
    """Shares [x . w_l for each cross layer, x . out_cross, h] (Wang et al. 2017)."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest, tensors)
        self._n_in = manifest.dim * len(manifest.fields)
        self._layers = Layers(tensors, self._n_in, self._n_in)
        weight, bias, out = (
            tensors[PREFIX + name].astype(np.float64) for name in ("cross.weight", "cross.bias", "out.weight")
        )
        offsets = np.cumsum([np.zeros(self._n_in), *bias], axis=0)
        self._depth = len(weight)
        self._products = [float(p @ w) for p, w in zip(offsets, [*weight, out[: self._n_in]], strict=True)]
        self.vector_size = self._depth + 1 + self._layers.n_first
        self.state_size = 1 + self.vector_size

    def side(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``NetworkGraphs``."""
        out = b.reshape(b.part(b.weight(f"{PREFIX}out.weight"), 0, self._n_in), 1, self._n_in)
        crosses = [b.weight(f"{PREFIX}cross.weight")] if self._depth else []
        rows = field_rows(b, inputs, b.weight(ROWS))
        shares = self.row_share(b, inputs, rows, b.concat(*crosses, out, self._layers.first(b), axis=0))
        if inputs.side == "context":
            scalars, h = b.parts(shares, self._depth + 1, self._layers.n_first)
            shares = b.concat(scalars, self._layers.with_bias(b, h))
        return self.linear(b, rows), shares

    def scores(self, b: GraphBuilder, state: str, g: str, beta: str) -> str:
        """See ``GraphFamily``."""
        t, shares = b.parts(state, 1, self.vector_size)
        *crosses, h = b.parts(b.add(g, shares), *[1] * (self._depth + 1), self._layers.n_first)
        a, last = b.constant(1.0), len(crosses) - 1
        for cross, product in zip(crosses[:last], self._products, strict=False):
            a = b.add(b.mul(a, b.add(cross, b.constant(1.0))), b.constant(product))
        crossed = b.add(b.mul(a, crosses[last]), b.constant(self._products[last]))
        return b.add(b.squeeze(b.add(self._layers.finish(b, h), crossed, t), 1), beta)
