"""The open-loop client does not let a slow server off: who waits behind a slow reply waits since it was due."""

from __future__ import annotations

import pytest

from loadtest.open_loop import offer
from loadtest.traffic import Request
from tests.loadtest.stub_server import StubServer

pytestmark = pytest.mark.timed

REQUEST = Request("inline", "/rank", (b'{"context":{"user":"a"}}',), 1)


def test_a_stall_delays_every_request_that_was_due_meanwhile() -> None:
    with StubServer(delays_s={10: 0.3}) as server:
        replies = offer(server.port, [REQUEST] * 60, [0.01 * i for i in range(60)], connections=1)
    assert set(replies.statuses) == {200} and set(replies.bodies) == {b"{}"}
    behind = replies.latencies_s[10:20]
    for i, found in enumerate(behind.tolist()):
        assert found > 0.3 - 0.01 * i - 0.005
    assert sorted(replies.latencies_s)[20] < 0.1
    assert max(replies.late_s) < 0.3  # the client itself was not late


def test_with_more_connections_the_others_go_on() -> None:
    with StubServer(delays_s={10: 0.3}) as server:
        replies = offer(server.port, [REQUEST] * 60, [0.01 * i for i in range(60)], connections=8)
    assert sum(replies.latencies_s > 0.25) < 10 < sum(replies.latencies_s < 0.1)


def test_a_request_without_a_reply_counts_with_the_time_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.open_loop.GRACE_S", 0.2)
    with StubServer(delays_s={2: 1.0}) as server:
        replies = offer(server.port, [REQUEST] * 4, [0.0, 0.01, 0.02, 0.03], connections=1)
    assert replies.statuses == [200, 200, 0, 0]
    assert all(replies.latencies_s[2:] > 0.19)
