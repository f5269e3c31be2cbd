"""Graphs of FM, FwFM and DPLR: the formulas of the kernels of the same names, over packed rows.

A packed row is [v (kp), folded, b, padding]; states and item sides have the kernels' layouts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models_export.manifest import Manifest
from models_export.onnx_family import QueryFamily, SymmetricFamily
from models_export.onnx_graph import GraphBuilder
from models_export.onnx_side import SideInputs, field_rows
from models_export.tensor_file import Array

ROWS = "embedding_rows"


class FmGraphs(SymmetricFamily):
    """s = S = sum x v, t = sum x b - 1/2 sum x^2 |v|^2, a(s) = s (Rendle 2010, over features)."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest)
        self.vector_size = manifest.kp

    def sums(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``SymmetricFamily``. A value of a list adds x b - x^2 (b - folded) to t."""
        table, kp = b.weight(ROWS), self.manifest.kp
        s, t = [], []
        if inputs.n_single or not inputs.n_multi:
            total = b.sum(inputs.gather(b, table), 1)
            s.append(b.part(total, 0, kp))
            t.append(b.part(total, kp, kp + 1))
        if inputs.n_multi:
            rows, x = inputs.gather_lists(b, table)
            s.append(b.sum(b.mul(x, b.part(rows, 0, kp)), 1, 2))
            folded, linear = b.parts(b.part(rows, kp, kp + 2), 1, 1)
            square = b.mul(x, b.op("Sub", linear, folded))
            t.append(b.sum(b.mul(x, b.op("Sub", linear, square)), 1, 2))
        return b.add(*t), b.add(*s)

    def partner(self, b: GraphBuilder, s: str) -> str:
        """See ``SymmetricFamily``."""
        return s


class DplrGraphs(SymmetricFamily):
    """s = P = U V, t = sum b + 1/2 sum d_f |v_f|^2, a(s)_r = e_r s_r (equations 5, 9 and 10)."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest)
        self.rho = len(tensors["low_rank_e"])
        self.vector_size = self.rho * manifest.kp
        U, e = tensors["low_rank_U"].astype(np.float64), tensors["low_rank_e"].astype(np.float64)
        self._diagonal = -(e @ U**2)

    def sums(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``SymmetricFamily``: one product [1; U] times the rows of a side's fields."""
        kp, order = self.manifest.kp, self.manifest.kernel_order(inputs.side)

        def fold(rows: str) -> str:
            diagonal = b.constant(0.5 * self._diagonal[order[inputs.n_single :], None])
            v, _, linear, rest = b.parts(rows, kp, 1, 1, self.manifest.stride - kp - 2)
            folded = b.add(linear, b.mul(diagonal, b.squares(v, -1, keep=True)))
            return b.concat(v, folded, linear, rest)

        rows = field_rows(b, inputs, b.weight(ROWS), fold)
        U = b.pick(b.weight("low_rank_U"), order, axis=1)
        products = b.matmul(b.concat(b.constant(np.ones((1, len(order)))), U, axis=0), rows)
        t = b.squeeze(b.part(b.part(products, 0, 1, axis=1), kp, kp + 1), 1)
        P = b.part(b.part(products, 1, self.rho + 1, axis=1), 0, kp)
        return t, b.reshape(P, 0, self.vector_size)

    def partner(self, b: GraphBuilder, s: str) -> str:
        """See ``SymmetricFamily``."""
        e = b.reshape(b.weight("low_rank_e"), self.rho, 1)
        return b.reshape(b.mul(e, b.reshape(s, 0, self.rho, self.manifest.kp)), 0, self.vector_size)


class FwfmGraphs(QueryFamily):
    """State [t_C, Q (item fields x kp)], a = Q, g = the item's field vectors side by side (Pan et al. 2018)."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest)
        self._order = {"context": manifest.kernel_order("context"), "item": manifest.kernel_order("item")}
        self.vector_size = len(self._order["item"]) * manifest.kp
        self.state_size = 1 + self.vector_size

    def _block(self, b: GraphBuilder, rows: str, columns: str) -> str:
        """A block of the field matrix in kernel order."""
        return b.pick(b.pick(b.weight("field_matrix"), self._order[rows], axis=0), self._order[columns], axis=1)

    def _side(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """Of each row v [n, fields, kp] and sum b + sum_{i<j} R_ij <v_i, v_j> [n, 1]."""
        kp = self.manifest.kp
        rows = field_rows(b, inputs, b.weight(ROWS))
        v = b.part(rows, 0, kp)
        pairs = b.sum(b.mul(v, b.matmul(self._block(b, inputs.side, inputs.side), v)), 1, 2)
        linear = b.sum(b.part(rows, kp, kp + 1), 1)
        return v, b.add(linear, b.half(b.expand(pairs, 1)))

    def context(self, b: GraphBuilder, inputs: SideInputs) -> str:
        """See ``GraphFamily``."""
        v, t = self._side(b, inputs)
        t = b.add(t, b.weight("global_bias"))
        if not inputs.n_fields:
            return b.concat(t, inputs.zeros(b, self.vector_size))
        Q = b.matmul(self._block(b, "item", "context"), v)
        return b.concat(t, b.reshape(Q, 0, self.vector_size))

    def item(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``GraphFamily``."""
        v, t = self._side(b, inputs)
        return b.reshape(v, 0, self.vector_size), b.squeeze(t, 1)

    def query(self, b: GraphBuilder, state: str) -> tuple[str, str]:
        """See ``QueryFamily``."""
        t, Q = b.parts(state, 1, self.vector_size)
        return b.squeeze(t, 1), Q
