"""Whether a reply is a right answer to its request, as far as a client can tell.

Status 200; as many items as asked for (or as the slate has known ones), each of the slate and none twice, scores not
ascending, probabilities within [0, 1]; the unknown ids of the slate listed in its order, and no others. Whether the
scores are the model's own is compared with the ranking layer before a measurement (`loadtest.reference`).
"""

from __future__ import annotations

import json
from itertools import pairwise
from math import isfinite
from typing import Any

from loadtest.traffic import Request


def fault(request: Request, status: int, body: bytes) -> str | None:
    """What is wrong, in a few words that are the same for the same fault; `None` if nothing is."""
    if status != 200:
        return f"status {status}"
    try:
        reply: Any = json.loads(body)
        if request.kind == "score":
            return _score_fault(request, reply["predictions"])
        return _rank_fault(request, reply["items"], reply["unknown_item_ids"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"not a reply of this service ({type(error).__name__})"


def _rank_fault(request: Request, items: list[Any], unknown: list[str]) -> str | None:
    scores = [item["score"] for item in items]
    ids = [item["id"] for item in items]
    if len(items) != request.items:
        return "wrong number of items"
    if len(set(ids)) != len(ids):
        return "an item twice"
    if not all(map(isfinite, scores)) or any(a < b for a, b in pairwise(scores)):
        return "scores not in descending order"
    if any(not 0 <= item.get("probability", 0) <= 1 for item in items):
        return "a probability outside [0, 1]"
    slate = request.slate
    if tuple(unknown) != (slate.unknown if slate is not None else ()):
        return "wrong unknown_item_ids"
    if slate is not None and any(i in slate.unknown or _quoted(i) not in slate.text for i in ids):
        return "an item that is not of the slate"
    return None


def _score_fault(request: Request, predictions: list[Any]) -> str | None:
    if len(predictions) != request.items:
        return "wrong number of predictions"
    if not all(isfinite(p["score"]) for p in predictions):
        return "a score that is not finite"
    return None


def _quoted(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
