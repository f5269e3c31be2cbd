"""The reply of `/rank` as bytes: a `RankReply`, written around the items that a kernel has written."""

from __future__ import annotations

from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from service.served_model import ServedModel

if TYPE_CHECKING:
    from service.ranking import Ranked

_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=1024)
def head(model: str, version: str, source: str) -> bytes:
    """Everything before the items."""
    names = _encode(model), _encode(version), _encode(source)
    return b'{"model":%b,"version":%b,"context_source":%b,"items":' % names


def render(served: ServedModel, source: str, ranked: Ranked, started: float) -> bytes:
    """JSON of a ranking; `took_ms` is the time since `started` (seconds, `perf_counter`)."""
    items = ranked.to_json_items()
    unknown = _encode(ranked.unknown_item_ids) if ranked.unknown_item_ids else b"[]"
    first = head(served.name, served.version, source)
    took_ms = (perf_counter() - started) * 1e3
    return b'%b%b,"unknown_item_ids":%b,"took_ms":%.3f}' % (first, items, unknown, took_ms)
