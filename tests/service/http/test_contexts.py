"""The life of a cached context, over a real socket; the embedded default needs no Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.service.http.server_process import ServerProcess
from tests.tiny_artefact import CONTEXT, publish_tiny

OTHER = CONTEXT | {"user_id": "u1"}
IDS = ["i1", "i2", "i3", "i4"]


def test_life(server: ServerProcess) -> None:
    client = server.client
    assert client.get("/contexts/life").status_code == 404
    stored = client.put("/contexts/life", json={"context": CONTEXT})
    assert stored.status_code == 200 and stored.json()["source"] == "computed"
    found = client.get("/contexts/life").json()
    assert found == stored.json() | {"source": "memory"}
    by_id = server.rank(context_id="life", item_ids=IDS).json()
    plain = server.rank(context=CONTEXT, item_ids=IDS).json()
    assert by_id["context_source"] == "memory" and plain["context_source"] == "computed"
    assert by_id["items"] == plain["items"]
    assert client.delete("/contexts/life").status_code == 204
    assert client.delete("/contexts/life").status_code == 204
    assert server.rank(context_id="life", item_ids=IDS).status_code == 404


def test_rank_with_both_keeps_and_replaces(server: ServerProcess) -> None:
    first = server.rank(context_id="both", context=CONTEXT, item_ids=IDS).json()
    again = server.rank(context_id="both", context=CONTEXT, item_ids=IDS).json()
    assert (first["context_source"], again["context_source"]) == ("computed", "memory")
    replaced = server.rank(context_id="both", context=OTHER, item_ids=IDS).json()
    assert replaced["context_source"] == "computed"
    assert replaced["items"] == server.rank(context=OTHER, item_ids=IDS).json()["items"] != first["items"]
    assert server.rank(context_id="both", item_ids=IDS).json()["items"] == replaced["items"]


def test_cached_is_uncached_for_a_state_of_many_anchors(server: ServerProcess) -> None:
    server.client.put("/contexts/local", json={"context": CONTEXT, "model": "llfm"})
    for slate in ({"item_ids": IDS}, {"items": [{"id": "new", "fields": {"margin": -1.5}}]}, {"top_k": 5}):
        by_id = server.rank(model="llfm", context_id="local", **slate).json()
        plain = server.rank(model="llfm", context=CONTEXT, **slate).json()
        assert by_id["context_source"] == "memory" and by_id["items"] == plain["items"] != []


def test_a_state_belongs_to_its_model_version(server: ServerProcess) -> None:
    server.client.put("/contexts/versioned", json={"context": CONTEXT})
    assert server.rank(context_id="versioned", item_ids=IDS).status_code == 200
    assert server.rank(context_id="versioned", item_ids=IDS, version="v000001", model="tiny").status_code == 404
    assert server.rank(context_id="versioned", item_ids=IDS, model="fm").status_code == 404
    other = {"context": CONTEXT, "model": "fm", "version": "v000001"}
    assert server.client.put("/contexts/versioned", json=other).json()["model"] == "fm"
    assert server.client.get("/contexts/versioned", params={"model": "fm"}).status_code == 200
    assert server.client.get("/contexts/versioned", params={"model": "nope"}).status_code == 404


def test_odd_ids(server: ServerProcess) -> None:
    for context_id in ("a b", "ü☃", "x" * 256, "..%2F..", "a:b"):
        path = f"/contexts/{context_id}".replace("%", "%25")
        assert server.client.put(path, json={"context": CONTEXT}).status_code == 200
        assert server.rank(context_id=context_id, item_ids=IDS).status_code == 200


@pytest.mark.parametrize(
    "body", [{}, {"context": None}, {"context": 1}, {"context": {"nope": 1}}, {"context": {}, "extra": 1}]
)
def test_bad_context(server: ServerProcess, body: dict[str, object]) -> None:
    reply = server.client.put("/contexts/bad", json=body)
    assert reply.status_code == 422 and reply.headers["content-type"] == "application/problem+json"


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("registry")
    publish_tiny(root)
    return root


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def test_another_process_finds_the_context_in_redis(one_model: Path, redis: RedisServer) -> None:
    with (
        ServerProcess(one_model, redis_url=redis.url, redis_timeout_ms=1000) as first,
        ServerProcess(one_model, redis_url=redis.url, redis_timeout_ms=1000, context_max_age_ms=0) as second,
    ):
        stored = first.rank(context_id="shared", context=CONTEXT, item_ids=IDS).json()
        for _ in range(200):
            reply = second.rank(context_id="shared", item_ids=IDS)
            if reply.status_code == 200:
                break
        assert reply.json()["context_source"] == "redis"
        assert reply.json()["items"] == stored["items"]
        assert second.metric("ctrank_cache_hits_total", tier="redis") == 1


def test_flipped_byte_is_a_counted_miss(one_model: Path, redis: RedisServer) -> None:
    import redis as client_library

    with ServerProcess(one_model, redis_url=redis.url, redis_timeout_ms=1000, context_max_age_ms=0) as server:
        server.client.put("/contexts/flipped", json={"context": CONTEXT})
        with client_library.Redis.from_url(redis.url) as client:
            keys: list[bytes] = []
            while not keys:
                keys = list(client.scan_iter("ctrank:*:flipped"))
            value = bytearray(client.get(keys[0]))
            value[-3] ^= 0x10
            client.set(keys[0], bytes(value))
        reply = server.rank(context_id="flipped", item_ids=IDS)
        assert reply.status_code == 404
        assert server.metric("ctrank_cache_misses_total", reason="corrupt") == 1
        healed = server.rank(context_id="flipped", context=CONTEXT, item_ids=IDS)
        assert healed.json()["items"] == server.rank(context=CONTEXT, item_ids=IDS).json()["items"]
