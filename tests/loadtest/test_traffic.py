"""The traffic has the distributions that it states, and nothing in it contradicts itself."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from itertools import islice
from typing import Any

import pytest

from loadtest.traffic import REALISTIC, THOUSAND, Request, Traffic
from loadtest.zipf import Zipf
from tests.loadtest.small_target import small_target

N = 6_000


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic(small_target(20_000), REALISTIC, seed=5)


@pytest.fixture(scope="module")
def requests(traffic: Traffic) -> list[Request]:
    return list(islice(traffic.interleaved(50), N))


def bodies(requests: list[Request]) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in requests]


def test_the_seed_says_everything(traffic: Traffic, requests: list[Request]) -> None:
    again = Traffic(small_target(20_000), REALISTIC, seed=5)
    assert [r.body for r in islice(again.interleaved(50), 500)] == [r.body for r in requests[:500]]
    other = Traffic(small_target(20_000), REALISTIC, seed=6)
    assert [r.body for r in islice(other.interleaved(50), 50)] != [r.body for r in requests[:50]]


def test_kinds_of_requests_have_their_shares(requests: list[Request]) -> None:
    shares = {name: count / N for name, count in Counter(r.path for r in requests).items()}
    assert shares["/score"] == pytest.approx(REALISTIC.score_share, abs=0.008)
    whole = sum(r.path == "/rank" and r.slate is None for r in requests) / N
    assert whole == pytest.approx(REALISTIC.catalogue_share, abs=0.008)
    kinds = Counter(r.kind for r in requests)
    with_id = kinds["id"] + kinds["both"] + kinds["cold"] + kinds["warm"]
    assert kinds["id"] / (kinds["id"] + kinds["both"]) == pytest.approx(REALISTIC.id_alone_share, abs=0.02)
    assert kinds["inline"] / (kinds["inline"] + with_id) == pytest.approx(REALISTIC.without_id_share, abs=0.05)
    assert kinds["cold"] / (kinds["cold"] + kinds["warm"]) == pytest.approx(REALISTIC.cold_share, abs=0.03)


def test_slate_sizes_have_their_shares(traffic: Traffic, requests: list[Request]) -> None:
    pool = Counter(slate.known for slate in traffic.slates)
    for size, share in REALISTIC.slate_sizes:
        assert pool[size] / len(traffic.slates) == pytest.approx(share, abs=4 * (share / REALISTIC.slates) ** 0.5)
    asked = Counter(r.slate.known for r in requests if r.slate is not None)
    for size, count in pool.items():
        assert asked[size] / asked.total() == pytest.approx(count / len(traffic.slates), abs=0.02)


def test_unknown_items_have_their_share_and_are_listed_in_order(traffic: Traffic) -> None:
    known = set(traffic.target.item_ids)
    for slate in traffic.slates:
        ids = json.loads(slate.text)
        assert tuple(i for i in ids if i not in known) == slate.unknown
        assert len(ids) == len(set(ids)) == slate.known + len(slate.unknown)
    share = sum(bool(slate.unknown) for slate in traffic.slates) / len(traffic.slates)
    assert share == pytest.approx(REALISTIC.unknown_item_share, abs=0.04)


def test_sessions_have_pages_by_zipf(traffic: Traffic) -> None:
    sessions: Counter[str] = Counter()
    for request in islice(traffic.stream("pages"), N):
        body = json.loads(request.body)
        if "new-" in body.get("context_id", ""):
            sessions[body["context_id"]] += 1
    law, lengths = Zipf(REALISTIC.most_pages, REALISTIC.pages_exponent), Counter(sessions.values())
    assert max(lengths) <= REALISTIC.most_pages
    # pages that score rows do not show their session: lengths are a little shorter than drawn
    assert lengths[1] / lengths.total() == pytest.approx(law.probability(0), abs=0.05)
    assert lengths[2] / lengths.total() == pytest.approx(law.probability(1), abs=0.03)


def test_popular_contexts_come_back_and_new_ones_do_not(requests: list[Request]) -> None:
    def names_of(kind: str) -> Counter[str]:
        found = (re.search(rb'"context_id":"([^"]+)"', r.parts[0]) for r in requests if r.kind == kind)
        return Counter(match[1].decode() for match in found if match)

    names = names_of("warm")
    law = Zipf(REALISTIC.contexts, REALISTIC.context_exponent)
    most = names["load-5-0"]
    assert most == max(names.values())
    assert most / names.total() == pytest.approx(law.probability(0), rel=0.25)
    assert max(names_of("cold").values()) == 1


def test_an_id_is_sent_alone_only_after_its_context_and_always_stands_for_the_same_one(traffic: Traffic) -> None:
    known: dict[str, Any] = {}
    kinds: dict[str, list[str]] = defaultdict(list)
    for request in islice(traffic.stream(7), 3000):
        body = json.loads(request.body)
        name = body.get("context_id")
        if name is None:
            continue
        kinds[name].append(request.kind)
        if "context" in body:
            assert known.setdefault(name, body["context"]) == body["context"]
            assert not request.context
        else:
            assert request.kind == "id" and json.loads(request.context) == known[name]
            assert json.loads(request.with_context().body) == {**body, "context": known[name]}
    assert sum("id" in some for some in kinds.values()) > 100


def test_values_are_known_but_for_their_share(traffic: Traffic) -> None:
    values = [traffic.context(f"some-{i}")["user"] for i in range(5000)]
    unknown = sum(v.startswith("no-such-value") for v in values) / len(values)
    assert unknown == pytest.approx(REALISTIC.unknown_value_share, abs=0.006)
    counts = Counter(values)
    assert counts["u0"] / 5000 == pytest.approx(Zipf(500, REALISTIC.value_exponent).probability(0), abs=0.01)


def test_a_thousand_candidates_each_and_nothing_else() -> None:
    found = list(islice(Traffic(small_target(5000, named=True), THOUSAND).interleaved(5), 200))
    for request, body in zip(found, bodies(found), strict=True):
        assert list(body) == ["model", "context", "item_ids", "top_k"] and body["model"] == "clicks"
        assert len(set(body["item_ids"])) == 1000 and request.items == 10
    assert len({r.body for r in found}) == 200


def test_slates_of_a_small_catalogue_are_all_of_it() -> None:
    traffic = Traffic(small_target(30))
    assert {slate.known for slate in traffic.slates} == {30}
    assert {r.items for r in islice(traffic.stream(0), 200) if r.slate is not None} == {10}
