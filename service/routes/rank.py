"""`POST /rank`: decode -> context state -> rank -> reply.

A request that needs nothing to wait for is answered at once, on the event loop. One whose estimated cost is above
`offload_us` leaves it for a thread once its context state is there; the kernels release the lock, so that small
requests go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from service.body import decode
from service.context_lookup import CONTEXT_US_PER_BYTE, Found, cached_state, computed_state, encoding_us
from service.errors import InvalidRequest
from service.metrics import BUCKETS_S
from service.rank_reply import head, render
from service.routes.timing import RouteTimers
from service.schemas import RankRequest, is_absent
from service.served_model import ServedModel
from service.serving import Serving

if TYPE_CHECKING:
    from service.ranking import Ranked, WholeRequest
    from service.scorers.protocol import State

# Estimated microseconds per byte of an undecoded slate (several times what usual JSON takes: escapes and the like take
# the exact path, which must not hold up the event loop either), and per float of a whole catalogue's item side.
US_PER_BYTE = {"item_ids": 0.003, "items": 0.012, "item_columns": 0.006}
US_PER_FLOAT = 0.0005
# Bytes of a short item, for scorers whose cost goes by candidates.
BYTES_PER_ITEM = {"item_ids": 6, "items": 40, "item_columns": 20}

_MODEL = b'"model"'
_GLIMPSE = 256  # bytes


class RankAnswer:
    """Answers `POST /rank`."""

    def __init__(self, serving: Serving, timers: RouteTimers) -> None:
        self._serving = serving
        self._decoder = msgspec.json.Decoder(RankRequest)
        self._timers = timers
        counter = serving.metrics.counter
        self._sources = {s: counter("ctrank_context_source", s) for s in ("computed", "memory", "shared", "redis")}
        self._offload_us = serving.settings.offload_us
        self._small_bytes = self._offload_us / max(*US_PER_BYTE.values(), CONTEXT_US_PER_BYTE)  # need no estimate
        # The compiled call takes ids alone, reads a context of 16 KB at most, and stops where anything else begins.
        self._most_at_once = self._offload_us / US_PER_BYTE["item_ids"]
        self._whole: dict[str, tuple[ServedModel, WholeRequest | None]] = {}  # by name of the model
        self._offloaded = counter("ctrank_offloaded", "/rank")

    def at_once(self, body: bytes, started: float) -> bytes | None:
        """The reply to a usual request, counted; `None` for every other one."""
        model = _glimpsed_model(body)
        served = self._serving.models.find(model, None)
        if served is None or len(body) > self._most_at_once:
            return None
        known = self._whole.get(served.name)
        if known is None or known[0] is not served:
            known = self._whole[served.name] = served, self._whole_request(served)
        whole = known[1]
        if whole is None:
            return None
        reply = whole.answer(body, started, model is not None)
        if reply is not None and whole.n_unknown:
            served.count_unknown(self._serving.metrics, whole.unknown_values())
        return reply

    def _whole_request(self, served: ServedModel) -> WholeRequest | None:
        from service.ranking import Meters

        slots = {**self._timers.slots, "source": self._sources["computed"].slot, "candidates": served.candidates.slot}
        meters = Meters(np.asarray(self._serving.metrics.values), np.array(BUCKETS_S), slots)
        return served.ranking.whole_request(served.name, head(served.name, served.version, "computed"), meters)

    def __call__(self, body: bytes, started: float) -> bytes | Awaitable[bytes]:
        """The reply of one request, or a promise of it; raises `ServiceError` or `RankingError`."""
        request = decode(self._decoder, body)
        if request.explain:
            raise InvalidRequest("explain: expected false; this version does not explain scores yet", "explain")
        slate = _slate_member(request)
        serving = self._serving
        served = serving.models.find(request.model, request.version)
        if (
            served is None
            or request.context_id is not None
            or (scorer := served.ranking.scorer).coalesces
            or (
                (slate is None or len(body) > self._small_bytes or scorer.us_per_item > 0.0)
                and _estimated_us(request, slate, served) + encoding_us(request.context) > self._offload_us
            )
        ):
            return self._later(request, slate, started)
        if slate is None:
            self._check_catalogue(request.top_k, served)
        parsed = perf_counter()
        found = computed_state(served, request.context)
        result = _rank_and_render(request, slate, served, found.state, "computed", started)
        return self._finish(served, found, parsed - started, parsed, *result)

    async def _later(self, request: RankRequest, slate: str | None, started: float) -> bytes:
        serving = self._serving
        served = await serving.models.fetch(request.model, request.version)
        if slate is None:
            self._check_catalogue(request.top_k, served)
        parsed = perf_counter()
        if request.context_id is None:
            found = await serving.run(encoding_us(request.context), computed_state, served, request.context)
        else:
            found = await cached_state(serving, served, request.context_id, request.context)
            self._timers.cache(found.cache_s)
        cost_us = _estimated_us(request, slate, served)
        if cost_us > serving.settings.offload_us:
            self._offloaded.add()
        work = (request, slate, served, found.state, found.source, started)
        if served.ranking.scorer.coalesces:
            result = await serving.meet(_rank_and_render, *work)
        else:
            result = await serving.run(cost_us, _rank_and_render, *work)
        return self._finish(served, found, parsed - started, parsed, *result)

    def _finish(
        self, served: ServedModel, found: Found, parse_s: float, parsed: float, ranked: Ranked, at: float, reply: bytes
    ) -> bytes:
        """Count, and hand the reply on; `at` is when the ranking was done."""
        timers = self._timers
        encode_s = found.encode_s
        timers.stages(parse_s, encode_s, at - parsed - encode_s - found.cache_s, perf_counter() - at)
        self._sources[found.source].add()
        served.candidates.add(ranked.candidates)
        if ranked.unknown_item_ids:
            served.unknown_items.add(len(ranked.unknown_item_ids))
        for unknown in (found.unknown, ranked.unknown_values):
            if unknown:
                served.count_unknown(self._serving.metrics, unknown)
        return reply

    def _check_catalogue(self, top_k: int | None, served: ServedModel) -> None:
        limit = self._serving.settings.max_catalogue_top_k
        if top_k is None or top_k > limit:
            found = "none" if top_k is None else str(top_k)
            raise InvalidRequest(f"top_k: expected 1 to {limit} to rank the whole catalogue, found {found}", "top_k")
        if served.ranking.artefact.items is None:
            detail = f"model {served.name!r} {served.version} has no catalogue; send items or item_columns"
            raise InvalidRequest(f"item_ids: {detail}", "item_ids")


def _glimpsed_model(body: bytes) -> str | None:
    """The model that a body names near its beginning or its end, where clients do; whether it really does, and no other
    one, is for the reader of the body to see."""
    at = body.find(_MODEL, 0, _GLIMPSE)
    if at < 0:
        at = body.rfind(_MODEL, max(len(body) - _GLIMPSE, 0))
        if at < 0:
            return None
    parts = body[at + len(_MODEL) : at + _GLIMPSE].split(b'"', 2)
    return parts[1].decode("latin-1") if len(parts) == 3 else None


def _slate_member(request: RankRequest) -> str | None:
    """The member that holds the slate; `None` for the whole catalogue. At most one may be given."""
    if request.items is None and request.item_columns is None:
        return None if is_absent(request.item_ids) else "item_ids"
    given = [name for name in ("item_ids", "items", "item_columns") if not is_absent(getattr(request, name))]
    if len(given) > 1:
        raise InvalidRequest(f"expected one of item_ids, items and item_columns, found {' and '.join(given)}", given[1])
    return given[0] if given else None


def _estimated_us(request: RankRequest, slate: str | None, served: ServedModel) -> float:
    us_per_item = served.ranking.scorer.us_per_item
    if slate is None:
        return served.catalogue_floats * US_PER_FLOAT + served.ranking.n_items * us_per_item
    return len(memoryview(getattr(request, slate))) * (US_PER_BYTE[slate] + us_per_item / BYTES_PER_ITEM[slate])


def _rank_and_render(
    request: RankRequest, slate: str | None, served: ServedModel, state: State, source: str, started: float
) -> tuple[Ranked, float, bytes]:
    """The ranking, when it was done, and the reply. Runs on the event loop or in a thread."""
    ranking = served.ranking
    if slate == "item_ids":
        ranked = ranking.rank_ids(state, request.item_ids, request.top_k)
    elif slate == "items":
        ranked = ranking.rank_items(state, request.items, request.top_k)
    elif slate == "item_columns":
        ranked = ranking.rank_columns(state, request.item_columns, request.top_k)
    else:
        assert request.top_k is not None  # _check_catalogue
        ranked = ranking.rank_catalogue(state, request.top_k)
    ranked_at = perf_counter()
    return ranked, ranked_at, render(served, source, ranked, started)
