"""Graphs of LLFM (Liu et al. 2017), over features: the formula of ``service/kernels/llfm.py``.

State and item side are rows of the table's layout (``locality.py``), sums over features: distances to the anchors, and
a slot [S_a, folded] for each anchor's machine, f_a = 1/2 |S_a|^2 + folded.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models_export.locality import local_stride, locality_of, slot_width
from models_export.manifest import Manifest
from models_export.onnx_closed import ROWS
from models_export.onnx_family import GraphFamily
from models_export.onnx_graph import GraphBuilder
from models_export.onnx_side import SideInputs
from models_export.tensor_file import Array


class LlfmGraphs(GraphFamily):
    """Score = sum_a gamma_a f_a over the neighbours of the point that context and item make together."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest)
        self._locality = locality_of(manifest)
        self._width = slot_width(manifest.dim)
        self.state_size = self.vector_size = local_stride(manifest)
        anchors = tensors["local_anchors"].view(np.float32)
        self._norms = np.einsum("mn,mn->m", anchors, anchors, dtype=np.float64)

    def context(self, b: GraphBuilder, inputs: SideInputs) -> str:
        """See ``GraphFamily``: the sums begin with |z_a|^2 and bias_a + b0."""
        biases = b.expand(b.add(b.weight("local_bias"), b.weight("global_bias")), 0)
        return b.add(self._sums(b, inputs), self._row(b, b.constant(self._norms[None]), biases))

    def item(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``GraphFamily``; beta is 0."""
        g = self._sums(b, inputs)
        return g, b.op("ConstantOfShape", b.part(b.op("Shape", g), 0, 1, axis=0))

    def scores(self, b: GraphBuilder, state: str, g: str, beta: str) -> str:
        """See ``GraphFamily``."""
        row = b.add(g, state)
        v, folded = b.parts(self._slots(b, row, 0), self.manifest.dim, 1)
        anchors, dim = self._locality.anchors, self.manifest.dim
        squares = b.reshape(b.row_sum(b.reshape(b.mul(v, v), -1, dim), dim), -1, anchors)
        machines = b.add(b.half(squares), b.squeeze(folded, 2))
        distances = b.part(row, 0, self._locality.anchors)
        jo = self._locality.scheme == "jo"
        count = self._locality.anchors if jo else self._locality.neighbours
        least, which = b.ops("TopK", 2, distances, b.ints(count), axis=1, largest=0, sorted=1)
        gamma = self._greedy(b, least) if jo else self._nearest(b, least)
        chosen = b.op("GatherElements", machines, which, axis=1)
        return b.add(b.squeeze(b.row_sum(b.mul(gamma, chosen), count), 1), beta)

    def _nearest(self, b: GraphBuilder, distances: str) -> str:
        """DO, APL: gamma ~ exp(-beta d^2)."""
        return b.op("Softmax", b.mul(distances, b.constant(-self._locality.beta)), axis=1)

    def _greedy(self, b: GraphBuilder, distances: str) -> str:
        """JO: neighbours are taken, nearest first, while lambda of those before exceeds u; gamma ~ lambda - u. In
        float64; u counts from the nearest, which moves lambda alike."""
        far = b.cast(distances, "float64")
        if not self._locality.squared:
            far = b.op("Sqrt", b.op("Max", far, b.constant(0.0, "float64")))
        u = b.mul(b.op("Sub", far, b.part(far, 0, 1)), b.constant(self._locality.ratio, "float64"))
        squares, anchors, axis = b.mul(u, u), self._locality.anchors, b.constant(1, "int32")
        counts = b.constant(np.arange(1.0, anchors + 1.0), "float64")
        bounds = self._bound(b, counts, b.op("CumSum", u, axis), b.op("CumSum", squares, axis))
        near = b.op("Less", b.part(u, 1, anchors), b.part(bounds, 0, anchors - 1))
        missed = b.concat(b.part(u, 0, 1), b.cast(b.op("Not", near), "float64"))  # u of the nearest is 0
        taken = b.cast(b.op("Less", b.op("CumSum", missed, axis), b.constant(0.5, "float64")), "float64")
        sums = [b.sum(value, 1, keep=True) for value in (taken, b.mul(taken, u), b.mul(taken, squares))]
        gamma = b.mul(taken, b.op("Sub", self._bound(b, *sums), u))
        return b.cast(b.op("Div", gamma, b.sum(gamma, 1, keep=True)), "float32")

    @staticmethod
    def _bound(b: GraphBuilder, count: str, total: str, squares: str) -> str:
        """Lambda_K = (U + sqrt(K + U^2 - K Q)) / K."""
        root = b.op("Sub", b.add(count, b.mul(total, total)), b.mul(count, squares))
        root = b.op("Sqrt", b.op("Max", root, b.constant(0.0, "float64")))
        return b.op("Div", b.add(total, root), count)

    def _sums(self, b: GraphBuilder, inputs: SideInputs) -> str:
        """What a side's features add up to, [n, stride]."""
        table, found = b.weight(ROWS), []
        if inputs.n_single or not inputs.n_multi:
            found.append(b.sum(inputs.gather(b, table), 1))
        if inputs.n_multi:
            rows, x = inputs.gather_lists(b, table)
            found.append(b.sum(b.mul(x, rows), 1, 2))
            excess = b.op("Sub", b.mul(x, x), x)
            norms = b.squares(b.part(self._slots(b, rows, 0, 0, 0), 0, self.manifest.dim), 4)
            anchors = b.constant(np.ones(self._locality.anchors))
            distances = b.mul(b.row_sum(b.reshape(excess, 0, -1)), anchors)
            folded = b.mul(b.constant(-0.5), b.sum(b.mul(excess, norms), 1, 2))
            found.append(self._row(b, distances, folded))
        return b.add(*found)

    def _slots(self, b: GraphBuilder, rows: str, *kept: int) -> str:
        """The slots of rows, [.., anchors, width]; ``kept``: a 0 for each axis before."""
        near, size = self._locality.near, self._locality.anchors * self._width
        return b.reshape(b.part(rows, near, near + size), *kept, self._locality.anchors, self._width)

    def _row(self, b: GraphBuilder, distances: str, folded: str) -> str:
        """A row that holds distances and folded scalars, [r, anchors] each, and zeros."""
        anchors, near, width, dim = self._locality.anchors, self._locality.near, self._width, self.manifest.dim
        slots = b.op("Pad", b.expand(folded, 2), b.ints(0, 0, dim, 0, 0, width - dim - 1))
        rest = self.state_size - near - anchors * width
        slots = b.op("Pad", b.reshape(slots, 0, anchors * width), b.ints(0, 0, 0, rest))
        return b.concat(b.op("Pad", distances, b.ints(0, 0, 0, near - anchors)), slots)
