"""One side's encoded rows inside a graph: inputs, gathered rows, field vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models_export.manifest import Manifest, Side
from models_export.onnx_graph import GraphBuilder


@dataclass(frozen=True)
class SideInputs:
    """The inputs of one side, n rows in kernel order.

    ``rows`` int32 [n, n_single]; with multi-valued or dense fields ``multi_rows`` int32 and ``multi_weights`` float32
    [n, n_multi, L]: lists padded to the longest one with any feature row of weight 0.
    """

    side: Side
    rows: str
    n_single: int
    n_multi: int
    multi_rows: str = ""
    multi_weights: str = ""

    @property
    def n_fields(self) -> int:
        """Fields of the side."""
        return self.n_single + self.n_multi

    @classmethod
    def declare(cls, b: GraphBuilder, manifest: Manifest, side: Side, n: str) -> SideInputs:
        """Declare the inputs of a side with ``n`` rows."""
        n_single, n_multi = manifest.n_single(side), manifest.n_multi(side)
        rows = b.input(f"{side}_rows", "int32", [n, n_single])
        if not n_multi:
            return cls(side, rows, n_single, n_multi)
        shape: list[int | str] = [n, n_multi, f"{side}_values"]
        lists = b.input(f"{side}_multi_rows", "int32", shape), b.input(f"{side}_multi_weights", "float32", shape)
        return cls(side, rows, n_single, n_multi, *lists)

    def zeros(self, b: GraphBuilder, *sizes: int) -> str:
        """Zeros [n, *sizes]."""
        n = b.part(b.op("Shape", self.rows), 0, 1, axis=0)
        return b.op("ConstantOfShape", b.concat(n, b.ints(*sizes), axis=0))

    def gather(self, b: GraphBuilder, table: str) -> str:
        """Rows of a table for the single-valued fields, [n, n_single, width]."""
        return b.op("Gather", table, self.rows, axis=0)

    def gather_lists(self, b: GraphBuilder, table: str) -> tuple[str, str]:
        """Rows of a table for the lists, [n, n_multi, L, width], and x [n, n_multi, L, 1]."""
        return b.op("Gather", table, self.multi_rows, axis=0), b.expand(self.multi_weights, -1)


def field_rows(b: GraphBuilder, inputs: SideInputs, table: str, fold: Callable[[str], str] | None = None) -> str:
    """A row per field, [n, fields, width] in kernel order: the packed row itself, or sum x_i row_i over a list's
    values, which ``fold`` may change ([n, n_multi, width])."""
    found = []
    if inputs.n_single or not inputs.n_multi:
        found.append(inputs.gather(b, table))
    if inputs.n_multi:
        rows, x = inputs.gather_lists(b, table)
        composite = b.sum(b.mul(x, rows), 2)
        found.append(fold(composite) if fold else composite)
    return b.concat(*found, axis=1)
