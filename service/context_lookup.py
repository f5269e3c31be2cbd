"""A request's context state: encoded and computed, or from the context cache."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Raw

from service.context_cache import ContextKey
from service.errors import InvalidRequest, UnknownContext
from service.schemas import is_absent
from service.served_model import ServedModel
from service.serving import Serving

if TYPE_CHECKING:
    from service.ranking import Context
    from service.scorers.protocol import State

# From so many values on, computing a state costs more than asking the shared tier for it (`ctrank-serve bench cache`).
ASK_SHARED_VALUES = 4096


# Estimated microseconds of encoding per byte of an undecoded context.
CONTEXT_US_PER_BYTE = 0.01


class Found(NamedTuple):
    """A context state, where it came from, the seconds spent on encoding and on the cache, the context's hash, and how
    many values of which field the model has never seen."""

    state: State
    source: str
    encode_s: float
    cache_s: float
    hash: int
    unknown: Mapping[str, int]


def computed_state(served: ServedModel, raw: Raw) -> Found:
    """The state of a request without `context_id`: computed, never cached."""
    if is_absent(raw):
        raise InvalidRequest("context: expected an object of context fields, or a context_id that is cached", "context")
    began = perf_counter()
    context = served.ranking.encode_context(raw)
    encode_s = perf_counter() - began
    return Found(served.ranking.context_state(context), "computed", encode_s, 0.0, context.hash, context.unknown)


def encoding_us(raw: Raw) -> float:
    """Estimated cost of encoding a context, in microseconds."""
    return 0.0 if raw is None else len(memoryview(raw)) * CONTEXT_US_PER_BYTE


async def cached_state(serving: Serving, served: ServedModel, context_id: str, raw: Raw) -> Found:
    """The state under `context_id`: from the cache, or computed from the request's context and kept.

    Raises `UnknownContext` if the request has no context and the cache no answer.
    """
    key = ContextKey(served.name, served.digest, context_id)
    began = perf_counter()
    if is_absent(raw):
        hit = await serving.cache.get(key)
        if hit is None:
            raise UnknownContext(
                f"nothing is cached under context_id {context_id[:64]!r} for model {served.name!r} {served.version}; "
                "send the context with it",
                "context_id",
            )
        return Found(hit.state, hit.source, 0.0, perf_counter() - began, hit.hash, {})
    context = await serving.run(encoding_us(raw), served.ranking.encode_context, raw)
    encoded = perf_counter()
    hit = await serving.cache.get(key, context.hash, _n_values(context) >= ASK_SHARED_VALUES)
    asked = perf_counter()
    if hit is not None:
        return Found(hit.state, hit.source, encoded - began, asked - encoded, hit.hash, context.unknown)
    state = served.ranking.context_state(context)
    computed = perf_counter()
    await serving.cache.put(key, context.hash, state)
    cache_s = (asked - encoded) + (perf_counter() - computed)
    return Found(state, "computed", encoded - began, cache_s, context.hash, context.unknown)


def _n_values(context: Context) -> int:
    return context.encoded.rows.size + len(context.encoded.multi_rows)
