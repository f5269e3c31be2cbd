"""Whether the service answers what the ranking layer, called directly in this process, answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isclose
from pathlib import Path
from typing import Any

from loadtest.open_loop import offer
from loadtest.target import Target
from loadtest.traffic import Request


def compare(port: int, target: Target, registry: Path, requests: Sequence[Request]) -> str | None:
    """Send each request, 5 ms apart, over one connection, and compare ids, order and scores (1e-5); the first
    difference, or `None`."""
    from models_export.reader import read_artefact
    from models_export.registry import Registry
    from service.ranking import RankingModel

    model = RankingModel.load(read_artefact(Registry(registry).path(target.model, target.version)))
    replies = offer(port, requests, [0.005 * i for i in range(len(requests))], connections=1)
    for request, status, body in zip(requests, replies.statuses, replies.bodies, strict=True):
        if status != 200:
            return f"{request.path} {request.kind}: status {status}: {body[:200]!r}"
        expected, found = _expected(model, request), _found(json.loads(body))
        same = [e[0] for e in expected] == [f[0] for f in found]
        if not same or not all(_close(e[1], f[1]) for e, f in zip(expected, found, strict=True)):
            return f"{request.path} {request.kind}: {found[:3]} where it should be {expected[:3]}"
    return None


def _expected(model: Any, request: Request) -> list[tuple[str, float]]:
    body = json.loads(request.body)
    if "instances" in body:
        scores = model.score(body["instances"]).scores.tolist()
        return [("", score) for score in scores]
    context = json.loads(request.context) if request.context else body["context"]
    state = model.context_state(model.encode_context(context))
    if "item_ids" in body:
        ranked = model.rank_ids(state, body["item_ids"], body["top_k"])
    else:
        ranked = model.rank_catalogue(state, body["top_k"])
    return list(zip(ranked.ids, ranked.scores.tolist(), strict=True))


def _found(reply: dict[str, Any]) -> list[tuple[str, float]]:
    return [(item.get("id", ""), item["score"]) for item in reply.get("items", reply.get("predictions", []))]


def _close(a: float, b: float) -> bool:
    return isclose(a, b, rel_tol=1e-5, abs_tol=1e-6)
