"""The application: `create_app(settings)`; its life: load -> warm -> ready -> serve -> drain.

The server listens while models load in a thread: `/healthz` answers at once, `/readyz` when every active model is
warm. `POST /rank` and `POST /score` are dispatched here, before the framework, because its per-request objects cost
more than the ranking; all other routes are ordinary FastAPI routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.config
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from service import openapi
from service.body import Receive, Scope, Send
from service.context_cache import build_cache
from service.errors import MEDIA_TYPE, InvalidRequest, MethodNotAllowed, NotFound, ServiceError
from service.metrics import Metrics
from service.routes import contexts, health, models, slates
from service.routes.hot_route import HotRoute
from service.routes.rank import RankAnswer
from service.routes.score import ScoreAnswer
from service.routes.timing import RouteTimers
from service.server import log_config
from service.serving import Serving
from service.settings import Settings

logger = logging.getLogger("ctrank")

_PUBLISH_S = 0.25  # how often a worker's counters of cache and process are copied to its metric file

OnFailure = Callable[[Exception], None]


class RankingApp(FastAPI):
    """FastAPI with a short cut for the hot routes."""

    def __init__(self, settings: Settings, on_failure: OnFailure) -> None:
        super().__init__(
            title="ctrank",
            summary="Ranks slates of items for a context with factorization-machine models.",
            version="0.1.0",
            lifespan=_lifespan,
            exception_handlers={
                ServiceError: _problem,
                HTTPException: _http_problem,
                RequestValidationError: _validation_problem,
                Exception: _unexpected,
            },
        )
        self.settings = settings
        self.on_failure = on_failure
        self.hot: dict[str, Callable[[Scope, Receive, Send], Any]] = {}
        self.known_heads: dict[bytes, tuple[HotRoute, int]] = {}
        for module in (slates, contexts, models, health):
            self.include_router(module.router)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event: hot routes at once, everything else through the framework."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        hot = self.hot.get(scope["path"])
        if hot is not None and scope["method"] == "POST":
            await hot(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def counting_send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await super().__call__(scope, receive, counting_send)
        finally:
            self._count(scope, status, perf_counter() - started)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        serving: Serving | None = getattr(self.state, "serving", None)
        if serving is not None:
            route = getattr(scope.get("route"), "path", "other")
            serving.metrics.counter("ctrank_requests", route, str(status)).add()
            serving.metrics.histogram("ctrank_request_seconds", route).observe(seconds)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the schemas of the structs that read and write the bodies."""
        if not self.openapi_schema:
            document = get_openapi(title=self.title, version=self.version, summary=self.summary, routes=self.routes)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(openapi.components())
            self.openapi_schema = document
        return self.openapi_schema


def create_app(settings: Settings, on_failure: OnFailure | None = None) -> RankingApp:
    """The application. `on_failure` is called once if the first load fails; by default the error is only logged and
    `/readyz` stays at 503."""
    return RankingApp(settings, on_failure or (lambda error: None))


def create_app_from_environment() -> RankingApp:
    """The application of one of several worker processes: settings come from the environment that `ctrank-serve run`
    sets; a failed first load ends the worker, and with it the server."""
    from uvicorn.config import STARTUP_FAILURE

    def stop(error: Exception) -> None:
        logging.shutdown()
        os._exit(STARTUP_FAILURE)

    settings = Settings.read()
    logging.config.dictConfig(log_config(settings.log_level))
    return create_app(settings, stop)


@contextlib.asynccontextmanager
async def _lifespan(app: RankingApp) -> AsyncIterator[None]:
    settings = app.settings
    temporary: list[Path] = []
    folder = settings.metrics_dir or _temporary("ctrank-metrics-", temporary)
    cache = build_cache(
        redis_url=settings.redis_url,
        redis_timeout_ms=settings.redis_timeout_ms,
        ttl_s=settings.context_ttl_s,
        max_age_ms=settings.context_max_age_ms,
        memory_entries=settings.context_memory_entries,
        shared_dir=settings.context_store,
    )
    await cache.open()
    serving = Serving(settings, Metrics(folder), cache)
    app.state.serving = serving
    timers = RouteTimers(serving.metrics, "/rank")
    rank = RankAnswer(serving, timers)
    app.hot["/rank"] = HotRoute(rank, timers, settings.max_body_bytes, rank.at_once)
    timers = RouteTimers(serving.metrics, "/score")
    app.hot["/score"] = HotRoute(ScoreAnswer(serving, timers), timers, settings.max_body_bytes)
    tasks = [asyncio.create_task(_load_and_watch(app, serving)), asyncio.create_task(_publish(serving))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await cache.close()
        serving.close()
        for made in temporary:
            shutil.rmtree(made, ignore_errors=True)


def _temporary(prefix: str, made: list[Path]) -> Path:
    made.append(Path(tempfile.mkdtemp(prefix=prefix)))
    return made[-1]


async def _load_and_watch(app: RankingApp, serving: Serving) -> None:
    try:
        await serving.models.start()
    except Exception as error:
        logger.critical("cannot serve: %s", error)
        app.on_failure(error)
        return
    await serving.models.watch()


async def _publish(serving: Serving) -> None:
    while True:
        await asyncio.sleep(_PUBLISH_S)
        serving.publish_stats()


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return Response(msgspec.json.encode(error.problem()), error.status, media_type=MEDIA_TYPE)


async def _http_problem(request: Request, error: Exception) -> Response:
    """The framework's own refusals: no such path, no such method."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:128]
    if error.status_code == 404:
        found: ServiceError = NotFound(f"no such path: {path!r}; /docs lists them all")
    elif error.status_code == 405:
        found = MethodNotAllowed(f"{request.method} is not allowed on {path!r}; /docs lists what is")
    else:
        found = InvalidRequest(str(error.detail))
    response = await _problem(request, found)
    response.headers.update(error.headers or {})
    return response


async def _validation_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return await _problem(request, InvalidRequest(first["msg"], str(first["loc"][-1])))


async def _unexpected(request: Request, error: Exception) -> Response:
    return await _problem(request, ServiceError("an unexpected error; the server's log has the details"))
