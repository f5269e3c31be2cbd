"""The ONNX graphs of an artefact, built from its arrays without torch; the split of the kernels is kept.

FORMAT.md states each graph's inputs and outputs. Weights stay where they are: see ``onnx_graph.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from models_export.manifest import Manifest
from models_export.onnx_attention import AfmGraphs
from models_export.onnx_closed import DplrGraphs, FmGraphs, FwfmGraphs
from models_export.onnx_family import GraphFamily
from models_export.onnx_files import GRAPHS
from models_export.onnx_graph import WEIGHTS, GraphBuilder
from models_export.onnx_local import LlfmGraphs
from models_export.onnx_networks import DcnGraphs, DeepFmGraphs, NfmGraphs
from models_export.onnx_ragged import RafmGraphs
from models_export.onnx_side import SideInputs
from models_export.tensor_file import Array, parse_tensors, read_bytes_map

FAMILIES: dict[str, Callable[[Manifest, Mapping[str, Array]], GraphFamily]] = {
    "fm": FmGraphs,
    "fwfm": FwfmGraphs,
    "pruned_fwfm": FwfmGraphs,
    "dplr": DplrGraphs,
    "rafm": RafmGraphs,
    "llfm": LlfmGraphs,
    "nfm": NfmGraphs,
    "afm": AfmGraphs,
    "dcn": DcnGraphs,
    "deepfm": DeepFmGraphs,
}
"""Manifest family -> its graphs over the artefact's tensors."""


def write_graphs(folder: Path, manifest: Manifest) -> None:
    """Write every graph of ``GRAPHS`` beside the ``weights.safetensors`` of ``folder``. No weight is copied."""
    data = read_bytes_map(folder / WEIGHTS)
    tensors = parse_tensors(WEIGHTS, data)
    family = FAMILIES[manifest.family](manifest, tensors)
    for name, build in _BUILDERS.items():
        builder = GraphBuilder(tensors, data.ctypes.data)
        build(builder, family)
        (folder / name).write_bytes(builder.model(name.removesuffix(".onnx")))


def _context(b: GraphBuilder, family: GraphFamily) -> None:
    inputs = SideInputs.declare(b, family.manifest, "context", "contexts")
    b.output("state", family.context(b, inputs), "float32", ["contexts", family.state_size])


def _item(b: GraphBuilder, family: GraphFamily) -> None:
    g, beta = family.item(b, SideInputs.declare(b, family.manifest, "item", "items"))
    b.output("g", g, "float32", ["items", family.vector_size])
    b.output("beta", beta, "float32", ["items"])


def _rank(b: GraphBuilder, family: GraphFamily) -> None:
    state = _chosen_state(b, family)
    sides = family.item(b, SideInputs.declare(b, family.manifest, "item", "items"))
    b.output("scores", family.scores(b, state, *sides), "float32", ["items"])


def _candidates(b: GraphBuilder, family: GraphFamily) -> None:
    state = _chosen_state(b, family)
    g, beta = _catalogue_inputs(b, family)
    index = b.input("index", "int32", ["items"])
    chosen = b.op("Gather", g, index, axis=0), b.op("Gather", beta, index, axis=0)
    b.output("scores", family.scores(b, state, *chosen), "float32", ["items"])


def _catalogue(b: GraphBuilder, family: GraphFamily) -> None:
    state = b.input("state", "float32", [1, family.state_size])
    g, beta = _catalogue_inputs(b, family)
    k = b.input("k", "int64", [1])
    scores = family.catalogue(b, state, g, beta)
    top, index = b.ops("TopK", 2, scores, k, axis=0, largest=1, sorted=1)
    b.output("top_scores", top, "float32", ["top"])
    b.output("top_index", index, "int64", ["top"])
    b.output("scores", scores, "float32", ["catalogue"])


def _score(b: GraphBuilder, family: GraphFamily) -> None:
    state = family.context(b, SideInputs.declare(b, family.manifest, "context", "items"))
    sides = family.item(b, SideInputs.declare(b, family.manifest, "item", "items"))
    b.output("scores", family.scores(b, state, *sides), "float32", ["items"])


def _chosen_state(b: GraphBuilder, family: GraphFamily) -> str:
    """The state of each item, or one for all: [r, state_size]."""
    states = b.input("state", "float32", ["contexts", family.state_size])
    return b.op("Gather", states, b.input("state_index", "int32", ["states"]), axis=0)


def _catalogue_inputs(b: GraphBuilder, family: GraphFamily) -> tuple[str, str]:
    g = b.input("g", "float32", ["catalogue", family.vector_size])
    return g, b.input("beta", "float32", ["catalogue"])


_BUILDERS: dict[str, Callable[[GraphBuilder, GraphFamily], None]] = dict(
    zip(GRAPHS, (_context, _item, _rank, _candidates, _catalogue, _score), strict=True)
)
