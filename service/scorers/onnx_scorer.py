"""The scorer on ONNX Runtime: the graphs of an artefact, on the CPU or a GPU. The only one for networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from models_export.encoded import EncodedSide
from models_export.manifest import NETWORK_FAMILIES
from models_export.reader import Artefact
from service.kernels.query import ContextProgram, QueryForm
from service.kernels.top_k import top_k
from service.ranking_errors import ScoreNotFinite
from service.scorers.bounds import local_bound, query_bound
from service.scorers.coalescing import Coalescer
from service.scorers.missing import missing_side
from service.scorers.onnx_graphs import Graphs
from service.scorers.onnx_provider import Provider
from service.scorers.onnx_sides import RunSize, side_feeds
from service.scorers.protocol import F32, I32, LARGEST

_ONE_STATE = np.zeros(1, np.int32)
_TIMED = 512  # candidates of the slate by which `us_per_item` is measured
_REPEATED = 5
_MOST_JOINED = 1 << 16  # candidates of one batch of several requests
_NO_SCORES = np.zeros(0, np.float32)


@dataclass(frozen=True)
class _Items:
    """One request's encoded candidates and its state."""

    state: F32
    items: EncodedSide


@dataclass(frozen=True)
class _Chosen:
    """One request's catalogue candidates and its state."""

    state: F32
    index: I32
    catalogue: _Resident


@dataclass(frozen=True)
class _Resident:
    """A catalogue's item side as the graphs read it, and the array that it was made of."""

    source: F32
    g: Any
    beta: Any


class OnnxScorer:
    """A ``Scorer`` over an artefact's graphs, for every family; states and item sides are the compiled scorers' ones.

    ``wait_us``: how long a request may wait for others to share a run with, 0 never (``Coalescer``); runs over the
    whole catalogue are not shared.
    """

    name = "onnx"
    has_query = False
    has_rows = True

    def __init__(self, artefact: Artefact, provider: Provider, threads: int, wait_us: float) -> None:
        self._manifest = m = artefact.manifest
        self._is_network = m.family in NETWORK_FAMILIES
        self._graphs = Graphs(artefact, provider, threads)
        self.provider = provider.name
        self.state_size = self._graphs.size_of("context.onnx")
        self.vector_size = self._graphs.size_of("item.onnx")
        self.us_per_item = 0.0
        self.coalesces = wait_us > 0
        self._n_multi = m.n_multi("item")
        self._size = RunSize.of(artefact, self.vector_size, provider.most_floats)
        self._rank = Coalescer(self._run_items, wait_us, _MOST_JOINED)
        self._candidates = Coalescer(self._run_chosen, wait_us, _MOST_JOINED)
        self._resident: _Resident | None = None

    def warm(self) -> None:
        """Run every path once on the missing values of all fields, and measure ``us_per_item``."""
        context = missing_side(self._manifest, "context", 1)
        state, items = self.context_state(context), missing_side(self._manifest, "item", _TIMED)
        g, beta = self.item_side(items)
        index = np.arange(_TIMED, dtype=np.int32)
        self.score_rows(missing_side(self._manifest, "context", 2), missing_side(self._manifest, "item", 2))
        times = []
        for _ in range(_REPEATED):
            began = perf_counter()
            self._run_items([_Items(state, items)])
            times.append(perf_counter() - began)
        self.us_per_item = min(times) * 1e6 / _TIMED
        self.score_items(state, items)
        resident = self._resident
        self.top_index(state, g, beta, index, 2)
        self.top_catalogue(state, g, beta, 2)
        self._resident = resident

    def context_state(self, context: EncodedSide) -> F32:
        """See ``Scorer``."""
        if len(context) != 1:
            raise ValueError(f"context: expected one encoded row, found {len(context)}")
        feeds = side_feeds("context", context, self._manifest.n_multi("context"))
        state: F32 = self._graphs.run("context.onnx", feeds, ["state"])[0][0]
        return state

    def score_items(self, state: F32, items: EncodedSide) -> F32:
        """See ``Scorer``."""
        if len(items) == 0:
            return _NO_SCORES
        work = _Items(state, items)
        return self._rank(work, len(items)) if self.coalesces else self._run_items([work])[0]

    def score_rows(self, contexts: EncodedSide, items: EncodedSide) -> F32:
        """See ``Scorer``."""
        scores = np.empty(len(items), np.float32)
        n_multi = self._manifest.n_multi("context")
        for first, last in self._spans(items):
            for start, stop in self._size.spans(contexts.between(first, last), n_multi):
                rows = slice(first + start, first + stop)
                feeds = side_feeds("context", contexts.between(rows.start, rows.stop), n_multi)
                feeds |= side_feeds("item", items.between(rows.start, rows.stop), self._n_multi)
                scores[rows] = self._graphs.run("score.onnx", feeds, ["scores"])[0]
        return self._checked(scores)

    def item_side(self, items: EncodedSide) -> tuple[F32, F32]:
        """See ``Scorer``."""
        n = len(items)
        g, beta = np.empty((n, self.vector_size), np.float32), np.empty(n, np.float32)
        for start, stop in self._spans(items):
            feeds = side_feeds("item", items.between(start, stop), self._n_multi)
            g[start:stop], beta[start:stop] = self._graphs.run("item.onnx", feeds, ["g", "beta"])
        return g, beta

    def query(self, state: F32) -> tuple[float, F32]:
        """There is none."""
        raise ValueError("a scorer on ONNX Runtime keeps the query inside its graphs")

    def compiled(self) -> tuple[ContextProgram, QueryForm] | None:
        """There is no such code."""
        return None

    def largest_state(self, g: F32 | None) -> float:
        """See ``Scorer``; a network's scores have no such bound, and are checked themselves."""
        if self._is_network:
            return LARGEST
        return local_bound(g, self._manifest.dim) if self._manifest.family == "llfm" else query_bound(g)

    def score_catalogue(self, state: F32, g: F32, beta: F32, index: I32) -> F32:
        """See ``Scorer``."""
        if len(index) == 0:
            return _NO_SCORES
        work = _Chosen(state, index, self._at_device(g, beta))
        return self._candidates(work, len(index)) if self.coalesces else self._run_chosen([work])[0]

    def top_index(self, state: F32, g: F32, beta: F32, index: I32, k: int) -> tuple[I32, F32]:
        """See ``Scorer``."""
        scores = self.score_catalogue(state, g, beta, index)
        best = top_k(scores, k)
        return index[best], scores[best]

    def top_catalogue(self, state: F32, g: F32, beta: F32, k: int) -> tuple[I32, F32]:
        """See ``Scorer``; a catalogue too large for one run is ranked span by span, and the best of the spans again."""
        catalogue, span = self._at_device(g, beta), self._size.items
        if len(g) > span and self._graphs.provider.bound:  # a part of what is resident is no input of its own
            return self.top_index(state, g, beta, np.arange(len(g), dtype=np.int32), k)
        found = [(np.zeros(0, np.int32), _NO_SCORES)]
        for start in range(0, len(g), span):
            part = slice(start, min(start + span, len(g)))
            whole = part.stop - start == len(g)
            feeds = {"g": catalogue.g, "beta": catalogue.beta} if whole else {"g": g[part], "beta": beta[part]}
            feeds |= {"state": state[None], "k": np.array([min(k, part.stop - start)])}
            scores, index = self._graphs.run("catalogue.onnx", feeds, ["top_scores", "top_index"])
            found.append(((index + start).astype(np.int32), self._checked(scores)))
        items, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        best = top_k(scores, k)
        return items[best], scores[best]

    # -- runs ---------------------------------------------------------------------------------------------------------

    def _run_items(self, works: Sequence[_Items]) -> list[F32]:
        items = EncodedSide.concatenated([work.items for work in works])
        states, which = _stacked([work.state for work in works], [len(work.items) for work in works])
        scores = np.empty(len(items), np.float32)
        for start, stop in self._spans(items):
            feeds: dict[str, Any] = side_feeds("item", items.between(start, stop), self._n_multi)
            feeds |= {"state": states, "state_index": which[start:stop] if len(works) > 1 else which}
            scores[start:stop] = self._graphs.run("rank.onnx", feeds, ["scores"])[0]
        return _split(self._checked(scores), [len(work.items) for work in works])

    def _run_chosen(self, works: Sequence[_Chosen]) -> list[F32]:
        sizes = [len(work.index) for work in works]
        index = np.concatenate([work.index for work in works])
        states, which = _stacked([work.state for work in works], sizes)
        catalogue, span = works[0].catalogue, self._size.items
        scores = np.empty(len(index), np.float32)
        for start in range(0, len(index), span):
            part = slice(start, start + span)
            feeds = {"state": states, "state_index": which[part] if len(works) > 1 else which}
            feeds |= {"g": catalogue.g, "beta": catalogue.beta, "index": index[part]}
            scores[part] = self._graphs.run("candidates.onnx", feeds, ["scores"])[0]
        return _split(self._checked(scores), sizes)

    def _spans(self, items: EncodedSide) -> Iterator[tuple[int, int]]:
        return self._size.spans(items, self._n_multi)

    def _at_device(self, g: F32, beta: F32) -> _Resident:
        """The item side on the device, copied there when it is first met: a scorer serves one catalogue."""
        found = self._resident
        if found is None or found.source is not g:
            resident = self._graphs.resident
            found = self._resident = _Resident(g, resident(g), resident(beta))
        return found

    def _checked(self, scores: F32) -> F32:
        """The scores, which are finite; the bound of ``largest_state`` says nothing about a network's."""
        if self._is_network and not np.isfinite(scores).all():
            raise ScoreNotFinite("a score is not finite in float32: a weight is too large for this model")
        return scores


def _stacked(states: Sequence[F32], sizes: Sequence[int]) -> tuple[F32, I32]:
    """``state`` [c, S] and ``state_index`` of the graphs."""
    if len(states) == 1:
        return states[0][None], _ONE_STATE
    return np.stack(states), np.repeat(np.arange(len(states), dtype=np.int32), sizes)


def _split(scores: F32, sizes: Sequence[int]) -> list[F32]:
    return np.split(scores, np.cumsum(sizes[:-1])) if len(sizes) > 1 else [scores]
