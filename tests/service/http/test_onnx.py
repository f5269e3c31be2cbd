"""ONNX Runtime over a real socket: the same replies as from the compiled kernels, and clear refusals where it, or its
provider, is not there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models_export.manifest import FAMILIES
from service.scorers.onnx_provider import OnnxUnavailable, find_provider
from tests.service.http.server_process import ROOT, ServerProcess
from tests.service.http.test_rank import MIXED
from tests.tiny_artefact import CONTEXT, publish_tiny

IDS = [f"i{i}" for i in range(0, 60, 2)]
OTHER: dict[str, Any] = {"user_id": "u3", "recent": {"i4": 0.5}, "tenure": -1}


@pytest.fixture(scope="module")
def onnx_server(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Every family by ONNX Runtime, where requests wait for others to share a run with."""
    settings = {"scorer": "onnx", "onnx_batch_us": 500, "cache_dir": tmp_path_factory.mktemp("items")}
    with ServerProcess(registry, default_model="tiny", **settings) as running:
        yield running
        log = "".join(running.log)
        assert "Traceback" not in log, log


@pytest.fixture(scope="module")
def without_runtime(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which onnxruntime cannot be imported."""
    folder = tmp_path_factory.mktemp("absent")
    (folder / "onnxruntime.py").write_text("raise ImportError('no such package')\n")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same items in the same order; scores to 1e-5 relative."""
    assert [item["id"] for item in found["items"]] == [item["id"] for item in expected["items"]]
    for ours, theirs in zip(found["items"], expected["items"], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], rel=1e-5, abs=1e-5)
        assert ours.get("probability") == pytest.approx(theirs.get("probability"), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_http_twins(server: ServerProcess, onnx_server: ServerProcess, family: str) -> None:
    """`/rank` of ids, inline items, columns and the whole catalogue; `/score`; by a cached context's id alone."""
    columns = {"ids": ["i1", "x"], "fields": {"price": [1.0, None], "genre": [["War"], {"Drama": 2}]}}
    for body in (
        {"item_ids": [*IDS, "nobody"], "context": CONTEXT},
        {"item_ids": IDS, "top_k": 3, "context": OTHER},
        {"items": MIXED, "context": CONTEXT},
        {"item_columns": columns, "context": OTHER},
        {"top_k": 12, "context": CONTEXT},
        {"top_k": 60, "context": OTHER, "context_id": f"twin-{family}"},
        {"item_ids": IDS, "context_id": f"twin-{family}"},
    ):
        found, expected = (s.rank(model=family, **body) for s in (onnx_server, server))
        assert found.status_code == expected.status_code == 200, found.text
        assert_same(found.json(), expected.json())
        assert found.json()["unknown_item_ids"] == expected.json()["unknown_item_ids"]
    assert found.json()["context_source"] == "memory"
    instances = [
        {"context": context, "item": {"id": item["id"], "fields": item.get("fields", {})}}
        for context in (CONTEXT, OTHER, {})
        for item in MIXED
    ]
    both = [s.client.post("/score", json={"model": family, "instances": instances}) for s in (onnx_server, server)]
    predictions = [reply.json()["predictions"] for reply in both]
    for ours, theirs in zip(*predictions, strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], rel=1e-5, abs=1e-5)


def test_requests_that_share_a_run_get_their_own_answers(server: ServerProcess, onnx_server: ServerProcess) -> None:
    """Clients at the same time, each with a user and a slate of its own, ids and inline items."""
    bodies: list[dict[str, Any]] = []
    for i in range(48):
        slate = {"items": MIXED[: 1 + i % 5]} if i % 3 == 0 else {"item_ids": IDS[i % 7 : 20 + i % 9]}
        bodies.append({"context": {"user_id": f"u{i % 40}", "hour": i % 24}, "model": FAMILIES[i % 2], **slate})
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda body: onnx_server.rank(**body), bodies))
    for body, reply in zip(bodies, found, strict=True):
        assert_same(reply.json(), server.rank(**body).json())


def test_what_runs_is_said(onnx_server: ServerProcess) -> None:
    provider = "cuda" if has_cuda() else "cpu"
    for model in onnx_server.client.get("/models").json()["models"]:
        assert (model["scorer"], model["provider"]) == ("onnx", provider)
    shown = onnx_server.client.get("/models/dplr").json()
    assert (shown["scorer"], shown["provider"], shown["family"]) == ("onnx", provider, "dplr")
    assert onnx_server.metric("ctrank_scorer_info", model="dplr", scorer="onnx", provider=provider) == 1
    assert onnx_server.metric("ctrank_scorer_info", scorer="numba") == 0
    falls_back = [line for line in onnx_server.log if "ONNX Runtime runs on the CPU" in line]
    assert len(falls_back) == (provider == "cpu")
    assert any(f"by onnx on {provider}" in line for line in onnx_server.log)


def test_cuda_serves_or_says_what_is_missing(tmp_path: Path) -> None:
    """Where there is a GPU it serves; elsewhere the start fails with the remedy."""
    publish_tiny(tmp_path / "registry", "fm", graphs=True)
    with ServerProcess(tmp_path / "registry", wait=False, scorer="onnx", onnx_provider="cuda") as server:
        if has_cuda():
            server.wait_until_listening()
            server.wait_until_ready()
            assert server.client.get("/models/tiny").json()["provider"] == "cuda"
            assert len(server.rank(context=CONTEXT, item_ids=IDS).json()["items"]) == len(IDS)
            return
        assert server.process.wait(60) == 2
    assert "CTRANK_ONNX_PROVIDER=cuda: " in server.log[-1] and "pip install" in server.log[-1]


def test_a_scorer_that_is_not_installed_stops_the_start(registry: Path, without_runtime: dict[str, str]) -> None:
    with ServerProcess(registry, wait=False, env=without_runtime, scorer="onnx", default_model="tiny") as server:
        assert server.process.wait(60) == 2
    assert "ONNX Runtime is not installed" in server.log[-1] and "ctrank[onnx]" in server.log[-1]


def test_without_the_runtime_compiled_families_are_served(tmp_path: Path, without_runtime: dict[str, str]) -> None:
    publish_tiny(tmp_path / "registry", "dplr", graphs=True)
    publish_tiny(tmp_path / "registry", "nfm", name="deep", graphs=True)
    with ServerProcess(tmp_path / "registry", env=without_runtime) as server:
        assert len(server.rank(model="tiny", context=CONTEXT, item_ids=IDS).json()["items"]) == len(IDS)
        refused = server.rank(model="deep", context=CONTEXT, item_ids=IDS)
    assert refused.status_code == 503 and "pip install 'ctrank[onnx]'" in refused.json()["detail"]
    assert "Traceback" not in "".join(server.log)


def has_cuda() -> bool:
    try:
        return find_provider("auto").name == "cuda"
    except OnnxUnavailable:
        return False
