"""`/rank` and `/score` over a real socket, against the float64 oracle and against each other."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models_export.manifest import FAMILIES
from models_export.reader import Artefact, read_artefact
from models_export.registry import Registry
from service.openapi import EXAMPLES
from service.schemas import RankReply, RankRequest, ScoreReply
from tests import oracle
from tests.service.http.server_process import ROOT, ServerProcess
from tests.tiny_artefact import CONTEXT, GENRES, item_rows

N_ITEMS = 60
MIXED: list[dict[str, Any]] = [
    {"id": "i3", "fields": {"price": 3.5}},
    {"id": "new-1", "fields": {"year": 1995, "genre": {"War": 0.7, "Drama": 2}, "price": "7.25"}},
    {"id": "i9"},
    {"id": "new-2", "fields": {"genre": [], "year": None, "price": 0}},
    {"id": "ünïcode ☃", "fields": {"genre": GENRES[4], "year": "2099"}},
]


def artefact(registry: Path, name: str) -> Artefact:
    found = Registry(registry)
    return read_artefact(found.path(name, str(found.active(name))))


def expected(found: Artefact, context: dict[str, Any], items: list[dict[str, Any]]) -> np.ndarray:
    encoder = found.encoder
    sides = encoder.encode_side("context", [context]), encoder.encode_side("item", items)
    return oracle.scores(found.manifest, found.weights(), *sides)


def full_rows(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Inline items with what the catalogue knows filled in, as the encoder takes them."""
    catalogue = {row["item_id"]: row for row in item_rows(N_ITEMS)}
    rows = []
    for item in items:
        base = catalogue.get(item["id"], {"item_id": item["id"]})
        rows.append(base | item.get("fields", {}))
    return rows


@pytest.mark.parametrize("family", FAMILIES)
def test_catalogue_slate_is_the_oracles(server: ServerProcess, registry: Path, family: str) -> None:
    ids = [f"i{i}" for i in range(0, N_ITEMS, 2)]
    reply = server.rank(model=family, context=CONTEXT, item_ids=ids).json()
    rows = item_rows(N_ITEMS)[::2]
    scores = expected(artefact(registry, family), CONTEXT, rows)
    order = np.argsort(-scores, kind="stable")
    assert [item["id"] for item in reply["items"]] == [ids[i] for i in order]
    found = [item["score"] for item in reply["items"]]
    assert np.allclose(found, scores[order], atol=1e-4)
    assert np.allclose([item["probability"] for item in reply["items"]], 1 / (1 + np.exp(-scores[order])), atol=1e-5)
    assert reply["model"] == family and reply["version"] == "v000001" and reply["context_source"] == "computed"
    assert reply["unknown_item_ids"] == [] and 0 < reply["took_ms"] < 1000


@pytest.mark.parametrize("family", FAMILIES)
def test_inline_items_are_completed_from_the_catalogue(server: ServerProcess, registry: Path, family: str) -> None:
    reply = server.rank(model=family, context=CONTEXT, items=MIXED).json()
    scores = expected(artefact(registry, family), CONTEXT, full_rows(MIXED))
    order = np.argsort(-scores, kind="stable")
    assert [item["id"] for item in reply["items"]] == [MIXED[i]["id"] for i in order]
    assert np.allclose([item["score"] for item in reply["items"]], scores[order], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cached_context_gives_the_scores_of_the_context_itself(server: ServerProcess, family: str) -> None:
    ids, key = [f"i{i}" for i in range(N_ITEMS)], f"cached-{family}"
    computed = server.rank(model=family, context=CONTEXT, item_ids=ids).json()
    stored = server.rank(model=family, context=CONTEXT, context_id=key, item_ids=ids).json()
    by_id = server.rank(model=family, context_id=key, item_ids=ids).json()
    assert computed["context_source"] == "computed" and by_id["context_source"] != "computed"
    assert computed["items"] == stored["items"] == by_id["items"] and len(by_id["items"]) == N_ITEMS


@pytest.mark.parametrize("family", FAMILIES)
def test_columns_items_and_score_agree(server: ServerProcess, family: str) -> None:
    rows = item_rows(N_ITEMS)[:20]
    ids = [row.pop("item_id") for row in rows]
    names = list(rows[0])
    items = [{"id": i, "fields": row} for i, row in zip(ids, rows, strict=True)]
    by_item = server.rank(model=family, context=CONTEXT, items=items)
    columns = {"ids": ids, "fields": {name: [row[name] for row in rows] for name in names}}
    by_column = server.rank(model=family, context=CONTEXT, item_columns=columns)
    by_id = server.rank(model=family, context=CONTEXT, item_ids=ids)
    assert by_item.json()["items"] == by_column.json()["items"]
    instances = [{"context": CONTEXT, "item": row | {"item_id": i}} for i, row in zip(ids, rows, strict=True)]
    predictions = server.client.post("/score", json={"model": family, "instances": instances}).json()["predictions"]
    scored = dict(zip(ids, predictions, strict=True))
    for reply in (by_item, by_id):
        for item in reply.json()["items"]:
            assert item["score"] == pytest.approx(scored[item["id"]]["score"], abs=2e-5)
            assert item["probability"] == pytest.approx(scored[item["id"]]["probability"], abs=1e-5)


def test_top_k_is_the_head_of_the_whole(server: ServerProcess) -> None:
    ids = [f"i{i}" for i in range(N_ITEMS)]
    whole = server.rank(context=CONTEXT, item_ids=ids).json()["items"]
    assert len(whole) == N_ITEMS
    for k in (1, 7, N_ITEMS):
        assert server.rank(context=CONTEXT, item_ids=ids, top_k=k).json()["items"] == whole[:k]
    catalogue = server.rank(context=CONTEXT, top_k=7).json()["items"]
    assert [item["id"] for item in catalogue] == [item["id"] for item in whole[:7]]
    assert np.allclose([i["score"] for i in catalogue], [i["score"] for i in whole[:7]], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_usual_requests_reach_the_model_they_name(server: ServerProcess, family: str) -> None:
    """Wherever the body names it, and whatever else looks like a name."""
    ids = [f"i{i}" for i in range(60)]
    whole = server.rank(model=family, context=CONTEXT, item_ids=ids).json()["items"][:3]
    default = server.rank(context=CONTEXT, item_ids=ids).json()["items"][:3]
    rest = {"context": CONTEXT, "item_ids": ids, "top_k": 3}
    before = server.metric("ctrank_candidates_total", model=family)
    for body in ({"model": family, **rest}, {**rest, "model": family}, {"context": CONTEXT, "model": family, **rest}):
        reply = server.rank(**body).json()
        assert reply["model"] == family and reply["items"] == whole and reply["context_source"] == "computed"
    assert server.metric("ctrank_candidates_total", model=family) == before + 180
    assert server.rank(**rest).json() | {"took_ms": 0} == {
        "model": "tiny", "version": "v000002", "context_source": "computed", "items": default, "unknown_item_ids": [],
        "took_ms": 0,
    }  # fmt: skip
    misleading = {"context": CONTEXT | {"user_id": f'"model":"{family}"'}, "item_ids": ids, "top_k": 3}
    assert server.rank(**misleading).json()["model"] == "tiny"
    assert server.rank(model="nothing", **rest).status_code == 404


def test_unknown_items_are_listed_and_left_out(server: ServerProcess) -> None:
    reply = server.rank(context=CONTEXT, item_ids=["nope", "i1", "né", "i2"]).json()
    assert sorted(item["id"] for item in reply["items"]) == ["i1", "i2"]
    assert reply["unknown_item_ids"] == ["nope", "né"]


def test_unknown_values_are_ranked_and_counted_by_field(server: ServerProcess) -> None:
    def count(field: str) -> float:
        return server.metric("ctrank_unknown_values_total", model="tiny", field=field)

    users, recent, years = count("user_id"), count("recent"), count("year")
    reply = server.rank(
        context={"user_id": "stranger", "recent": ["i1", "never", "seen"]},
        items=[{"id": "i1", "fields": {"year": "2099"}}, {"id": "i2"}],
    )
    assert reply.status_code == 200
    assert (count("user_id"), count("recent"), count("year")) == (users + 1, recent + 2, years + 1)


def test_ties_keep_request_order(server: ServerProcess) -> None:
    items = [{"id": f"x{i}", "fields": {"year": "1995", "item_id": None}} for i in range(30)]
    reply = server.rank(context=CONTEXT, items=items).json()["items"]
    assert [item["id"] for item in reply] == [f"x{i}" for i in range(30)]


def test_version_pin(server: ServerProcess) -> None:
    newest = server.rank(context=CONTEXT, item_ids=["i1"]).json()
    pinned = server.rank(context=CONTEXT, item_ids=["i1"], model="tiny", version="v000001").json()
    assert (newest["version"], pinned["version"]) == ("v000002", "v000001")
    assert newest["items"] != pinned["items"]


def test_squared_loss_has_no_probability(server: ServerProcess) -> None:
    reply = server.rank(model="squared", context=CONTEXT, item_ids=["i1"]).json()
    assert set(reply["items"][0]) == {"id", "score"}
    body = {"model": "squared", "instances": [{"context": CONTEXT, "item": {"item_id": "i1"}}]}
    assert set(server.client.post("/score", json=body).json()["predictions"][0]) == {"score"}


def test_mixed_contexts_are_scored_row_by_row(server: ServerProcess) -> None:
    contexts = [CONTEXT, {}, {"user_id": "u1", "hour": "3"}, CONTEXT]
    instances = [{"context": c, "item": {"item_id": f"i{i}", "year": "1991"}} for i, c in enumerate(contexts)]
    predictions = server.client.post("/score", json={"instances": instances}).json()["predictions"]
    for instance, prediction in zip(instances, predictions, strict=True):
        item = instance["item"]
        ranked = server.rank(context=instance["context"], items=[{"id": item["item_id"], "fields": {"year": "1991"}}])
        assert ranked.json()["items"][0]["score"] == pytest.approx(prediction["score"], abs=2e-5)


def test_explicit_nulls_are_absent_members(server: ServerProcess) -> None:
    plain = server.rank(context=CONTEXT, item_ids=["i1", "i2"]).json()
    nulls = {"items": None, "item_columns": None, "model": None, "version": None, "context_id": None, "top_k": None}
    assert server.rank(context=CONTEXT, item_ids=["i1", "i2"], **nulls).json()["items"] == plain["items"]


def test_the_reply_is_what_the_documentation_says(server: ServerProcess) -> None:
    reply = server.rank(context=CONTEXT, item_ids=["i1", "i2", 'quote " and \\ backslash'])
    decoded = msgspec.json.decode(reply.content, type=RankReply)
    assert list(reply.json()) == [field.name for field in msgspec.structs.fields(RankReply)]
    assert decoded.unknown_item_ids == ['quote " and \\ backslash'] and len(decoded.items) == 2
    body = {"instances": [{"context": CONTEXT, "item": {}}]}
    msgspec.json.decode(server.client.post("/score", json=body).content, type=ScoreReply)


def test_openapi_describes_the_bodies_and_its_examples_are_valid(server: ServerProcess) -> None:
    document = server.client.get("/openapi.json").json()
    assert {"/rank", "/score", "/contexts/{context_id}", "/models", "/metrics", "/readyz"} <= set(document["paths"])
    request = document["paths"]["/rank"]["post"]["requestBody"]["content"]["application/json"]
    assert request["schema"] == {"$ref": "#/components/schemas/RankRequest"}
    properties = document["components"]["schemas"]["RankRequest"]["properties"]
    assert set(properties) == {field.name for field in msgspec.structs.fields(RankRequest)}
    assert properties["item_ids"]["type"] == "array"
    for example in request["examples"].values():
        msgspec.json.decode(msgspec.json.encode(example["value"]), type=RankRequest)
    assert "swagger" in server.client.get("/docs").text.lower()


def test_the_examples_use_the_fields_of_the_demos_model() -> None:
    spec = tomllib.loads((ROOT / "training" / "specs" / "movielens-1m.toml").read_text())
    sides = {field["name"]: field["side"] for field in spec["fields"]}
    for example in EXAMPLES["RankRequest"].values():
        body = example["value"]
        named = [(name, "context") for name in body["context"]]
        named += [(name, "item") for item in body.get("items", ()) for name in item.get("fields", ())]
        named += [(name, "item") for name in body.get("item_columns", {}).get("fields", ())]
        assert all(sides[name] == side for name, side in named), named
    for example in EXAMPLES["ScoreRequest"].values():
        for instance in example["value"]["instances"]:
            assert all(sides[name] == side for side, fields in instance.items() for name in fields)
