"""The graphs as files of an artefact: weights by reference, same bytes, verified, absent in old artefacts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file

from models_export.errors import ArtefactError
from models_export.manifest import FAMILIES, FieldSpec, Manifest
from models_export.onnx_files import GRAPHS, has_graphs
from models_export.onnx_graph import WEIGHTS
from models_export.onnx_writer import write_graphs
from models_export.reader import read_artefact
from models_export.tensor_file import read_bytes_map, sha256, write_tensors
from models_export.weights import weight_tensors
from tests import oracle
from tests.data_folder import ROOT
from tests.models_export.onnx_case import Graphs, make_case, random_weights
from tests.tiny_artefact import write_tiny

ON_CUDA = {
    "Add", "Cast", "Concat", "ConstantOfShape", "CumSum", "Div", "Exp", "Gather", "GatherElements", "Gemm", "Identity",
    "Less", "MatMul", "Max", "Min", "Mod", "Mul", "Not", "Pad", "ReduceMax", "ReduceSum", "ReduceSumSquare", "Relu",
    "Reshape", "Shape", "Slice", "Softmax", "Sqrt", "Squeeze", "Sub", "TopK", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that ONNX Runtime runs on the GPU in opset 17 for the types used (its page of operator kernels); another
one would have its inputs copied to the host, and what it says copied back."""
MOST_BYTES = 40_000
MOST_INLINE = 2_000
"""Bytes of constants in a graph of these small models: orders, diagonals and bounds of slices."""


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_read_where_they_lie(family: str, tmp_path: Path) -> None:
    """Every external initialiser is, byte for byte, the tensor of its name; what is inside a graph is little."""
    case = make_case(family)
    case.write(tmp_path)
    tensors, data, seen = load_file(tmp_path / WEIGHTS), (tmp_path / WEIGHTS).read_bytes(), set()
    for name in GRAPHS:
        inline = 0
        for tensor in onnx.load(str(tmp_path / name), load_external_data=False).graph.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                inline += len(tensor.raw_data)
                continue
            where = {entry.key: entry.value for entry in tensor.external_data}
            assert where["location"] == WEIGHTS
            start, length = int(where["offset"]), int(where["length"])
            source = tensor.name.removesuffix("_floats")
            assert data[start : start + length] == tensors[source].tobytes(), tensor.name
            assert int(np.prod(tensor.dims)) * 4 == length
            seen.add(source)
        assert inline < MOST_INLINE, name
    used_otherwise = {"ranks", "local_anchors", "local_linear", "network.cross.bias"}
    assert seen == set(tensors) - used_otherwise


@pytest.mark.parametrize("family", FAMILIES)
def test_every_operator_has_a_cuda_kernel(family: str, tmp_path: Path) -> None:
    make_case(family).write(tmp_path)
    used = {node.op_type for name in GRAPHS for node in onnx.load(str(tmp_path / name)).graph.node}
    assert used <= ON_CUDA


@pytest.mark.parametrize("family", FAMILIES)
def test_same_inputs_same_bytes(family: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_tiny(tmp_path / folder, family, graphs=True)
    for name in (*GRAPHS, "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("family", ["fm", "rafm", "llfm", "deepfm"])
def test_no_weight_is_copied(family: str, tmp_path: Path) -> None:
    """Python's memory while the graphs of a table of 8 MB and more are written."""
    case = make_case(family, dim=14, singles=(1, 1), multis=(0, 0), dense=(0, 0))
    times = -(-(8 << 20) // weight_tensors(case.weights, case.manifest)["embedding_rows"].nbytes)
    fields = tuple(FieldSpec(f.name, f.side, f.kind, f.size * times) for f in case.manifest.fields)
    manifest = Manifest("big", family, "logistic", 14, fields, locality=case.manifest.locality)
    if family == "rafm":
        weights = random_weights(np.random.default_rng(0), family, manifest.n_features, 2, 14, 2, 0.5)
        tensors = weight_tensors(weights, manifest)
    else:
        tensors = weight_tensors(case.weights, case.manifest)
        for name in {"embedding_rows", "local_anchors", "local_linear"} & set(tensors):
            tensors[name] = np.repeat(tensors[name], times, axis=int(name == "local_anchors"))
    write_tensors(tmp_path / WEIGHTS, tensors)
    assert (tmp_path / WEIGHTS).stat().st_size > 8 << 20
    tracemalloc.start()
    try:
        write_graphs(tmp_path, manifest)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def own_memory() -> int:
    """Bytes of this process that are no file's."""
    found = re.search(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_onnx_runtime_maps_the_weights(tmp_path: Path) -> None:
    """All sessions over a table of 64 MB, gathered from: together less memory of their own than a quarter of it."""
    case = make_case("fm", dim=8, singles=(1, 1), multis=(0, 0), dense=(0, 0))
    fields = tuple(FieldSpec(f.name, f.side, f.kind, 1 << 19) for f in case.manifest.fields)
    rows = np.ones((1 << 20, 16), np.float32)
    write_tensors(tmp_path / WEIGHTS, {"embedding_rows": rows, "global_bias": np.ones(1, np.float32)})
    del rows
    write_graphs(tmp_path, Manifest("big", "fm", "logistic", 8, fields))
    before = own_memory()
    sessions = [onnxruntime.InferenceSession(str(tmp_path / name)) for name in GRAPHS]
    (state,) = sessions[0].run(None, {"context_rows": np.arange(1 << 16, dtype=np.int32)[:, None]})
    assert state.shape == (1 << 16, 9)
    assert own_memory() - before < 16 << 20


def test_a_reader_says_which_graph_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    assert has_graphs(write_tiny(folder, graphs=True))
    rank = (folder / "rank.onnx").read_bytes()
    (folder / "rank.onnx").write_bytes(rank[:-1] + bytes([rank[-1] ^ 1]))
    with pytest.raises(ArtefactError, match=r"file 'rank.onnx': expected SHA-256 .* Copy or export the artefact again"):
        read_artefact(folder)
    (folder / "rank.onnx").unlink()
    with pytest.raises(ArtefactError, match=r"expected the files of its manifest, found .*missing \['rank.onnx'\]"):
        read_artefact(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["rank.onnx"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match=r"manifest: files: expected all of the graphs context.onnx, .*, or none"):
        read_artefact(folder)


def test_a_graph_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write_tiny(folder, graphs=True)
    (folder / "other.onnx").write_bytes(b"onnx")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["other.onnx"] = sha256(read_bytes_map(folder / "other.onnx"))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match=r"manifest: files: expected all of the graphs .*other.onnx"):
        read_artefact(folder)


def test_artefacts_without_graphs_load(tmp_path: Path) -> None:
    write_tiny(tmp_path / "a")
    assert not has_graphs(read_artefact(tmp_path / "a").manifest)


def test_onnx_runtime_needs_no_onnx(tmp_path: Path) -> None:
    """The graphs run in a process that can import neither onnx nor torch."""
    folder = tmp_path / "a"
    write_tiny(folder, "dplr", graphs=True)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'onnx', 'training'}:\n"
        "            raise ImportError(name + ' is blocked')\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )
    code = (
        "import pathlib, numpy as np, onnxruntime as o\n"
        "from models_export.reader import read_artefact\n"
        "from models_export.onnx_files import GRAPHS, has_graphs\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "assert has_graphs(read_artefact(folder).manifest)\n"
        "for name in GRAPHS: o.InferenceSession(str(folder / name))\n"
        "try: import onnx\n"
        "except ImportError as error: print(error)\n"
    )
    environ = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.stdout == "onnx is blocked\n", done.stderr


def test_an_artefacts_graphs_are_over_its_own_weights(tmp_path: Path) -> None:
    """Two versions side by side: each one's graphs read the weights beside them."""
    states = []
    for seed in (1, 2):
        manifest = write_tiny(tmp_path / str(seed), "fm", seed=seed, graphs=True)
        artefact = read_artefact(tmp_path / str(seed))
        context = artefact.encoder.encode_side("context", [{"user_id": "u7"}])
        states.append(Graphs(artefact.path, manifest).state(context))
    assert not np.allclose(states[0], states[1])


def test_the_readmes_lines_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("dplr", multis=(0, 0), dense=(0, 0))
    folder = tmp_path / "registry" / "movielens" / "v000001"
    folder.mkdir(parents=True)
    case.write(folder)
    (lines,) = (
        b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "rank.run" in b
    )
    context = case.contexts.take(np.zeros(1, np.int64))
    names = {"context_rows": context.rows, "item_rows": case.items.rows}
    monkeypatch.chdir(tmp_path)
    exec(lines, names)
    np.testing.assert_allclose(
        names["scores"], oracle.scores(case.manifest, case.weights, context, case.items), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_of_a_wide_model_are_small(family: str, tmp_path: Path) -> None:
    """Sixty fields, vectors of 64, rank 16: little of it is inside a graph."""
    case = make_case(family, dim=64, rank=16, singles=(25, 25), multis=(3, 3), dense=(2, 2))
    case.write(tmp_path)
    assert max((tmp_path / name).stat().st_size for name in GRAPHS) < MOST_BYTES
