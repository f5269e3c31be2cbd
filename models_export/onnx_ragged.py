"""Graphs of RaFM (Chen et al. 2019), over features: the formula of ``service/kernels/rafm.py``.

Packed rows of several lengths are read as one table of units of eight floats, and a level's vector as the units that
it fills. What lies behind a row that has no such level is another row, or the table's end: it meets a zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models_export.manifest import Manifest
from models_export.onnx_closed import ROWS
from models_export.onnx_family import SymmetricFamily
from models_export.onnx_graph import GraphBuilder
from models_export.onnx_side import SideInputs
from models_export.ragged_rows import UNIT, padded
from models_export.tensor_file import Array


class RafmGraphs(SymmetricFamily):
    """s = [E_1, H_1, E_2, H_2, .., E_P], a(s) = [E_1 + H_1, E_1, .., E_P], t = sum x b - 1/2 sum x^2 |v^(k)|^2."""

    def __init__(self, manifest: Manifest, tensors: Mapping[str, Array]) -> None:
        super().__init__(manifest)
        self._widths = [padded(rank) for rank in tensors["ranks"].tolist()]
        self._sizes = [kp for kp in self._widths for _ in range(2)][:-1]
        self.vector_size = sum(self._sizes)
        self._features = manifest.n_features
        self._units = tensors[ROWS].size // UNIT

    def sums(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """See ``SymmetricFamily``: per level, what the features of the group and those above it add up to."""
        ids, x = self._features_of(b, inputs)
        record = b.op("Gather", b.weight("records", "int32", [self._features, 2]), ids, axis=0)
        place, unit = b.column(record, 0), b.constant(16, "int32")
        group, start = b.op("Mod", place, unit), b.op("Div", place, unit)
        s = [self._level(b, level, group, start, x) for level in range(len(self._widths))]
        return self._scalars(b, ids, x), b.concat(*s)

    def partner(self, b: GraphBuilder, s: str) -> str:
        """See ``SymmetricFamily``."""
        parts, a = b.parts(s, *self._sizes), []
        for own, above in zip(parts[:-1:2], parts[1::2], strict=True):
            a += [b.add(own, above), own]
        return b.concat(*a, parts[-1])

    def _features_of(self, b: GraphBuilder, inputs: SideInputs) -> tuple[str, str]:
        """Feature rows int32 and x float32 [n, features], single-valued fields first; no x where all are 1."""
        if not inputs.n_multi:
            return inputs.rows, ""
        ids, x = b.reshape(inputs.multi_rows, 0, -1), b.reshape(inputs.multi_weights, 0, -1)
        if not inputs.n_single:
            return ids, x
        ones = b.add(b.op("ConstantOfShape", b.op("Shape", inputs.rows)), b.constant(1.0))
        return b.concat(inputs.rows, ids), b.concat(ones, x)

    def _level(self, b: GraphBuilder, level: int, group: str, start: str, x: str) -> str:
        """[E, H] of a level, [n, 2 kp], or E of the last."""
        n_units, first = self._widths[level] // UNIT, sum(self._widths[:level]) // UNIT
        units = b.add(b.expand(start, 2), b.constant(np.arange(first, first + n_units), "int32"))
        units = b.op("Min", units, b.constant(self._units - 1, "int32"))
        v = b.op("Gather", b.weight(ROWS, shape=[self._units, UNIT]), units, axis=0)
        v = b.reshape(v, 0, 0, self._widths[level])
        own = np.eye(len(self._widths), dtype=np.float32)[:, level]
        above = np.arange(len(self._widths)) > level
        meets = np.stack([own, above], axis=1) if above.any() else own[:, None]
        shares = b.op("Gather", b.constant(meets), group, axis=0)
        if x:
            shares = b.mul(shares, b.expand(x, 2))
        sums = b.matmul(b.transpose(shares, 0, 2, 1), v)
        return b.reshape(sums, 0, meets.shape[1] * self._widths[level])

    def _scalars(self, b: GraphBuilder, ids: str, x: str) -> str:
        """Sum x b - 1/2 x^2 |v^(k)|^2, [n, 1]: folded is b - 1/2 |v^(k)|^2."""
        records = b.weight("records", shape=[self._features, 2], alias="records_floats")
        folded = b.column(b.op("Gather", records, ids, axis=0), 1)
        if not x:
            return b.row_sum(folded)
        linear = b.op("Gather", b.weight("linear"), ids, axis=0)
        square = b.mul(x, b.op("Sub", linear, folded))
        return b.row_sum(b.mul(x, b.op("Sub", linear, square)))
