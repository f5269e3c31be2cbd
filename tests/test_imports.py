"""The import rules of the design, read off the source: who may import whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"models_export", "service", "training", "loadtest", "tests"}
SOURCES = sorted(
    p for package in ("models_export", "service", "training", "loadtest") for p in (ROOT / package).rglob("*.py")
)

# service layers, outermost first: each may import itself and what follows
LAYERS = ["app", "routes", "ranking", "scorers", "kernels"]


def imports(path: Path) -> set[str]:
    """Dotted names of every module that the file imports, at any depth, with ``from x import y`` as ``x.y``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def third_party(path: Path) -> set[str]:
    roots = {name.split(".")[0] for name in imports(path)}
    return roots - OURS - set(sys.stdlib_module_names)


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in OURS}


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_package_rules(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for name in ours(path):
        root = name.split(".")[0]
        kernels = name.startswith("service.kernels")
        allowed = root == package or (package != "models_export" and root == "models_export")
        allowed = allowed or (package == "loadtest" and root == "service")
        assert allowed or (package == "training" and kernels), f"{path} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_third_party_rules(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    used = third_party(path)
    if parts[0] == "models_export":
        assert used <= {"numpy", "safetensors"} | ({"onnx"} if parts[1] == "onnx_graph.py" else set())
    elif parts[0] == "service":
        assert not used & {"torch", "onnx", "matplotlib", "pyarrow"}
        assert "onnxruntime" not in used or parts[1:] in {("scorers", "onnx_provider.py"), ("bench", "onnx.py")}
        if parts[1] == "kernels":
            assert used <= {"numpy", "numba", "llvmlite"}
        if parts[1].split(".")[0] in {"ranking", "scorers", "catalogue"}:
            assert not used & {"fastapi", "starlette", "redis", "uvicorn"}
    assert not imports(path) & {"pickle", "marshal", "shelve"}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "service")], ids=names)
def test_service_layers(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[1].split(".")[0]
    if layer in LAYERS:
        outer = LAYERS[: LAYERS.index(layer)]
        found = {name.split(".")[1] for name in ours(path) if name.startswith("service.") and name.count(".") >= 1}
        assert not found & set(outer), f"{layer} imports an outer layer"


def test_the_locust_files_need_locust_alone() -> None:
    """So that they run in Locust's own image; a registry's values need `models_export` as well, when asked for."""
    waiting = [ROOT / "loadtest" / f"{name}.py" for name in ("locustfile", "steps_shape", "soak_shape")]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        assert third_party(path) <= {"locust", "gevent"}, path
        assert not any(name.startswith("service") for name in ours(path)), path
        named = (name.split(".")[1] for name in ours(path) if name.startswith("loadtest."))
        waiting += [ROOT / "loadtest" / f"{name}.py" for name in named]
    assert len(seen) > 10


def test_the_sources_are_found() -> None:
    assert len(SOURCES) > 20
