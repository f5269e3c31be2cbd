"""`GET /models`, `GET /models/{name}`, `POST /models/{name}/activate` and `/rollback`."""

from __future__ import annotations

import hmac
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from service.body import check_text, decode, read_body
from service.errors import MissingKey, UnknownModel, WrongKey
from service.models import ModelSet
from service.openapi import body_of, replies
from service.schemas import (
    ActivateReply,
    ActivateRequest,
    FieldReply,
    ModelReply,
    ModelsReply,
    ModelSummary,
    VersionReply,
)
from service.serving import Serving

router = APIRouter(prefix="/models", tags=["models"])
_ACTIVATE = msgspec.json.Decoder(ActivateRequest)
AdminKey = Annotated[str | None, Header(alias="X-Admin-Key", description="the server's admin key")]


def _json(reply: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(reply), media_type="application/json")


@router.get("", responses=replies(ModelsReply), response_class=Response)
async def list_models(request: Request) -> Response:
    """All models of the registry with their versions."""
    models: ModelSet = request.app.state.serving.models
    names = await run_in_threadpool(models.registry.models)
    return _json(ModelsReply([await run_in_threadpool(_summary, models, name) for name in names]))


@router.get("/{name}", responses=replies(ModelReply, 404), response_class=Response)
async def show_model(name: str, request: Request) -> Response:
    """One model: versions, and family, metrics and fields of the active version."""
    models: ModelSet = request.app.state.serving.models
    await _known(models, name)
    summary = await run_in_threadpool(_summary, models, name)
    reply = ModelReply(name, summary.active, summary.default, summary.versions, summary.scorer, summary.provider)
    served = models.live(name)
    if served is not None:
        artefact = served.ranking.artefact
        manifest = artefact.manifest
        reply.family, reply.loss, reply.dim, reply.rank = manifest.family, manifest.loss, manifest.dim, manifest.rank
        reply.digest = artefact.digest
        reply.items = len(artefact.items) if artefact.items is not None else 0
        reply.metrics = dict(manifest.metrics)
        reply.fields = [FieldReply(f.name, f.side, f.kind, f.size) for f in manifest.fields]
    return _json(reply)


@router.post(
    "/{name}/activate",
    responses=replies(ActivateReply, 401, 403, 404, 409, 422),
    openapi_extra={"requestBody": body_of(ActivateRequest)},
    response_class=Response,
)
async def activate(name: str, request: Request, x_admin_key: AdminKey = None) -> Response:
    """Serve another version: here at once, in other workers within `poll_ms`. Refused (409) if it does not load.

    Needs the `X-Admin-Key` header: 401 without, 403 with another key or if the server was started without one.
    """
    serving: Serving = request.app.state.serving
    _authorise(serving, x_admin_key)
    body = await read_body(request.scope, request.receive, serving.settings.max_body_bytes)
    check_text(body)
    wanted = decode(_ACTIVATE, body)
    await _known(serving.models, name)
    return _json(ActivateReply(name, *await serving.models.activate(name, wanted.version)))


@router.post("/{name}/rollback", responses=replies(ActivateReply, 401, 403, 404, 409), response_class=Response)
async def rollback(name: str, request: Request, x_admin_key: AdminKey = None) -> Response:
    """Serve the version that was active before the active one."""
    serving: Serving = request.app.state.serving
    _authorise(serving, x_admin_key)
    await _known(serving.models, name)
    return _json(ActivateReply(name, *await serving.models.rollback(name)))


def _authorise(serving: Serving, key: str | None) -> None:
    expected = serving.settings.admin_key
    if expected is None:
        raise WrongKey("this server was started without an admin key (CTRANK_ADMIN_KEY)")
    if key is None:
        raise MissingKey("expected the admin key in the X-Admin-Key header")
    if not hmac.compare_digest(key.encode(), expected.get_secret_value().encode()):
        raise WrongKey("the X-Admin-Key header holds another key")


async def _known(models: ModelSet, name: str) -> None:
    names = await run_in_threadpool(models.registry.models)
    if name not in names:
        known = ", ".join(names) or "none"
        raise UnknownModel(f"no model {name[:128]!r} in the registry; known models: {known}", "name")


def _summary(models: ModelSet, name: str) -> ModelSummary:
    active = models.registry.active(name)
    versions = [VersionReply(v, v == active, models.is_loaded(name, v)) for v in models.registry.versions(name)]
    summary = ModelSummary(name, active, versions, models.is_default(name))
    served = models.live(name)
    if served is not None:
        scorer = served.ranking.scorer
        summary.scorer, summary.provider = scorer.name, scorer.provider
    return summary
