"""Which provider ONNX Runtime gets, and what is said where it is not there. Runtimes that this machine does not have
are stood in for; the real one is met in `test_twin_scorers.py` and over HTTP."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models_export.manifest import COMPILED_FAMILIES, NETWORK_FAMILIES
from service.scorers import onnx_graphs, onnx_provider
from service.scorers.choice import ScorerChoice
from service.scorers.onnx_graphs import Graphs
from service.scorers.onnx_provider import CPU, CUDA, OnnxUnavailable, Provider, find_provider
from service.scorers.onnx_scorer import OnnxScorer
from tests.tiny_artefact import tiny_artefact


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found out before."""
    find_provider.cache_clear()
    yield
    find_provider.cache_clear()


def runtime(*providers: str, error: str | None = None) -> Any:
    """A stand-in for onnxruntime: with these providers, whose device fails with ``error``."""

    def on_device(array: object, device: str, number: int) -> object:
        assert (device, number) == ("cuda", 0)
        if error is not None:
            raise RuntimeError(error)
        return array

    return SimpleNamespace(
        get_available_providers=lambda: [*providers, "CPUExecutionProvider"],
        OrtValue=SimpleNamespace(ortvalue_from_numpy=on_device, from_dlpack=lambda value: value),
    )


def install(monkeypatch: pytest.MonkeyPatch, found: Any, **packages: str) -> None:
    """Let ``found`` be the runtime, from these packages (`_` for `-`)."""
    versions = {name.replace("_", "-"): version for name, version in packages.items()}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(onnx_provider, "import_runtime", lambda: found)
    monkeypatch.setattr(onnx_provider.metadata, "version", version)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("wanted", ["auto", "cuda", "cpu"])
def test_no_runtime(monkeypatch: pytest.MonkeyPatch, wanted: Any) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OnnxUnavailable, match=r"ONNX Runtime is not installed .*pip install 'ctrank\[onnx\]' \(CPU\)"):
        find_provider(wanted)


def test_a_build_without_cuda(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    install(monkeypatch, runtime(), onnxruntime="1.20.0")
    with pytest.raises(OnnxUnavailable) as refused:
        find_provider("cuda")
    for part in (
        "CTRANK_ONNX_PROVIDER=cuda: onnxruntime 1.20.0 is built without CUDA",
        "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'ctrank[gpu]'",
        "or serve on the CPU: CTRANK_ONNX_PROVIDER=cpu",
    ):
        assert part in str(refused.value)
    assert find_provider("auto") is find_provider("auto") is CPU
    assert [line for line in said(caplog) if "runs on the CPU: onnxruntime 1.20.0 is built without CUDA" in line] == (
        said(caplog)
    )
    assert len(said(caplog)) == 1  # once


def test_a_gpu_that_does_not_start(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    error = "CUDA failure 35: the driver is too old\nmore lines"
    install(monkeypatch, runtime("CUDAExecutionProvider", error=error), onnxruntime_gpu="1.31.0")
    with pytest.raises(OnnxUnavailable, match=r"not start \(CUDA failure 35: the driver is too old\); .*nvidia-smi"):
        find_provider("cuda")
    assert find_provider("auto") is CPU
    assert len(said(caplog)) == 1 and "CUDA failure 35" in said(caplog)[0]


def test_a_build_that_cannot_share_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    found = runtime("CUDAExecutionProvider")
    del found.OrtValue.from_dlpack
    install(monkeypatch, found, onnxruntime_gpu="1.25.1")
    with pytest.raises(OnnxUnavailable, match=r"onnxruntime-gpu 1.25.1 is too old .*1.26.*ctrank\[gpu\]"):
        find_provider("cuda")
    assert find_provider("auto") is CPU


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_gpu(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wanted: Any) -> None:
    install(monkeypatch, runtime("CUDAExecutionProvider"), onnxruntime_gpu="1.31.0")
    assert find_provider(wanted) is CUDA and not said(caplog)
    name, options = CUDA.for_session()[0]
    assert name == "CUDAExecutionProvider" and options["use_tf32"] == "0" and CUDA.bound


def test_cpu_is_silent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    install(monkeypatch, runtime("CUDAExecutionProvider"), onnxruntime_gpu="1.31.0")
    assert find_provider("cpu") is CPU and not said(caplog)
    assert CPU.for_session() == ["CPUExecutionProvider"]


def test_both_packages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    install(monkeypatch, runtime("CUDAExecutionProvider"), onnxruntime="1.20.0", onnxruntime_gpu="1.31.0")
    both = "onnxruntime 1.20.0 and onnxruntime-gpu 1.31.0 are both installed"
    with pytest.raises(OnnxUnavailable, match=f"{both}.*pip uninstall onnxruntime onnxruntime-gpu"):
        find_provider("cuda")
    assert find_provider("cpu") is CPU and both in said(caplog)[0]


def test_a_session_that_falls_back_by_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime goes on without a provider that it cannot load; nobody is to believe that a GPU works."""
    artefact = tiny_artefact(tmp_path / "model", "fm", graphs=True)
    absent = Provider("cuda", bound=False, most_floats=1 << 20)
    monkeypatch.setattr(Provider, "for_session", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(OnnxUnavailable, match=r"item.onnx: expected the cuda provider, ONNX Runtime took CPUExecution"):
        Graphs(artefact, absent, 1)


def test_what_scores_a_family(tmp_path: Path) -> None:
    """Compiled kernels unless ONNX Runtime is asked for; networks have no other."""
    for family in ("fm", "nfm"):
        artefact = tiny_artefact(tmp_path / family, family, graphs=True)
        for asked in ("numba", "onnx"):
            scorer = ScorerChoice(asked, "cpu").make(artefact)  # type: ignore[arg-type]
            assert scorer.name == ("onnx" if asked == "onnx" or family in NETWORK_FAMILIES else "numba")
            assert scorer.provider == "cpu" and not scorer.coalesces
    assert ScorerChoice("onnx", "cpu", batch_us=50.0).make(artefact).coalesces


@pytest.mark.parametrize("family", [COMPILED_FAMILIES[0], NETWORK_FAMILIES[0]])
def test_an_artefact_without_graphs(tmp_path: Path, family: str) -> None:
    artefact = tiny_artefact(tmp_path / "model", family)
    with pytest.raises(OnnxUnavailable, match=f"a {family} model .* no graphs for it; export it again: ctrank"):
        ScorerChoice("onnx", "cpu").make(artefact)


def owning(self: Graphs, array: onnx_graphs.Array) -> Any:
    """A value that owns its memory, as a copy on a GPU does."""
    value = self._runtime.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type)
    value.update_inplace(np.ascontiguousarray(array))
    return value


def test_sessions_share_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: what a session computes with are the tensors handed to all of them, not a copy from the file."""
    monkeypatch.setattr(Graphs, "_value", owning)
    artefact = tiny_artefact(tmp_path / "model", "fm", graphs=True)
    assert artefact.items is not None
    real = onnx_graphs._tensors
    monkeypatch.setattr(
        onnx_graphs, "_tensors", lambda a: {k: np.zeros_like(v) for k, v in real(a).items() if k == "embedding_rows"}
    )
    bound = OnnxScorer(artefact, replace(CPU, bound=True), 1, 0.0)
    g, beta = bound.item_side(artefact.items.side)
    assert not g.any() and not beta.any()
    state = bound.context_state(artefact.encoder.encode_side("context", [{}]))
    assert state.any()  # the context's graph runs on the CPU, over the file
    alone = bound.score_catalogue(state, g, beta, np.zeros(1, np.int32))
    np.testing.assert_array_equal(bound.score_items(state, artefact.items.side), np.repeat(alone, 60))
