"""What the traffic must know of a model: its name, its context fields with values, and the ids of its items.

The fields come from `GET /models/{name}`. Values and item ids come from the artefact where the registry is at hand.
Where it is not, item ids are the best items of the whole catalogue under an empty context, and a field's values are the
numbers from 0 to its size: most of them will be unknown to the model, which costs the service the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

MOST_VALUES = 10_000  # of a field
_TOP_K = (10_000, 1_000, 100)  # the server's limit is not known


class TargetError(Exception):
    """The server or the registry does not offer what a load test needs; the message says what, and the remedy."""


@dataclass(frozen=True)
class ContextField:
    """A context field: `kind` is that of the manifest, `values` are raw ones (none for numbers)."""

    name: str
    kind: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A served model. `named` says whether requests must name it (it is not the server's default)."""

    model: str
    version: str
    named: bool
    fields: tuple[ContextField, ...]
    item_ids: tuple[str, ...]


def find_target(host: str, model: str | None = None, registry: Path | None = None) -> Target:
    """Ask `host` for `model` (default: its default one). Raises `TargetError`."""
    host = host.rstrip("/")
    if not model:
        listed = _get(f"{host}/models")["models"]
        default = [m["name"] for m in listed if m["default"]] or [m["name"] for m in listed if m["active"]]
        if not default:
            raise TargetError(f"{host}/models: expected a model with an active version, found none; publish one")
        model = str(default[0])
    found = _get(f"{host}/models/{quote(model, safe='')}")
    if found["active"] is None:
        raise TargetError(f"model {model!r}: expected an active version, found none; activate one")
    if not found.get("items"):
        raise TargetError(f"model {model!r}: expected a catalogue of items to draw slates from, found none")
    context = [f for f in found["fields"] if f["side"] == "context"]
    if registry is None:
        fields = [ContextField(f["name"], f["kind"], _numbers(f)) for f in context]
        ids = _best_items(host, model, int(found["items"]))
    else:
        values, ids = _from_artefact(registry, model, found)
        fields = [ContextField(f["name"], f["kind"], values.get(f["name"], ())) for f in context]
    return Target(model, found["active"], not found["default"], tuple(fields), ids)


def _numbers(found: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, range(min(max(int(found["size"]) - 2, 1), MOST_VALUES))))


def _from_artefact(
    registry: Path, model: str, found: Mapping[str, Any]
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    from models_export.errors import ArtefactError
    from models_export.reader import read_artefact
    from models_export.registry import Registry

    try:
        artefact = read_artefact(Registry(registry).path(model, found["active"]))
    except (ArtefactError, OSError) as error:
        raise TargetError(f"registry {registry}: expected the model that the server serves: {error}") from error
    assert artefact.items is not None  # the server counts some
    tables = artefact.encoder.tables
    keyed = [f.name for f in artefact.encoder.fields if f.kind in ("categorical", "multi")]
    values = {name: tuple(islice(tables[name], MOST_VALUES)) for name in keyed}
    return values, tuple(artefact.items.ids)


def _best_items(host: str, model: str, items: int) -> tuple[str, ...]:
    for top_k in _TOP_K:
        body = json.dumps({"model": model, "context": {}, "top_k": min(top_k, items)}).encode()
        try:
            reply = _open(Request(f"{host}/rank", body, {"content-type": "application/json"}))
        except HTTPError as error:
            if error.code != 422:
                raise TargetError(f"{host}/rank: expected the items of {model!r}, found {error}") from error
        else:
            return tuple(item["id"] for item in reply["items"])
    raise TargetError(f"{host}/rank: expected at least {_TOP_K[-1]} items of the whole catalogue; give --registry")


def _get(url: str) -> dict[str, Any]:
    try:
        return _open(Request(url))
    except (OSError, ValueError) as error:
        raise TargetError(f"{url}: expected a ready ctrank service, found {error}") from error


def _open(request: Request) -> dict[str, Any]:
    with urlopen(request, timeout=30) as reply:
        found: dict[str, Any] = json.loads(reply.read())
    return found
