"""The bodies of requests and replies: one definition that both decodes and documents them.

`RankRequest` keeps the members that hold the slate undecoded (`msgspec.Raw`, `None` where absent): the ranking layer
reads their bytes in one pass. Their JSON schema is given beside them, so `/docs` shows what they really are.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

_VALUE: dict[str, Any] = {
    "description": "one value, a list of values, or an object {value: weight}; null or absent: missing",
    "anyOf": [
        {"type": "string"},
        {"type": "number"},
        {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
        {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1e6}},
        {"type": "null"},
    ],
}
_FIELDS: dict[str, Any] = {"type": "object", "additionalProperties": _VALUE}
_ITEM: dict[str, Any] = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "string"}, "fields": _FIELDS},
    "additionalProperties": False,
}
_COLUMNS: dict[str, Any] = {
    "type": "object",
    "required": ["ids"],
    "properties": {
        "ids": {"type": "array", "items": {"type": "string"}},
        "fields": {"type": "object", "additionalProperties": {"type": "array", "items": _VALUE}},
    },
    "additionalProperties": False,
}
_IDS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}

ContextId = Annotated[str, Meta(min_length=1, max_length=256)]
TopK = Annotated[int, Meta(ge=1, description="how many items to return; default: all candidates")]


class RankRequest(Struct, forbid_unknown_fields=True):
    """One context and a slate of candidates: `item_ids`, `items`, `item_columns`, or none (the whole catalogue)."""

    context: Annotated[Raw, Meta(description="context field -> value", extra_json_schema=_FIELDS)] = None  # type: ignore[assignment]
    item_ids: Annotated[Raw, Meta(description="catalogue items", extra_json_schema=_IDS)] = None  # type: ignore[assignment]
    items: Annotated[
        Raw,
        Meta(
            description="inline items; fields not given come from the catalogue where it knows the id",
            extra_json_schema={"type": "array", "items": _ITEM},
        ),
    ] = None  # type: ignore[assignment]
    item_columns: Annotated[Raw, Meta(description="inline items by column", extra_json_schema=_COLUMNS)] = None  # type: ignore[assignment]
    model: str | None = None
    version: str | None = None
    context_id: ContextId | None = None
    top_k: TopK | None = None
    explain: bool = False


class RankedItem(Struct):
    """An item with its logit (or predicted value) and, for models of a probability, the calibrated probability."""

    id: str
    score: float
    probability: float | UnsetType = UNSET


class RankReply(Struct):
    """Items by score descending, ties in request order. `took_ms` is the time inside the server."""

    model: str
    version: str
    context_source: str
    items: list[RankedItem]
    unknown_item_ids: list[str]
    took_ms: float


class Instance(Struct, forbid_unknown_fields=True):
    """One row: context fields and item fields."""

    context: Annotated[dict[str, Any], Meta(extra_json_schema=_FIELDS)] = {}
    item: Annotated[dict[str, Any], Meta(extra_json_schema=_FIELDS)] = {}


class ScoreRequest(Struct, forbid_unknown_fields=True):
    """Rows to score, any mixture of contexts."""

    instances: list[Instance]
    model: str | None = None
    version: str | None = None


class Prediction(Struct):
    """The logit (or predicted value) of one row and, for models of a probability, the calibrated probability."""

    score: float
    probability: float | UnsetType = UNSET


class ScoreReply(Struct):
    """One prediction per instance, in their order."""

    model: str
    version: str
    predictions: list[Prediction]
    took_ms: float


class ContextRequest(Struct, forbid_unknown_fields=True):
    """A context to keep under an id."""

    context: Annotated[Raw, Meta(description="context field -> value", extra_json_schema=_FIELDS)]
    model: str | None = None
    version: str | None = None


class ContextReply(Struct):
    """A cached context: its model version, its hash, and where it was found."""

    context_id: str
    model: str
    version: str
    context_hash: str
    source: str


class VersionReply(Struct):
    """One published version. `fields` and `metrics` are those of its manifest."""

    version: str
    active: bool
    loaded: bool


class ModelSummary(Struct):
    """A model of the registry, and what scores its active version: `scorer` (`numba`, `onnx`) on `provider` (`cpu`,
    `cuda`)."""

    name: str
    active: str | None
    versions: list[VersionReply]
    default: bool
    scorer: str | UnsetType = UNSET
    provider: str | UnsetType = UNSET


class ModelsReply(Struct):
    """All models of the registry."""

    models: list[ModelSummary]


class FieldReply(Struct):
    """One field of a model."""

    name: str
    side: str
    kind: str
    size: int


class ModelReply(Struct):
    """A model: its versions, and family, metrics and fields of its active version."""

    name: str
    active: str | None
    default: bool
    versions: list[VersionReply]
    scorer: str | UnsetType = UNSET
    provider: str | UnsetType = UNSET
    family: str | UnsetType = UNSET
    loss: str | UnsetType = UNSET
    dim: int | UnsetType = UNSET
    rank: int | UnsetType | None = UNSET
    digest: str | UnsetType = UNSET
    items: int | UnsetType = UNSET
    metrics: dict[str, float] | UnsetType = UNSET
    fields: list[FieldReply] | UnsetType = UNSET


class ActivateRequest(Struct, forbid_unknown_fields=True):
    """The version to activate."""

    version: str


class ActivateReply(Struct):
    """The version that is active now, and the one before."""

    model: str
    active: str
    previous: str | None


class ModelState(Struct):
    """The state of one served model."""

    model: str
    version: str | None
    state: str


class ReadyReply(Struct):
    """Whether every model is loaded and warm."""

    ready: bool
    models: list[ModelState]


class HealthReply(Struct):
    """The process lives."""

    status: str


def is_absent(raw: Raw | None) -> bool:
    """Whether an undecoded member was left out or null."""
    return raw is None or (len(memoryview(raw)) == 4 and bytes(raw) == b"null")


REPLIES: tuple[type[msgspec.Struct], ...] = (
    RankReply,
    ScoreReply,
    ContextReply,
    ModelsReply,
    ModelReply,
    ActivateReply,
    ReadyReply,
    HealthReply,
)
