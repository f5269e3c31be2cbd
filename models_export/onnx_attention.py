"""Graphs of AFM: a softmax over pairs of fields, split into the context's pairs, the item's and the ones across.

A set of pairs is summed up as [m, Z, A]: m = max e, Z = sum exp(e - m), A = sum exp(e - m) out . (v_f * v_g); sets add
up when brought to one m. Score = b0 + sum x b + A / Z over all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from models_export.manifest import Manifest
from models_export.network import PREFIX
from models_export.onnx_closed import ROWS
from models_export.onnx_graph import GraphBuilder
from models_export.onnx_networks import NetworkGraphs
from models_export.onnx_side import SideInputs, field_rows
from models_export.tensor_file import Array

NO_PAIRS = (-1e30, 0.0, 0.0)
"""[m, Z, A] of no pairs: less than any energy, and finite, so that differences of two are numbers."""


class AfmGraphs(NetworkGraphs):
    """Shares [m, Z, A, v side by side in kernel order] (Xiao et al. 2017)."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest, tensors)
        self._fields = len(manifest.side_fields("context")), len(manifest.side_fields("item"))
        n_context, n_item = self._fields
        self.state_size, self.vector_size = 4 + n_context * manifest.dim, 3 + n_item * manifest.dim

    def side(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``NetworkGraphs``."""
        n_fields = self._fields[inputs.side == "item"]
        rows = field_rows(b, inputs, b.weight(ROWS))
        linear, v = self.linear(b, rows), b.part(rows, 0, self.manifest.dim)
        if n_fields > 1:
            first, second = zip(*combinations(range(n_fields), 2), strict=True)
            pairs = self._pairs(b, b.mul(b.pick(v, first, axis=1), b.pick(v, second, axis=1)), len(first))
        else:
            pairs = b.add(b.mul(linear, b.constant([0.0, 0.0, 0.0])), b.constant(NO_PAIRS))
        return linear, b.concat(pairs, b.reshape(v, 0, n_fields * self.manifest.dim))

    def scores(self, b: GraphBuilder, state: str, g: str, beta: str) -> str:
        """See ``GraphFamily``."""
        (n_context, n_item), dim = self._fields, self.manifest.dim
        t, *own, context = b.parts(state, 1, 1, 1, 1, n_context * dim)
        *item_own, item = b.parts(g, 1, 1, 1, n_item * dim)
        t = b.squeeze(t, 1)
        if n_context + n_item < 2:
            return b.add(beta, t)
        sets = [own, item_own]
        if n_context and n_item:
            products = b.mul(b.reshape(context, 0, n_context, 1, dim), b.reshape(item, 0, 1, n_item, dim))
            sets.append(b.parts(self._pairs(b, products, n_context * n_item), 1, 1, 1))
        largest = b.op("Max", *(m for m, _, _ in sets))
        weights = [b.op("Exp", b.op("Sub", m, largest)) for m, _, _ in sets]
        Z = b.add(*(b.mul(w, z) for w, (_, z, _) in zip(weights, sets, strict=True)))
        A = b.add(*(b.mul(w, a) for w, (_, _, a) in zip(weights, sets, strict=True)))
        return b.add(b.squeeze(b.op("Div", A, Z), 1), beta, t)

    def _pairs(self, b: GraphBuilder, products: str, n_pairs: int) -> str:
        """[m, Z, A], float32 [n, 3], of ``n_pairs`` products [n, .., dim] each."""
        names = ("attention.weight", "attention.bias", "attention.out", "out.weight")
        weight, bias, energy_out, out = (b.weight(PREFIX + name) for name in names)
        products = b.reshape(products, -1, self.manifest.dim)
        hidden = b.op("Relu", b.op("Gemm", products, weight, bias, transB=1))
        energy = b.reshape(b.op("Gemm", hidden, b.expand(energy_out, 0), transB=1), -1, n_pairs)
        value = b.reshape(b.op("Gemm", products, b.expand(out, 0), transB=1), -1, n_pairs)
        m = b.op("ReduceMax", energy, axes=[1], keepdims=1)
        share, ones = b.op("Exp", b.op("Sub", energy, m)), b.constant(np.ones((1, n_pairs)))
        Z, A = (b.op("Gemm", terms, ones, transB=1) for terms in (share, b.mul(share, value)))
        return b.concat(m, Z, A)
