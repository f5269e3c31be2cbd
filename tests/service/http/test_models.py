"""Models over HTTP: listing, activation, roll-back, and a swap under load."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models_export.manifest import FAMILIES, NETWORK_FAMILIES
from models_export.registry import Registry
from service.bench.load import drive, post
from tests.service.http.conftest import ADMIN_KEY
from tests.service.http.server_process import ServerProcess
from tests.tiny_artefact import CONTEXT, publish_tiny

pytestmark = pytest.mark.timed

KEY = {"X-Admin-Key": ADMIN_KEY}


@pytest.fixture
def own_registry(tmp_path: Path) -> Path:
    publish_tiny(tmp_path / "registry", "dplr")
    return tmp_path / "registry"


@pytest.fixture
def own_server(own_registry: Path) -> Iterator[ServerProcess]:
    with ServerProcess(own_registry, admin_key=ADMIN_KEY, poll_ms=50) as running:
        yield running
        assert "Traceback" not in "".join(running.log), "".join(running.log)


def wait_for_version(server: ServerProcess, version: str) -> None:
    deadline = time.monotonic() + 20
    while server.rank(context={}, item_ids=["i1"]).json()["version"] != version:
        assert time.monotonic() < deadline, "".join(server.log)
        time.sleep(0.02)


def test_list_and_show(server: ServerProcess) -> None:
    models = {model["name"]: model for model in server.client.get("/models").json()["models"]}
    assert set(models) == {"bare", *FAMILIES, "squared", "tiny"}
    assert models["tiny"]["default"] and models["tiny"]["active"] == "v000002"
    assert [v["version"] for v in models["tiny"]["versions"]] == ["v000001", "v000002"]
    for name, model in models.items():
        expected = "onnx" if name in NETWORK_FAMILIES else "numba"
        assert (model["scorer"], model["provider"] in ("cpu", "cuda")) == (expected, True)
        assert server.metric("ctrank_scorer_info", model=name, scorer=expected, provider=model["provider"]) == 1
    shown = server.client.get("/models/tiny").json()
    assert (shown["scorer"], shown["provider"]) == ("numba", "cpu")
    assert (shown["family"], shown["rank"], shown["items"], shown["metrics"]) == ("dplr", 2, 60, {"auc": 0.5})
    assert {f["name"]: f["kind"] for f in shown["fields"]}["recent"] == "multi"
    assert server.client.get("/models/nope").status_code == 404
    assert server.client.get("/models/..").status_code == 404


def test_administration_needs_the_key(server: ServerProcess) -> None:
    for path in ("/models/tiny/activate", "/models/tiny/rollback"):
        body = {"version": "v000001"}
        assert server.client.post(path, json=body).status_code == 401
        assert server.client.post(path, json=body, headers={"X-Admin-Key": "another"}).status_code == 403
    assert server.client.get("/models/tiny").json()["active"] == "v000002"


def test_administration_without_a_configured_key(own_registry: Path) -> None:
    with ServerProcess(own_registry) as server:
        reply = server.client.post("/models/tiny/rollback", headers=KEY)
        assert reply.status_code == 403 and "CTRANK_ADMIN_KEY" in reply.json()["detail"]


def test_activate_and_roll_back(own_server: ServerProcess, own_registry: Path) -> None:
    server = own_server
    publish_tiny(own_registry, "fm", activate=False, seed=4)
    assert server.rank(context={}, item_ids=["i1"]).json()["version"] == "v000001"
    reply = server.client.post("/models/tiny/activate", json={"version": "v000002"}, headers=KEY)
    assert reply.json() == {"model": "tiny", "active": "v000002", "previous": "v000001"}
    assert server.rank(context={}, item_ids=["i1"]).json()["version"] == "v000002"
    assert Registry(own_registry).active("tiny") == "v000002"
    assert server.metric("ctrank_model_info", version="v000002", family="fm") == 1
    assert server.metric("ctrank_model_info", version="v000001") == 0
    back = server.client.post("/models/tiny/rollback", headers=KEY)
    assert back.json() == {"model": "tiny", "active": "v000001", "previous": "v000002"}
    assert server.rank(context={}, item_ids=["i1"]).json()["version"] == "v000001"
    nothing = server.client.post("/models/tiny/rollback", headers=KEY)
    assert nothing.status_code == 409
    for version, status in (("v000077", 404), ("../x", 404)):
        assert server.client.post("/models/tiny/activate", json={"version": version}, headers=KEY).status_code == status
    assert server.client.post("/models/nope/activate", json={"version": "v000001"}, headers=KEY).status_code == 404
    assert server.client.post("/models/nope/rollback", headers=KEY).status_code == 404
    assert server.client.post("/models/tiny/activate", json={}, headers=KEY).status_code == 422


def test_a_registry_that_cannot_be_written_refuses_to_activate(own_server: ServerProcess, own_registry: Path) -> None:
    publish_tiny(own_registry, "fm", activate=False, seed=4)
    (own_registry / "tiny" / ".lock").unlink()
    (own_registry / "tiny" / ".lock").mkdir()
    for path, body in (("activate", {"version": "v000002"}), ("rollback", {})):
        reply = own_server.client.post(f"/models/tiny/{path}", json=body, headers=KEY)
        assert reply.status_code == 409 and "expected it to be writable" in reply.json()["detail"]
    assert own_server.rank(context=CONTEXT, item_ids=["i1"]).json()["version"] == "v000001"


def test_activated_in_the_registry_is_served_without_restart(own_server: ServerProcess, own_registry: Path) -> None:
    assert publish_tiny(own_registry, "fwfm", seed=2) == "v000002"
    wait_for_version(own_server, "v000002")
    publish_tiny(own_registry, "fm", name="second")
    deadline = time.monotonic() + 20
    while own_server.rank(model="second", context={}, item_ids=["i1"]).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_version_that_does_not_verify_is_never_served(own_server: ServerProcess, own_registry: Path) -> None:
    version = publish_tiny(own_registry, "fm", activate=False, seed=9)
    weights = own_registry / "tiny" / version / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused = own_server.client.post("/models/tiny/activate", json={"version": version}, headers=KEY)
    assert refused.status_code == 409 and "SHA-256" in refused.json()["detail"]
    pinned = own_server.rank(context={}, item_ids=["i1"], version=version)
    assert pinned.status_code == 503 and pinned.headers["content-type"] == "application/problem+json"
    Registry(own_registry).activate("tiny", version)
    deadline = time.monotonic() + 20
    while own_server.metric("ctrank_model_load_failures_total", model="tiny") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert own_server.rank(context={}, item_ids=["i1"]).json()["version"] == "v000001"
    assert own_server.client.get("/readyz").status_code == 200


def test_a_version_without_graphs_is_refused_and_the_others_are_served(own_registry: Path) -> None:
    """A network exported without graphs, published before the start and while serving: one clear line, a problem
    document, and no harm to others."""
    publish_tiny(own_registry, "nfm", name="deep")
    with ServerProcess(own_registry, admin_key=ADMIN_KEY, poll_ms=50) as server:
        assert server.rank(model="tiny", context={}, item_ids=["i1"]).status_code == 200
        for body in ({}, {"version": "v000001"}):
            refused = server.rank(model="deep", context={}, item_ids=["i1"], **body)
            assert refused.status_code == 503 and refused.headers["content-type"] == "application/problem+json"
            assert "a nfm model is scored by ONNX Runtime here" in refused.json()["detail"]
            assert "no graphs for it; export it again: ctrank-train export" in refused.json()["detail"]
        states = {m["model"]: m["state"] for m in server.client.get("/readyz").json()["models"]}
        assert states["tiny"] == "ready" and "no graphs for it" in states["deep"]
        version = publish_tiny(own_registry, "dcn", activate=False)
        refused = server.client.post("/models/tiny/activate", json={"version": version}, headers=KEY)
        assert refused.status_code == 409 and "a dcn model is scored by ONNX Runtime" in refused.json()["detail"]
        assert server.rank(context={}, item_ids=["i1"], model="tiny").json()["version"] == "v000001"
        servable = publish_tiny(own_registry, "nfm", name="deep", graphs=True)
        deadline = time.monotonic() + 20
        while server.rank(model="deep", context={}, item_ids=["i1"]).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert server.rank(model="deep", context={}, item_ids=["i1"]).json()["version"] == servable
    log = "".join(server.log)
    assert "Traceback" not in log
    assert log.count("model deep v000001 is not served: a nfm model is scored by ONNX Runtime here") >= 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_registry_that_cannot_be_served_does_not_start(tmp_path: Path, workers: int) -> None:
    publish_tiny(tmp_path / "registry", "afm", name="deep")
    with ServerProcess(tmp_path / "registry", wait=False, workers=workers) as server:
        assert server.process.wait(60) == 2
    last = [line for line in server.log if line.startswith("ctrank-serve: ")][-1]
    assert "model deep v000001 is not served" in last or "model 'deep' v000001 is not served" in last
    assert "export it again: ctrank-train export" in last


def test_a_served_version_whose_folder_is_gone_keeps_serving(own_server: ServerProcess, own_registry: Path) -> None:
    publish_tiny(own_registry, "fm", seed=2)
    wait_for_version(own_server, "v000002")
    shutil.rmtree(own_registry / "tiny" / "v000002")
    time.sleep(0.3)
    assert own_server.rank(context={}, item_ids=["i1"]).json()["version"] == "v000002"


def test_swap_under_load(own_server: ServerProcess, own_registry: Path) -> None:
    """New versions while 8 connections rank by context id: nobody fails, and no state meets another version."""
    ids = ["i1", "i2", "i3"]
    body = json.dumps({"context_id": "c", "context": CONTEXT, "item_ids": ids}).encode()
    seen: dict[str, set[str]] = {}
    order: list[str] = []

    def on_reply(index: int, status: int, reply: bytes) -> None:
        parsed = json.loads(reply)
        order.append(parsed["version"])
        seen.setdefault(parsed["version"], set()).add(json.dumps(parsed["items"]))

    async def swap() -> None:
        for seed in (1, 2, 3):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(publish_tiny, own_registry, "dplr", seed=seed)
            while f"v00000{seed + 1}" not in seen:
                await asyncio.sleep(0.01)

    async def swap_while_driving() -> None:
        swapping = asyncio.ensure_future(swap())
        deadline = time.monotonic() + 60
        while not swapping.done():
            assert time.monotonic() < deadline, seen.keys()
            result = await drive(own_server.port, [post("/rank", body)], 8, count=2000, on_reply=on_reply)
            assert result.statuses == {200: 2000} and not result.failures
        await swapping

    asyncio.run(swap_while_driving())
    assert set(seen) == {"v000001", "v000002", "v000003", "v000004"}
    assert order[-1] == "v000004"
    for version, rankings in seen.items():
        uncached = own_server.rank(context=CONTEXT, item_ids=ids, version=version).json()["items"]
        assert rankings == {json.dumps(uncached)}
