"""`GET /healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response

from service.openapi import replies
from service.schemas import HealthReply, ModelState, ReadyReply

router = APIRouter(tags=["health"])
_ALIVE = msgspec.json.encode(HealthReply("ok"))


@router.get("/healthz", responses=replies(HealthReply), response_class=Response)
async def healthz() -> Response:
    """The process lives and its event loop turns."""
    return Response(_ALIVE, media_type="application/json")


@router.get("/readyz", responses=replies(ReadyReply, 503), response_class=Response)
async def readyz(request: Request) -> Response:
    """200 once every active model is loaded and warm in every worker, 503 before."""
    serving = request.app.state.serving
    states = [ModelState(name, version, state) for name, (version, state) in sorted(serving.models.states().items())]
    ready = serving.ready()
    return Response(
        msgspec.json.encode(ReadyReply(ready, states)), 200 if ready else 503, media_type="application/json"
    )


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """All workers' metrics in the Prometheus text format."""
    serving = request.app.state.serving
    serving.publish_stats()
    return Response(serving.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
