"""What bad input gets, over a real socket: a problem document that names the fault. Never a 5xx, never a traceback."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from tests.service.http.conftest import LIMITS
from tests.service.http.server_process import ServerProcess
from tests.tiny_artefact import CONTEXT

IDS = ["i1", "i2", "i3"]
INLINE = {"id": "x", "fields": {"year": "1995"}}


def assert_problem(reply: httpx.Response, status: int, *mentioned: str, field: str | None = None) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert set(problem) - {"field"} == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert problem["type"].startswith("urn:ctrank:problem:")
    assert "Traceback" not in reply.text and 'File "' not in reply.text
    for text in mentioned:
        assert text in problem["detail"], problem
    if field is not None:
        assert problem["field"].split("[")[0].split(".")[-1] == field or field in problem["field"], problem
    return problem


def raw_post(server: ServerProcess, content: bytes, path: str = "/rank", **headers: str) -> httpx.Response:
    return server.client.post(path, content=content, headers={"content-type": "application/json"} | headers)


@pytest.fixture(autouse=True)
def still_serving(server: ServerProcess) -> Any:
    """After every insult the next request is served."""
    yield
    assert server.rank(context=CONTEXT, item_ids=IDS).status_code == 200


BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("unknown context field", {"nope": "1"}, "nope"),
    ("item field in the context", {"year": "1995"}, "year"),
    ("boolean", {"user_id": True}, "user_id"),
    ("fraction for a categorical field", {"user_id": 1.5}, "user_id"),
    ("object for a categorical field", {"user_id": {"a": 1}}, "user_id"),
    ("list for a categorical field", {"user_id": ["a"]}, "user_id"),
    ("text for a number", {"age": "old"}, "age"),
    ("boolean for a number", {"age": False}, "age"),
    ("NaN in quotes", {"age": "NaN"}, "age"),
    ("infinity in quotes", {"age": "-Infinity"}, "age"),
    ("negative weight", {"recent": {"i1": -0.5}}, "recent"),
    ("huge weight", {"recent": {"i1": 1e7}}, "recent"),
    ("text as weight", {"recent": {"i1": "1"}}, "recent"),
    ("boolean as weight", {"recent": {"i1": True}}, "recent"),
    ("boolean in a list", {"recent": [True]}, "recent"),
    ("list in a list", {"recent": [["i1"]]}, "recent"),
    ("number out of range", {"age": 10**400}, "age"),
    ("text for a dense field", {"tenure": "long"}, "tenure"),
    ("list for a dense field", {"tenure": [1.0]}, "tenure"),
    ("object for a dense field", {"tenure": {"a": 1}}, "tenure"),
    ("boolean for a dense field", {"tenure": True}, "tenure"),
    ("NaN in quotes for a dense field", {"tenure": "NaN"}, "tenure"),
    ("dense number out of range", {"tenure": 1e9}, "tenure"),
]


@pytest.mark.parametrize(("context", "field"), [case[1:] for case in BAD_FIELDS], ids=[case[0] for case in BAD_FIELDS])
def test_bad_context_value(server: ServerProcess, context: dict[str, Any], field: str) -> None:
    body = json.dumps({"context": context, "item_ids": IDS}).encode()
    assert_problem(raw_post(server, body), 422, field=field)


BAD_ITEM_FIELDS = [
    ({"nope": "1"}, "nope"),
    ({"user_id": "u1"}, "user_id"),
    ({"year": True}, "year"),
    ({"price": "cheap"}, "price"),
    ({"price": "NaN"}, "price"),
    ({"margin": "much"}, "margin"),
    ({"margin": [0.5]}, "margin"),
    ({"margin": -1e9}, "margin"),
    ({"genre": {"War": -1}}, "genre"),
    ({"genre": {"War": 1e7}}, "genre"),
    ({"genre": [None, 1.5]}, "genre"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_ITEM_FIELDS)
def test_bad_inline_item(server: ServerProcess, fields: dict[str, Any], field: str) -> None:
    assert_problem(server.rank(context=CONTEXT, items=[INLINE, {"id": "y", "fields": fields}]), 422, field=field)


@pytest.mark.parametrize(("fields", "field"), BAD_ITEM_FIELDS)
def test_bad_item_column(server: ServerProcess, fields: dict[str, Any], field: str) -> None:
    columns = {"ids": ["x", "y"], "fields": {name: [None, value] for name, value in fields.items()}}
    assert_problem(server.rank(context=CONTEXT, item_columns=columns), 422, field=field)


@pytest.mark.parametrize(("fields", "field"), BAD_ITEM_FIELDS)
def test_bad_instance(server: ServerProcess, fields: dict[str, Any], field: str) -> None:
    instances = [{"context": CONTEXT, "item": {}}, {"context": CONTEXT, "item": fields}]
    assert_problem(server.client.post("/score", json={"instances": instances}), 422, field=field)


BAD_SHAPES: list[tuple[str, dict[str, Any], str]] = [
    ("unknown member", {"item_idz": IDS}, "item_idz"),
    ("two slates", {"item_ids": IDS, "items": [INLINE]}, "items"),
    ("ids not a list", {"item_ids": "i1"}, "item_ids"),
    ("ids an object", {"item_ids": {"i1": 1}}, "item_ids"),
    ("an id that is an object", {"item_ids": ["i1", {}]}, "item_ids"),
    ("an id that is null", {"item_ids": ["i1", None]}, "item_ids"),
    ("an id that is a fraction", {"item_ids": [1.5]}, "item_ids"),
    ("items not a list", {"items": INLINE}, "items"),
    ("an item without id", {"items": [{"fields": {}}]}, "items"),
    ("an item with an unknown member", {"items": [{"id": "x", "field": {}}]}, "items"),
    ("an item that is a string", {"items": ["i1"]}, "items"),
    ("item fields that are a list", {"items": [{"id": "x", "fields": []}]}, "items"),
    ("columns not an object", {"item_columns": []}, "item_columns"),
    ("columns without ids", {"item_columns": {"fields": {}}}, "item_columns"),
    ("columns with an unknown member", {"item_columns": {"ids": [], "extra": 1}}, "item_columns"),
    ("a column that is short", {"item_columns": {"ids": ["x", "y"], "fields": {"year": ["1995"]}}}, "year"),
    ("a column that is long", {"item_columns": {"ids": ["x"], "fields": {"year": ["1995", "1996"]}}}, "year"),
    ("a column that is a string", {"item_columns": {"ids": ["x"], "fields": {"year": "1995"}}}, "year"),
    ("top_k zero", {"item_ids": IDS, "top_k": 0}, "top_k"),
    ("top_k negative", {"item_ids": IDS, "top_k": -1}, "top_k"),
    ("top_k a string", {"item_ids": IDS, "top_k": "3"}, "top_k"),
    ("top_k a fraction", {"item_ids": IDS, "top_k": 2.5}, "top_k"),
    ("whole catalogue without top_k", {}, "top_k"),
    ("whole catalogue with a huge top_k", {"top_k": 10_000_000}, "top_k"),
    ("explain", {"item_ids": IDS, "explain": True}, "explain"),
    ("context not an object", {"context": [1], "item_ids": IDS}, "context"),
    ("context a string", {"context": "u1", "item_ids": IDS}, "context"),
    ("no context, no id", {"context": None, "item_ids": IDS}, "context"),
    ("model a number", {"model": 1, "item_ids": IDS}, "model"),
    ("empty context_id", {"context_id": "", "item_ids": IDS}, "context_id"),
    ("long context_id", {"context_id": "x" * 257, "item_ids": IDS}, "context_id"),
]


@pytest.mark.parametrize(("body", "field"), [case[1:] for case in BAD_SHAPES], ids=[case[0] for case in BAD_SHAPES])
def test_bad_shape(server: ServerProcess, body: dict[str, Any], field: str) -> None:
    assert_problem(server.client.post("/rank", json={"context": CONTEXT} | body), 422, field=field)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": {}},
        {"instances": [1]},
        {"instances": [{"context": 1}]},
        {"instances": [{"contexts": {}}]},
        {"instances": [{"context": {}, "item": []}]},
        {"instances": [{}], "extra": 1},
    ],
)
def test_bad_score_shape(server: ServerProcess, body: dict[str, Any]) -> None:
    assert_problem(server.client.post("/score", json=body), 422)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"hello",
        b'{"context": {"age": NaN}, "item_ids": ["i1"]}',
        b'{"context": {"age": Infinity}, "item_ids": ["i1"]}',
        b'{"context": {"age": -Infinity}, "item_ids": ["i1"]}',
        b'{"context": {}, "item_ids": ["i1"],}',
        b'{"context": {}, "item_ids": ["i1"]} trailing',
        b'{"context": {"user_id": "\xff\xfe"}, "item_ids": ["i1"]}',
        b'{"context": {}, "item_ids": ["i1", "\xc3\x28"]}',
        b'{"context": {}, "items": [{"id": "\xed\xa0\x80"}]}',
        b'{"context": {"\x80": 1}, "item_ids": ["i1"]}',
        b"\xff\xfe{\x00}\x00",
        b'{"context": ' + b"[" * 200_000 + b"]" * 200_000 + b', "item_ids": ["i1"]}',
        b'{"context": {}, "item_ids": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ],
    ids=lambda content: repr(content[:40]),
)
def test_not_json(server: ServerProcess, content: bytes) -> None:
    assert_problem(raw_post(server, content), 400)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"instances": [',
        b'{"instances": [{"context": {"age": NaN}}]}',
        b'{"instances": [{"context": {"age": Infinity}}]}',
        b'{"instances": [{"context": {"user_id": "\xff\xfe"}}]}',
        b'{"instances": [{"context": {"recent": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}]}",
        b'{"instances": [{"item": {"genre": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}}]}",
    ],
    ids=lambda content: repr(content[:40]),
)
def test_rows_that_are_not_json(server: ServerProcess, content: bytes) -> None:
    assert_problem(raw_post(server, content, "/score"), 400)


@pytest.mark.parametrize("content", [b"[]", b"1", b'"text"', b"null", b"[" * 500_000])
def test_json_that_is_no_object(server: ServerProcess, content: bytes) -> None:
    assert_problem(raw_post(server, content), 422)


def test_deep_but_legal_nesting_in_a_value(server: ServerProcess) -> None:
    nested = b"[" * 300 + b"]" * 300
    body = b'{"context": {"recent": ' + nested + b'}, "item_ids": ["i1"]}'
    assert_problem(raw_post(server, body), 422, field="recent")


def test_number_beyond_float64(server: ServerProcess) -> None:
    reply = raw_post(server, b'{"context": {"age": 1e999}, "item_ids": ["i1"]}')
    assert reply.status_code in (400, 422)
    assert_problem(reply, reply.status_code)


def test_lone_surrogate(server: ServerProcess) -> None:
    reply = raw_post(server, b'{"context": {"user_id": "\\ud800"}, "item_ids": ["i1"]}')
    assert reply.status_code in (400, 422)
    assert_problem(reply, reply.status_code)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/xml", "application/json; charset=latin-1"],
)
def test_wrong_content_type(server: ServerProcess, content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    reply = server.client.post("/rank", content=b'{"context": {}, "item_ids": ["i1"]}', headers=headers)
    assert_problem(reply, 415, "application/json")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"'])
def test_right_content_types(server: ServerProcess, content_type: str) -> None:
    body = b'{"context": {}, "item_ids": ["i1"]}'
    reply = server.client.post("/rank", content=body, headers={"content-type": content_type})
    assert reply.status_code == 200


def test_compressed_body(server: ServerProcess) -> None:
    assert_problem(raw_post(server, b"\x1f\x8b", **{"content-encoding": "gzip"}), 415, "gzip")


@pytest.mark.parametrize("path", ["/rank", "/score", "/contexts/a"])
def test_body_over_the_limit(server: ServerProcess, path: str) -> None:
    method = "PUT" if path.startswith("/contexts") else "POST"
    content = b'{"context": {"user_id": "' + b"x" * LIMITS["max_body_bytes"] + b'"}}'
    headers = {"content-type": "application/json"}
    reply = server.client.request(method, path, content=content, headers=headers)
    assert_problem(reply, 413, str(LIMITS["max_body_bytes"]))


def test_chunked_body_over_the_limit_is_refused_before_its_end(server: ServerProcess) -> None:
    """No Content-Length, no end: the refusal must come while the client is still sending."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /rank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(LIMITS["max_body_bytes"] // 65536 + 2):
            connection.sendall(chunk)
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


def test_declared_length_over_the_limit_is_refused_before_the_body(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /rank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n"
        )
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


def test_ten_million_ids(server: ServerProcess) -> None:
    content = b'{"context": {}, "item_ids": [' + b'"i1",' * 9_999_999 + b'"i1"]}'
    assert_problem(raw_post(server, content), 413)


@pytest.mark.parametrize("slate", ["item_ids", "items", "item_columns"])
def test_more_candidates_than_allowed(server: ServerProcess, slate: str) -> None:
    ids = [f"i{i % 60}" for i in range(LIMITS["max_candidates"] + 1)]
    value = {"item_ids": ids, "items": [{"id": i} for i in ids], "item_columns": {"ids": ids}}[slate]
    reply = server.client.post("/rank", json={"context": CONTEXT, slate: value})
    assert_problem(reply, 422, str(LIMITS["max_candidates"]))


@pytest.mark.parametrize("values", [["i1"] * 301, {f"i{i}": 1 for i in range(301)}])
def test_more_values_than_allowed(server: ServerProcess, values: Any) -> None:
    reply = server.rank(context=CONTEXT | {"recent": values}, item_ids=IDS)
    assert_problem(reply, 422, str(LIMITS["max_values_per_field"]), field="recent")


def test_more_instances_than_allowed(server: ServerProcess) -> None:
    reply = server.client.post("/score", json={"instances": [{}] * (LIMITS["max_instances"] + 1)})
    assert_problem(reply, 422, str(LIMITS["max_instances"]), field="instances")


def test_empty_slate_is_an_empty_ranking(server: ServerProcess) -> None:
    for slate in ({"item_ids": []}, {"items": []}, {"item_columns": {"ids": []}}):
        reply = server.rank(context=CONTEXT, **slate)
        assert reply.status_code == 200, reply.text
        assert reply.json()["items"] == [] and reply.json()["unknown_item_ids"] == []


def test_no_instances_is_no_prediction(server: ServerProcess) -> None:
    assert server.client.post("/score", json={"instances": []}).json()["predictions"] == []


def test_duplicate_ids_are_each_ranked_in_request_order(server: ServerProcess) -> None:
    reply = server.rank(context=CONTEXT, item_ids=["i2", "i1", "i2", "i2"])
    assert reply.status_code == 200
    items = reply.json()["items"]
    assert sorted(item["id"] for item in items) == ["i1", "i2", "i2", "i2"]
    assert len({item["score"] for item in items if item["id"] == "i2"}) == 1


def test_unknown_model_version_and_context(server: ServerProcess) -> None:
    assert_problem(server.rank(model="nope", context={}, item_ids=IDS), 404, "nope", "tiny", field="model")
    for name in ("../tiny", "", ".", "a/b", "x" * 10_000, "\x00"):
        assert_problem(server.rank(model=name, context={}, item_ids=IDS), 404, field="model")
    for version in ("v000099", "latest", "../v000001", "", "\x00"):
        assert_problem(server.rank(version=version, context={}, item_ids=IDS), 404, field="version")
    assert_problem(server.rank(context_id="never-seen", item_ids=IDS), 404, "never-seen", field="context_id")


def test_top_k_beyond_the_slate_is_the_whole_slate(server: ServerProcess) -> None:
    for top_k in (4, 2**31, 2**63, 10**30):
        assert len(server.rank(context=CONTEXT, item_ids=IDS, top_k=top_k).json()["items"]) == 3


def test_whole_catalogue_of_a_model_without_one(server: ServerProcess) -> None:
    assert_problem(server.rank(model="bare", context=CONTEXT, top_k=3), 422, "no catalogue")


def test_other_paths_and_methods(server: ServerProcess) -> None:
    assert_problem(server.client.get("/nope"), 404, "/nope")
    assert_problem(server.client.get("/rank"), 405, "GET")
    assert_problem(server.client.delete("/models"), 405, "DELETE")
    assert_problem(server.client.put("/contexts/" + "x" * 300, json={"context": {}}), 422)


def test_garbage_instead_of_http(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01garbage\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 400 ")


def test_bad_input_is_counted_by_status(server: ServerProcess) -> None:
    before = server.metric("ctrank_requests_total", route="/rank", status="422")
    server.rank(context={"nope": 1}, item_ids=IDS)
    assert server.metric("ctrank_requests_total", route="/rank", status="422") == before + 1
