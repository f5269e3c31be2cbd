from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from loadtest.answer import fault
from loadtest.traffic import Request, Slate

SLATE = Slate(b'["a","b","stranger","c","d"]', 4, ("stranger",))
RANK = Request("inline", "/rank", (b"{}",), 3, SLATE)
SCORE = Request("score", "/score", (b"{}",), 2)


def reply() -> dict[str, Any]:
    items = [{"id": i, "score": s, "probability": 0.5} for i, s in (("c", 2.0), ("a", 1.0), ("d", 1.0))]
    return {"items": items, "unknown_item_ids": ["stranger"]}


def test_right_answers_have_no_fault() -> None:
    assert fault(RANK, 200, json.dumps(reply()).encode()) is None
    assert fault(SCORE, 200, b'{"predictions":[{"score":1.5},{"score":-2}]}') is None


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(found: dict[str, Any]) -> None:
        at: Any = found
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        for step in way:
            at = at[step]
        at[last] = value

    return apply


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda r: r["items"].pop(), "wrong number of items"),
        (change("items.1.id", "c"), "an item twice"),
        (change("items.0.score", 0.5), "scores not in descending order"),
        (change("items.0.score", float("nan")), "scores not in descending order"),
        (change("items.0.probability", 1.5), "a probability outside [0, 1]"),
        (change("unknown_item_ids", []), "wrong unknown_item_ids"),
        (change("unknown_item_ids", ["stranger", "a"]), "wrong unknown_item_ids"),
        (change("items.0.id", "e"), "an item that is not of the slate"),
        (change("items.0.id", "stranger"), "an item that is not of the slate"),
        (lambda r: r.pop("items"), "not a reply of this service (KeyError)"),
    ],
)
def test_wrong_answers_are_named(wrong: Callable[[dict[str, Any]], None], expected: str) -> None:
    found = reply()
    wrong(found)
    assert fault(RANK, 200, json.dumps(found).encode()) == expected


def test_statuses_scores_and_noise() -> None:
    assert fault(RANK, 500, b"") == "status 500"
    assert fault(RANK, 200, b"<html>") == "not a reply of this service (JSONDecodeError)"
    assert fault(SCORE, 200, b'{"predictions":[{"score":1}]}') == "wrong number of predictions"
    assert fault(SCORE, 200, b'{"predictions":[{"score":1},{"score":Infinity}]}') == "a score that is not finite"
