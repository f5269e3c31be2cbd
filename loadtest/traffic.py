"""Seeded traffic: users with sessions, sessions with pages, pages with slates.

A *session* is one visit under one context. A share of sessions is cold (a context that nobody has sent before); the
others draw one of a population of contexts by a Zipf law. A session has 1 to `most_pages` pages, P(n) proportional to
n^-pages_exponent, and every page is a slate of its own (the next batch of candidates). The first page brings the
context under an id, a later one the id alone or both; a share of sessions sends its context each time and no id. Slates
are drawn from a pool whose sizes follow `slate_sizes` and whose items follow a Zipf law; some hold ids that the
catalogue does not know. A share of pages is a `/score` request, another one ranks the whole catalogue.

Everything follows from the seed: user `n` sends the same requests in every run. A population's context `i` is always
the same, so its id and its values never contradict one another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from loadtest.target import ContextField, Target
from loadtest.zipf import Zipf


@dataclass(frozen=True)
class TrafficSpec:
    """The stated distributions. Shares are probabilities."""

    slate_sizes: tuple[tuple[int, float], ...] = ((100, 0.35), (300, 0.30), (1000, 0.25), (3000, 0.08), (10_000, 0.02))
    slates: int = 500
    item_exponent: float = 0.7
    unknown_item_share: float = 0.05  # of slates
    contexts: int = 20_000
    context_exponent: float = 1.0
    cold_share: float = 0.3  # of sessions
    without_id_share: float = 0.25  # of sessions
    most_pages: int = 20
    pages_exponent: float = 1.5
    id_alone_share: float = 0.6  # of later pages
    value_exponent: float = 0.8
    unknown_value_share: float = 0.01  # of values
    score_share: float = 0.03  # of pages
    score_rows: int = 10
    catalogue_share: float = 0.02  # of pages
    catalogue_top_k: int = 100
    top_k: int = 10


REALISTIC = TrafficSpec()
#: Each request brings a context (one of many, uniformly) and a slate of 1,000 items drawn uniformly: none is popular.
THOUSAND = TrafficSpec(
    slate_sizes=((1000, 1.0),), item_exponent=0.0, unknown_item_share=0.0, contexts=5000, context_exponent=0.0,
    cold_share=0.0, without_id_share=1.0, most_pages=1, unknown_value_share=0.0, score_share=0.0, catalogue_share=0.0,
)  # fmt: skip


class Slate(NamedTuple):
    """A slate as JSON, the number of its items that the catalogue knows, and the ids that it does not know."""

    text: bytes
    known: int
    unknown: tuple[str, ...]


class Request(NamedTuple):
    """One request and what a right answer must look like (`loadtest.answer`)."""

    kind: str  # cold, warm, both, id, inline (no id), score
    path: str
    parts: tuple[bytes, ...]
    items: int  # of the reply
    slate: Slate | None = None
    context: bytes = b""  # what an id alone stands for; empty where the request brings it

    @property
    def body(self) -> bytes:
        """The JSON body."""
        return b"".join(self.parts)

    def with_context(self) -> Request:
        """The same request with its context as well: what a client sends after a 404 of an id alone."""
        parts = (self.parts[0], b',"context":', self.context, *self.parts[1:])
        return self._replace(kind="lost", parts=parts, context=b"")


class Traffic:
    """The requests to one target. Building it draws the pool of slates (about a second, with a `pause` after each, so
    that an event loop goes on); streams are cheap."""

    def __init__(
        self,
        target: Target,
        spec: TrafficSpec = REALISTIC,
        seed: int = 0,
        pause: Callable[[], object] = lambda: None,
    ) -> None:
        self.target, self.spec, self.seed = target, spec, seed
        rng = Random(f"{seed}/slates")
        self._ids = list(target.item_ids)
        rng.shuffle(self._ids)  # popularity has nothing to do with the catalogue's order
        self._items = Zipf(len(self._ids), spec.item_exponent)
        self._values = {f.name: Zipf(len(f.values), spec.value_exponent) for f in target.fields if f.values}
        self._pages = Zipf(spec.most_pages, spec.pages_exponent)
        self._population = Zipf(spec.contexts, spec.context_exponent)
        self._known: dict[str, bytes] = {}  # contexts of the population, as JSON
        self._start = b"{" if not target.named else b'{"model":' + _json(target.model) + b","
        sizes, shares = zip(*spec.slate_sizes, strict=True)
        self.slates: list[Slate] = []
        for size in rng.choices(sizes, shares, k=spec.slates):
            self.slates.append(self._slate(rng, size))
            pause()

    def stream(self, user: str | int) -> Iterator[Request]:
        """The endless requests of one user, session after session."""
        rng, session = Random(f"{self.seed}/user/{user}"), 0
        while True:
            yield from self._session(rng, f"{user}-{session}")
            session += 1

    def interleaved(self, users: int) -> Iterator[Request]:
        """The streams of `users` users in turn: pages of one session are `users` requests apart."""
        streams = [self.stream(n) for n in range(users)]
        while True:
            for stream in streams:
                yield next(stream)

    def context(self, name: str) -> dict[str, Any]:
        """The context called `name`: raw values of all fields."""
        rng = Random(f"{self.seed}/context/{name}")
        return {f.name: self._value(rng, f) for f in self.target.fields}

    def _session(self, rng: Random, name: str) -> Iterator[Request]:
        spec = self.spec
        cold = rng.random() < spec.cold_share
        with_id = rng.random() >= spec.without_id_share
        who = f"new-{name}" if cold else str(self._population.draw(rng))
        context = self._known.get(who) or _json(self.context(who))
        if not cold:
            self._known[who] = context
        identity = b'"context_id":' + _json(f"load-{self.seed}-{who}")
        sent = False  # whether the service has this context under its id
        for _ in range(1 + self._pages.draw(rng)):
            drawn = rng.random()
            if drawn < spec.score_share:
                yield self._score(rng, context)
                continue
            alone = sent and rng.random() < spec.id_alone_share
            kind, start = "inline", self._start + b'"context":' + context
            if with_id:
                kind = "id" if alone else "both" if sent else "cold" if cold else "warm"
                start = self._start + identity + (b"" if alone else b',"context":' + context)
                sent = True
            left_out = context if alone else b""
            if drawn < spec.score_share + spec.catalogue_share:
                top_k = min(spec.catalogue_top_k, len(self._ids))
                yield Request(kind, "/rank", (start, b',"top_k":%d}' % top_k), top_k, None, left_out)
            else:
                slate = rng.choice(self.slates)
                parts = (start, b',"item_ids":', slate.text, b',"top_k":%d}' % spec.top_k)
                yield Request(kind, "/rank", parts, min(spec.top_k, slate.known), slate, left_out)

    def _score(self, rng: Random, context: bytes) -> Request:
        ids = [self._ids[self._items.draw(rng)] for _ in range(self.spec.score_rows)]
        rows = b",".join(b'{"context":%b,"item":{"id":%b}}' % (context, _json(i)) for i in ids)
        return Request("score", "/score", (self._start, b'"instances":[', rows, b"]}"), len(ids))

    def _slate(self, rng: Random, size: int) -> Slate:
        ids = [self._ids[rank] for rank in self._items.distinct(rng, size)]
        unknown: list[str] = []
        if rng.random() < self.spec.unknown_item_share:
            unknown = [f"no-such-item-{rng.getrandbits(32):08x}" for _ in range(rng.randint(1, 3))]
            for stranger in unknown:
                ids.insert(rng.randrange(len(ids) + 1), stranger)
            unknown.sort(key=ids.index)
        return Slate(_json(ids), len(ids) - len(unknown), tuple(unknown))

    def _value(self, rng: Random, field: ContextField) -> Any:
        if field.kind in ("numeric", "dense"):
            return round(rng.lognormvariate(1.0, 1.0), 3)
        if field.kind == "multi":
            return [self._word(rng, field) for _ in range(rng.randint(0, 5))]
        return self._word(rng, field)

    def _word(self, rng: Random, field: ContextField) -> str:
        if not field.values or rng.random() < self.spec.unknown_value_share:
            return f"no-such-value-{rng.getrandbits(16)}"
        return field.values[self._values[field.name].draw(rng)]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
