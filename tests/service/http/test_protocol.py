"""The short cut for hot routes is HTTP like the ordinary way: pipelining, keep-alive, chunks, halves, odd clients."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from tests.service.http.server_process import ServerProcess
from tests.tiny_artefact import CONTEXT, publish_tiny

pytestmark = pytest.mark.timed

BODY = json.dumps({"context": CONTEXT, "item_ids": ["i1", "i2"]}).encode()
HUGE = json.dumps({"context": CONTEXT, "item_ids": [f"i{i % 60}" for i in range(100_000)], "top_k": 3}).encode()
CACHED = json.dumps({"context": CONTEXT, "context_id": "pipelined", "item_ids": ["i3"]}).encode()
GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def request(body: bytes, *headers: str, version: str = "1.1", path: str = "/rank") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: x", "content-type: application/json", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


class Connection:
    def __init__(self, server: ServerProcess) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            assert name.lower() not in headers
            headers[name.lower()] = value
        return status, headers, self.file.read(int(headers["content-length"]))

    def ids(self) -> list[str]:
        status, headers, body = self.reply()
        assert status == 200 and headers["content-type"] == "application/json" and "date" in headers
        return [item["id"] for item in json.loads(body)["items"]]

    def is_closed(self) -> bool:
        return self.file.read(1) == b""


@pytest.fixture(scope="module")
def wide_server(tmp_path_factory: pytest.TempPathFactory) -> object:
    root = tmp_path_factory.mktemp("registry")
    publish_tiny(root)
    with ServerProcess(root, offload_us=50) as running:
        yield running
        assert "Traceback" not in "".join(running.log), "".join(running.log)


@pytest.fixture
def connection(wide_server: ServerProcess) -> object:
    opened = Connection(wide_server)
    yield opened
    opened.socket.close()


def test_keep_alive(connection: Connection) -> None:
    for _ in range(3):
        connection.send(request(BODY))
        assert sorted(connection.ids()) == ["i1", "i2"]


def test_pipelined_requests_are_answered_in_order(connection: Connection) -> None:
    """At once, from a thread, from the ordinary routes, from the cache: what is ready first has to wait its turn."""
    bodies = (BODY, HUGE, CACHED)
    now, later, cached = map(request, bodies)
    connection.send(now + later + GET + now + later + cached + now)
    assert len(connection.ids()) == 2
    assert len(connection.ids()) == 3
    assert connection.reply()[2] == b'{"status":"ok"}'
    assert len(connection.ids()) == 2
    assert len(connection.ids()) == 3
    assert connection.ids() == ["i3"]
    assert len(connection.ids()) == 2


def test_a_failure_does_not_end_the_connection(connection: Connection) -> None:
    connection.send(request(b"{") + request(BODY))
    status, headers, body = connection.reply()
    assert status == 400 and headers["content-type"] == "application/problem+json"
    assert json.loads(body)["status"] == 400
    assert len(connection.ids()) == 2


def test_byte_by_byte(connection: Connection) -> None:
    for byte in request(BODY):
        connection.send(bytes([byte]))
    assert len(connection.ids()) == 2


def test_chunked_body(connection: Connection) -> None:
    head = b"POST /rank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    halves = (BODY[:7], BODY[7:])
    connection.send(head + b"".join(b"%x\r\n%b\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n")
    assert len(connection.ids()) == 2


def test_expect_100_continue(connection: Connection) -> None:
    head, body = request(BODY, "expect: 100-continue").split(b"\r\n\r\n", 1)
    connection.send(head + b"\r\n\r\n")
    assert connection.file.readline() == b"HTTP/1.1 100 Continue\r\n" and connection.file.readline() == b"\r\n"
    connection.send(body)
    assert len(connection.ids()) == 2


@pytest.mark.parametrize("body", [BODY, HUGE, b"{"])
def test_connection_close(connection: Connection, body: bytes) -> None:
    connection.send(request(body, "connection: close"))
    _, headers, _ = connection.reply()
    assert headers["connection"] == "close" and connection.is_closed()


def test_http_1_0_closes(connection: Connection) -> None:
    connection.send(request(BODY, version="1.0"))
    assert connection.reply()[0] == 200 and connection.is_closed()


def test_a_client_that_leaves_harms_nobody(wide_server: ServerProcess) -> None:
    for part in (request(HUGE), request(HUGE)[:5000], request(BODY)[:50]):
        gone = Connection(wide_server)
        gone.send(part)
        gone.file.close()
        gone.socket.close()
    after = Connection(wide_server)
    after.send(request(BODY))
    assert len(after.ids()) == 2
    after.socket.close()


USUAL = json.dumps({"context": CONTEXT, "item_ids": [f"i{i}" for i in range(40)], "top_k": 2}).encode()


def test_a_head_that_is_known_is_answered_alike(connection: Connection) -> None:
    """From the second request on the head is not parsed; bodies of equal length have equal heads."""
    other = USUAL.replace(b'"i7"', b'"i8"')
    connection.send(request(USUAL))
    first = connection.ids()
    for body in (USUAL, other, USUAL):
        connection.send(request(body))
        assert len(connection.ids()) == 2
    connection.send(request(USUAL))
    assert connection.ids() == first


def test_a_known_head_does_not_hide_what_differs(connection: Connection) -> None:
    connection.send(request(USUAL))
    connection.ids()
    whole = request(USUAL)
    connection.send(whole[:-9])  # a body in two pieces
    connection.send(whole[-9:])
    assert len(connection.ids()) == 2
    connection.send(whole + whole + GET + whole)  # pipelined
    assert len(connection.ids()) == len(connection.ids()) == 2
    assert connection.reply()[2] == b'{"status":"ok"}'
    assert len(connection.ids()) == 2
    connection.send(request(b"x" * len(USUAL)))  # the same head, not JSON
    assert connection.reply()[0] == 400
    later = request(CACHED)  # a reply that has to be waited for, twice
    connection.send(later)
    assert connection.ids() == ["i3"]
    connection.send(later)
    assert connection.ids() == ["i3"]
    connection.send(later + whole)
    assert connection.ids() == ["i3"] and len(connection.ids()) == 2
    connection.send(request(USUAL, "connection: close"))
    assert connection.reply()[1]["connection"] == "close" and connection.is_closed()


def test_idle_connections_end(tmp_path: Path) -> None:
    """However its requests were read, a connection ends ``keep_alive_s`` after the last one, not after the first."""
    publish_tiny(tmp_path)
    with ServerProcess(tmp_path, keep_alive_s=2) as server:
        opened = Connection(server)
        for pause in (0.0, 1.2, 1.2):
            time.sleep(pause)
            opened.send(request(USUAL))
            assert len(opened.ids()) == 2
        began = time.monotonic()
        assert opened.is_closed()
        assert 1.5 < time.monotonic() - began < 5.0


def test_query_strings_and_the_access_log_take_the_ordinary_way(tmp_path: Path, wide_server: ServerProcess) -> None:
    asked = Connection(wide_server)
    asked.send(request(BODY, path="/rank?a=1"))
    assert len(asked.ids()) == 2
    asked.socket.close()
    publish_tiny(tmp_path)
    with ServerProcess(tmp_path, access_log=True) as server:
        assert server.client.post("/rank", json=json.loads(BODY)).status_code == 200
        assert server.rank(context=CONTEXT, item_ids=["i1"], explain=True).status_code == 422
        assert any('"POST /rank HTTP/1.1" 200' in line for line in server.log)
