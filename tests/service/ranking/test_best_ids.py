"""The short way through one compiled call against the separate steps: the very same bytes."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.ranking import Limits, Meters, RankingModel
from service.ranking_errors import LimitExceeded
from tests.tiny_artefact import CONTEXT

known = st.sampled_from([f"i{i}" for i in range(60)])
ids = st.lists(known | st.sampled_from(["new", 7, 'quo"te', "\u00e9"]), max_size=3) | st.lists(known, max_size=120)


@pytest.fixture
def model(queried: RankingModel) -> RankingModel:
    return queried


def test_a_family_without_a_query_takes_the_separate_steps(llfm: RankingModel) -> None:
    state = llfm.context_state(llfm.encode_context(CONTEXT))
    slate = [f"i{i}" for i in range(60)]
    short = llfm.rank_ids(state, msgspec.json.encode(slate), 3)
    assert short.text is None
    everything = llfm.rank_catalogue(state, 60)
    assert short.ids == everything.ids[:3] and short.scores.tobytes() == everything.scores[:3].tobytes()
    assert llfm.whole_request("tiny", b"", Meters.discarded()) is None


@given(ids, st.integers(1, 9) | st.integers(1, 70))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_short_way_is_the_long_way(model: RankingModel, slate: list[Any], k: int) -> None:
    state = model.context_state(model.encode_context(CONTEXT))
    short = model.rank_ids(state, msgspec.json.encode(slate), k)
    long = model.rank_ids(state, slate, k)  # a decoded list takes the separate steps
    assert long.text is None
    assert short.ids == long.ids
    assert short.scores.tobytes() == long.scores.tobytes()
    assert short.unknown_item_ids == long.unknown_item_ids
    assert short.candidates == long.candidates
    assert short.probabilities is not None and long.probabilities is not None
    assert short.probabilities.tobytes() == long.probabilities.tobytes()
    assert short.to_json_items() == long.to_json_items()


def test_the_short_way_is_taken(model: RankingModel) -> None:
    state = model.context_state(model.encode_context(CONTEXT))
    slate = [f"i{i}" for i in range(60)]
    for k in (3, 4, 60):
        assert model.rank_ids(state, msgspec.json.encode(slate), k).text is not None
    assert model.rank_ids(state, msgspec.json.encode(slate), 61).text is None  # more than there are
    assert model.rank_ids(state, msgspec.json.encode(slate * 2), 65).text is None  # many, and a large share
    assert model.rank_ids(state, msgspec.json.encode([*slate, "new"]), 3).text is None


def test_limits_hold_on_the_short_way(model: RankingModel) -> None:
    limited = RankingModel(model.artefact, model.scorer, model.catalogue, Limits(max_candidates=50))
    state = np.zeros(model.scorer.state_size, dtype=np.float32)
    with pytest.raises(LimitExceeded, match="more than 50 candidates"):
        limited.rank_ids(state, msgspec.json.encode([f"i{i % 60}" for i in range(51)]), 1)
