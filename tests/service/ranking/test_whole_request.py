"""A whole request in one compiled call against the separate steps: the very same bytes, or no answer at all."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.body import check_text
from service.kernels.plan import Plan
from service.kernels.rank_body import SLOT_NAMES
from service.metrics import BUCKETS_S, HISTOGRAM_SLOTS
from service.ranking import Limits, Meters, RankingModel, WholeRequest
from service.ranking.whole_request import clock_agrees
from service.schemas import RankRequest
from tests.tiny_artefact import CONTEXT

HEAD = b'{"model":"tiny","items":'
TAIL = b',"unknown_item_ids":[],"took_ms":'
SLATE = [f"i{i}" for i in range(60)]
SLOTS = {name: i * HISTOGRAM_SLOTS for i, name in enumerate(SLOT_NAMES)}


@pytest.fixture
def model(queried: RankingModel) -> RankingModel:
    return queried


def whole_of(model: RankingModel, values: np.ndarray | None = None) -> WholeRequest:
    meters = Meters.discarded()
    if values is not None:
        meters = Meters(values, np.array(BUCKETS_S), SLOTS)
    whole = model.whole_request("tiny", HEAD, meters)
    assert whole is not None
    return whole


def separately(model: RankingModel, body: bytes) -> tuple[bytes, dict[str, int]]:
    """Items and unknown context values; raises what the service would make an error of."""
    check_text(body)
    request = msgspec.json.decode(body, type=RankRequest)
    assert request.model in (None, "tiny")
    context = model.encode_context(request.context)
    ranked = model.rank_ids(model.context_state(context), request.item_ids, request.top_k)
    assert ranked.unknown_item_ids == []
    return ranked.to_json_items(), dict(context.unknown)


def agree(model: RankingModel, whole: WholeRequest, body: bytes) -> bool:
    """Whether ``whole`` has answered; if so, as the separate steps do."""
    reply = whole.answer(body, time.perf_counter())
    if reply is None:
        return False
    items, unknown = separately(model, body)
    assert reply.startswith(HEAD + items + TAIL)
    assert 0 <= json.loads(reply)["took_ms"] < 1e5
    assert (whole.unknown_values() if whole.n_unknown else {}) == unknown
    return True


users = st.sampled_from(["u1", "u39", "nobody", "", 'q"', "\u00e9", 7, None])
ages = st.sampled_from([31, 2, 0.5, "31", 1e9, None, -1])
recent = st.lists(st.sampled_from(["i1", "i2", "i59", "none"]), max_size=4) | st.dictionaries(
    st.sampled_from(["i1", "i2", "x"]), st.sampled_from([0.5, 1, 2.25]), max_size=3
)
tenures = st.sampled_from([3.5, -1e3, 0.1, 7, "2", "", None, 1e9])  # the last one is beyond a dense field
contexts = st.fixed_dictionaries(
    {}, optional={"user_id": users, "hour": st.integers(0, 30), "age": ages, "recent": recent, "tenure": tenures}
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")])


@given(
    contexts,
    st.lists(st.sampled_from(SLATE), min_size=16, max_size=80),
    st.integers(1, 4) | st.integers(1, 90),
    separators,
    st.permutations(["context", "item_ids", "top_k", "model"]),
    st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_one_call_is_the_separate_steps(
    model: RankingModel,
    context: dict[str, Any],
    slate: list[str],
    k: int,
    separator: tuple[str, str],
    order: list[str],
    named: bool,
) -> None:
    members = {"context": context, "item_ids": slate, "top_k": k, "model": "tiny"}
    body = {name: members[name] for name in order if named or name != "model"}
    agree(model, whole_of(model), json.dumps(body, separators=separator, ensure_ascii=False).encode())


USUAL = json.dumps({"context": CONTEXT, "item_ids": SLATE, "top_k": 3}, separators=(",", ":")).encode()


@given(st.lists(st.tuples(st.integers(0, len(USUAL) - 1), st.integers(0, 255), st.sampled_from("rdi")), max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
def test_a_damaged_body_is_answered_rightly_or_left_aside(
    dplr: RankingModel, damages: list[tuple[int, int, str]]
) -> None:
    """What the one call answers without a JSON parser, a JSON parser accepts, and it means the same."""
    body = bytearray(USUAL)
    for at, byte, kind in damages:
        body[at : at + (kind != "i")] = b"" if kind == "d" else bytes([byte])
    damaged = bytes(body)
    try:
        check_text(damaged)
    except Exception:
        return  # refused before
    agree(dplr, whole_of(dplr), damaged)


@pytest.mark.parametrize(
    "body",
    [
        USUAL.replace(b'"u7"', b'"u\t7"'),
        USUAL.replace(b"17", b"nulx"),
        USUAL.replace(b'"i1"', b'"new"', 2),
        USUAL.replace(b'"i59"', b'"i\\u0035"'),
        USUAL.replace(b'"top_k":3', b'"top_k":03'),
        USUAL.replace(b'"top_k":3', b'"top_k":-3'),
        USUAL.replace(b'"top_k":3', b'"top_k":61'),  # more than there are
        json.dumps({"context": CONTEXT, "item_ids": SLATE * 2, "top_k": 65}).encode(),  # many, and a large share
        USUAL.replace(b'"top_k":3', b'"top_k":3,"top_k":3'),
        USUAL.replace(b'"top_k":3', b'"top_k":3,"explain":true'),
        USUAL.replace(b'"top_k":3', b'"top_k":3,"model":"another"'),
        USUAL.replace(b'"top_k":3', b'"context_id":"x"'),
        USUAL.replace(b'"i1","i2"', b'"i1";"i2"'),
        USUAL.replace(b'"i1","i2"', b'"i1",,"i2"'),
        USUAL + b"x",
        USUAL[:-1],
        USUAL[:40],
        b"",
        b"[]",
        b"{",
    ],
)
def test_left_aside(dplr: RankingModel, body: bytes) -> None:
    values = np.zeros(HISTOGRAM_SLOTS * len(SLOT_NAMES))
    assert whole_of(dplr, values).answer(body, 0.0) is None
    assert not values.any()  # the separate steps will count it


def test_the_usual_is_answered(model: RankingModel) -> None:
    whole = whole_of(model)
    for body in (
        USUAL,
        USUAL.replace(b"{", b" { ", 1),
        USUAL.replace(b'"top_k":3', b'"top_k" : 3 , "model" : "tiny" '),
    ):
        assert agree(model, whole, body)


def test_a_model_that_must_be_named(dplr: RankingModel) -> None:
    whole = whole_of(dplr)
    assert whole.answer(USUAL, 0.0, named=True) is None
    named = USUAL.replace(b'"top_k":3', b'"top_k":3,"model":"tiny"')
    assert whole.answer(named, 0.0, named=True) is not None


def test_integer_ids(dplr: RankingModel) -> None:
    """Integers stand for their decimal text, which no item of this catalogue has."""
    whole = whole_of(dplr)
    assert whole.answer(USUAL.replace(b'"i1"', b"1"), 0.0) is None


@pytest.mark.timed
def test_what_is_counted(dplr: RankingModel) -> None:
    values = np.zeros(HISTOGRAM_SLOTS * len(SLOT_NAMES))
    whole = whole_of(dplr, values)
    started = time.perf_counter()
    for _ in range(5):
        assert whole.answer(USUAL, time.perf_counter()) is not None
    elapsed = time.perf_counter() - started
    for stage in ("parse", "encode", "kernel", "reply", "total"):
        histogram = values[SLOTS[stage] : SLOTS[stage] + HISTOGRAM_SLOTS]
        assert histogram[:-1].sum() == 5 and 0 < histogram[-1] < elapsed
    parts = sum(values[SLOTS[stage] + HISTOGRAM_SLOTS - 1] for stage in ("parse", "encode", "kernel", "reply"))
    assert parts == pytest.approx(values[SLOTS["total"] + HISTOGRAM_SLOTS - 1], rel=0.05)
    assert values[SLOTS["success"]] == values[SLOTS["source"]] == 5
    assert values[SLOTS["candidates"]] == 300


def test_limits_hold(model: RankingModel) -> None:
    limited = RankingModel(model.artefact, model.scorer, model.catalogue, Limits(max_candidates=59))
    assert whole_of(limited).answer(USUAL, 0.0) is None
    limited = RankingModel(model.artefact, model.scorer, model.catalogue, Limits(max_values_per_field=2))
    assert whole_of(limited).answer(USUAL, 0.0) is None


def test_compiled_code_reads_the_clock_of_perf_counter() -> None:
    assert clock_agrees()


def test_a_plan_refuses_arrays_it_was_not_made_for() -> None:
    with pytest.raises(ValueError, match=r"expected the arrays \['a'\], found \['b'\]"):
        Plan(["a"], {"b": np.zeros(2)})
    with pytest.raises(ValueError, match="array 'a': expected rows without gaps"):
        Plan(["a"], {"a": np.zeros((4, 4))[:, :2]})
