"""`POST /score`, read -> decode -> encode and score row by row -> reply."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from time import perf_counter

import msgspec
from msgspec import UNSET

from service.body import decode
from service.errors import InvalidRequest
from service.routes.timing import RouteTimers
from service.schemas import Prediction, ScoreReply, ScoreRequest
from service.served_model import ServedModel
from service.serving import Serving

US_PER_BYTE = 0.2  # estimated; rows are encoded one by one


class ScoreAnswer:
    """Answers `POST /score`."""

    def __init__(self, serving: Serving, timers: RouteTimers) -> None:
        self._serving = serving
        self._decoder = msgspec.json.Decoder(ScoreRequest)
        self._timers = timers
        self._offloaded = serving.metrics.counter("ctrank_offloaded", "/score")

    def __call__(self, body: bytes, started: float) -> bytes | Awaitable[bytes]:
        """The reply of one request, or a promise of it; raises `ServiceError` or `RankingError`."""
        request = decode(self._decoder, body)
        most = self._serving.settings.max_instances
        if len(request.instances) > most:
            raise InvalidRequest(f"instances: expected at most {most}, found {len(request.instances)}", "instances")
        served = self._serving.models.find(request.model, request.version)
        if served is None or self._cost_us(request, len(body), served) > self._serving.settings.offload_us:
            return self._later(request, len(body), started)
        parsed = perf_counter()
        return self._finish(served, parsed - started, parsed, *_score_and_render(request, served, started))

    @staticmethod
    def _cost_us(request: ScoreRequest, size: int, served: ServedModel) -> float:
        return size * US_PER_BYTE + len(request.instances) * served.ranking.scorer.us_per_item

    async def _later(self, request: ScoreRequest, size: int, started: float) -> bytes:
        serving = self._serving
        served = await serving.models.fetch(request.model, request.version)
        parsed = perf_counter()
        cost_us = self._cost_us(request, size, served)
        if cost_us > serving.settings.offload_us:
            self._offloaded.add()
        result = await serving.run(cost_us, _score_and_render, request, served, started)
        return self._finish(served, parsed - started, parsed, *result)

    def _finish(
        self,
        served: ServedModel,
        parse_s: float,
        parsed: float,
        reply: bytes,
        scored_at: float,
        unknown: Mapping[str, int],
    ) -> bytes:
        timers = self._timers
        timers.parse(parse_s)
        timers.kernel(scored_at - parsed)
        timers.reply(perf_counter() - scored_at)
        if unknown:
            served.count_unknown(self._serving.metrics, unknown)
        return reply


def _score_and_render(
    request: ScoreRequest, served: ServedModel, started: float
) -> tuple[bytes, float, Mapping[str, int]]:
    """The reply, when the scores were done, and the unknown values by field. Runs on the event loop or in a thread."""
    scored = served.ranking.score(request.instances)
    scored_at = perf_counter()
    scores = scored.scores.tolist()
    if scored.probabilities is None:
        predictions = [Prediction(s, UNSET) for s in scores]
    else:
        predictions = [Prediction(s, p) for s, p in zip(scores, scored.probabilities.tolist(), strict=True)]
    took_ms = round((perf_counter() - started) * 1e3, 3)
    reply = msgspec.json.encode(ScoreReply(served.name, served.version, predictions, took_ms))
    return reply, scored_at, scored.unknown_values
