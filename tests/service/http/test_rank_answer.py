"""Which bodies the one compiled call answers, and which are left to the separate steps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from models_export.reader import read_artefact
from models_export.registry import Registry
from service.metrics import Metrics
from service.ranking import RankingModel
from service.routes.rank import RankAnswer
from service.routes.timing import RouteTimers
from tests.tiny_artefact import CONTEXT, publish_tiny


def answer(tmp_path: Path, offload_us: float) -> RankAnswer:
    publish_tiny(tmp_path / "registry", "dplr", name="tiny")
    registry = Registry(tmp_path / "registry")
    ranking = RankingModel.load(read_artefact(registry.path("tiny", str(registry.active("tiny")))))
    metrics = Metrics(tmp_path / "metrics")
    served = SimpleNamespace(
        name="tiny", version="v000001", ranking=ranking, candidates=metrics.counter("ctrank_candidates", "tiny"),
        count_unknown=lambda metrics, unknown: None,
    )  # fmt: skip
    models = SimpleNamespace(find=lambda model, version: served)
    serving: Any = SimpleNamespace(metrics=metrics, settings=SimpleNamespace(offload_us=offload_us), models=models)
    return RankAnswer(serving, RouteTimers(metrics, "/rank"))


def body(n_ids: int) -> bytes:
    ids = [f"i{i % 60}" for i in range(n_ids)]
    return msgspec.json.encode({"context": CONTEXT, "item_ids": ids, "top_k": 10})


@pytest.mark.parametrize("n_ids", [60, 1_000, 16_000])
def test_ids_are_ranked_at_once_up_to_the_estimated_millisecond(tmp_path: Path, n_ids: int) -> None:
    reply = answer(tmp_path, 1000.0).at_once(body(n_ids), 0.0)
    assert reply is not None and len(msgspec.json.decode(reply)["items"]) == 10


def test_longer_bodies_are_left_to_the_separate_steps(tmp_path: Path) -> None:
    text = body(1000)
    estimated_us = 0.003 * len(text)
    assert answer(tmp_path / "a", estimated_us * 1.01).at_once(text, 0.0) is not None
    assert answer(tmp_path / "b", estimated_us * 0.99).at_once(text, 0.0) is None
