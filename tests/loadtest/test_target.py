from __future__ import annotations

import pytest

from loadtest.target import TargetError, find_target
from tests.loadtest.stub_server import StubServer


def test_without_a_registry_items_come_from_the_catalogue_and_values_are_numbers() -> None:
    with StubServer() as server:
        found = find_target(server.url + "/")
    assert (found.model, found.version, found.named) == ("m", "v000001", False)
    assert found.item_ids == tuple(f"i{i}" for i in range(50))
    assert found.fields[0].values == tuple(map(str, range(10)))


def test_no_server_and_no_model_are_named() -> None:
    with pytest.raises(TargetError, match="expected a ready ctrank service"):
        find_target("http://127.0.0.1:9")
    with StubServer() as server, pytest.raises(TargetError, match="models/other"):
        find_target(server.url, "other")
