"""One ONNX graph while it is built: nodes, small constants, and the artefact's tensors by reference. Imports onnx.

Tensors of ``weights.safetensors`` become *external data*: the graph holds the file's name, an offset and a length, so
that weights exist once on disk and a runtime maps them into memory. An initialiser is called like its tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from models_export.tensor_file import Array

OPSET = 17
IR_VERSION = 8
WEIGHTS = "weights.safetensors"
Dim = int | str
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


class GraphBuilder:
    """Builds one graph over the tensors of a weights file; values are the names of node outputs.

    ``tensors``: views of the file's bytes by name; ``base``: the address of its first byte.
    """

    def __init__(self, tensors: Mapping[str, Array], base: int) -> None:
        self.tensors, self._base = tensors, base
        self._nodes: list[NodeProto] = []
        self._initialisers: dict[str, TensorProto] = {}
        self._inputs: dict[str, Any] = {}
        self._outputs: list[Any] = []
        self._count = 0

    def input(self, name: str, dtype: str, shape: Sequence[Dim]) -> str:
        """An input of the graph."""
        self._inputs[name] = helper.make_tensor_value_info(name, _TYPES[dtype], shape)
        return name

    def output(self, name: str, value: str, dtype: str, shape: Sequence[Dim]) -> None:
        """Make a value an output of the graph."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], shape))

    def weight(self, name: str, dtype: str = "float32", shape: Sequence[int] | None = None, alias: str = "") -> str:
        """A tensor of the weights file; with ``dtype``, ``shape`` and ``alias`` another reading of the same bytes."""
        array, known = self.tensors[name], alias or name
        if known not in self._initialisers:
            proto = TensorProto(name=known, data_type=_TYPES[dtype], dims=array.shape if shape is None else shape)
            proto.data_location = TensorProto.EXTERNAL
            where = {"location": WEIGHTS, "offset": array.ctypes.data - self._base, "length": array.nbytes}
            for key, value in where.items():
                proto.external_data.add(key=key, value=str(value))
            self._initialisers[known] = proto
        return known

    def constant(self, value: npt.ArrayLike, dtype: str = "float32") -> str:
        """A small constant inside the graph; equal ones are one."""
        proto = numpy_helper.from_array(np.asarray(value, dtype=dtype))
        for name, there in self._initialisers.items():
            if name.startswith("constant_") and _same(there, proto):
                return name
        new = proto.name = f"constant_{len(self._initialisers)}"
        self._initialisers[new] = proto
        return new

    def ints(self, *values: int) -> str:
        """A constant int64 vector: axes, shapes, bounds of slices."""
        return self.constant(values, "int64")

    def op(self, kind: str, *values: str, **attributes: Any) -> str:
        """A node of one output."""
        return self.ops(kind, 1, *values, **attributes)[0]

    def ops(self, kind: str, n_outputs: int, *values: str, **attributes: Any) -> list[str]:
        """A node of several outputs."""
        self._count += 1
        name = f"{kind.lower()}_{self._count}"
        outputs = [name] if n_outputs == 1 else [f"{name}_{i}" for i in range(n_outputs)]
        self._nodes.append(helper.make_node(kind, list(values), outputs, name=name, **attributes))
        return outputs

    def add(self, *values: str) -> str:
        """The sum of one value or more."""
        total = values[0]
        for value in values[1:]:
            total = self.op("Add", total, value)
        return total

    def mul(self, left: str, right: str) -> str:
        """The product, component by component."""
        return self.op("Mul", left, right)

    def half(self, value: str) -> str:
        """1/2 of a value."""
        return self.mul(self.constant(0.5), value)

    def sum(self, value: str, *axes: int, keep: bool = False) -> str:
        """The sum over axes."""
        return self.op("ReduceSum", value, self.ints(*axes), keepdims=int(keep))

    def row_sum(self, value: str, width: int | None = None) -> str:
        """The sum of each row of [n, ``width``] (``None``: known at run time), [n, 1]. Equal rows have equal sums:
        ReduceSum over the last axis adds up in an order that depends on a row's place in memory, unless rows are
        multiples of 8 floats."""
        if width is not None:
            return self.op("Gemm", value, self.constant(np.ones((1, width))), transB=1)
        column = self.expand(value, 2)
        return self.part(self.sum(self.concat(column, column), 1), 0, 1)

    def squares(self, value: str, *axes: int, keep: bool = False) -> str:
        """The sum of squares over axes."""
        return self.op("ReduceSumSquare", value, axes=list(axes), keepdims=int(keep))

    def part(self, value: str, start: int, stop: int, axis: int = -1) -> str:
        """The slice ``start:stop`` of an axis."""
        return self.op("Slice", value, self.ints(start), self.ints(stop), self.ints(axis))

    def column(self, value: str, index: int) -> str:
        """One column of the last axis, which is dropped."""
        return self.op("Gather", value, self.constant(index, "int64"), axis=-1)

    def parts(self, value: str, *sizes: int) -> list[str]:
        """The last axis cut into parts of the given sizes."""
        bounds = np.cumsum([0, *sizes]).tolist()
        return [self.part(value, *pair) for pair in pairwise(bounds)]

    def reshape(self, value: str, *shape: int) -> str:
        """Another shape; 0 keeps an axis."""
        return self.op("Reshape", value, self.ints(*shape))

    def concat(self, *values: str, axis: int = -1) -> str:
        """Values side by side."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def expand(self, value: str, *axes: int) -> str:
        """New axes of size 1."""
        return self.op("Unsqueeze", value, self.ints(*axes))

    def squeeze(self, value: str, *axes: int) -> str:
        """Without axes of size 1."""
        return self.op("Squeeze", value, self.ints(*axes))

    def pick(self, value: str, order: Sequence[int], axis: int) -> str:
        """The axis in another order, or parts of it."""
        return self.op("Gather", value, self.constant(order, "int64"), axis=axis)

    def matmul(self, left: str, right: str) -> str:
        """The matrix product over the last two axes."""
        return self.op("MatMul", left, right)

    def transpose(self, value: str, *axes: int) -> str:
        """Axes in another order."""
        return self.op("Transpose", value, perm=list(axes))

    def cast(self, value: str, dtype: str) -> str:
        """Another type."""
        return self.op("Cast", value, to=_TYPES[dtype])

    def model(self, name: str) -> bytes:
        """The graph as the bytes of a checked model; same graph, same bytes."""
        graph = helper.make_graph(
            self._nodes, name, list(self._inputs.values()), self._outputs, list(self._initialisers.values())
        )
        opset = helper.make_opsetid("", OPSET)
        proto: ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        proto.producer_name = "ctrank"
        return bytes(proto.SerializeToString(deterministic=True))


def _same(left: TensorProto, right: TensorProto) -> bool:
    return bool(left.data_type == right.data_type and left.dims == right.dims and left.raw_data == right.raw_data)
