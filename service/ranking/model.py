"""A model that ranks: raw request members in, a ranked slate out.

context -> ``encode_context`` -> ``context_state`` (cacheable) -> one of ``rank_ids``, ``rank_items``, ``rank_columns``,
``rank_catalogue`` -> ``Ranked``; or ``score``, row by row. Everything is read-only after ``load``: any number of
threads may call it at once. Bad input is a ``RankingError`` (``service.ranking_errors``) that names the field or
member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide
from models_export.manifest import Manifest
from models_export.reader import Artefact
from service.catalogue import Catalogue
from service.kernels.finish import is_within, sigmoid
from service.kernels.rank_ids import SELECT_SHARE
from service.kernels.top_k import top_k as best_of
from service.ranking.best_ids import BestIds
from service.ranking.context import Context, ContextEncoder
from service.ranking.field_tables import FieldTables
from service.ranking.inline_items import CatalogueLookUp, InlineItems
from service.ranking.instances import Predictions, as_inline, pairs
from service.ranking.json_values import Raw, as_json, is_raw
from service.ranking.limits import Limits
from service.ranking.ranked import CatalogueIds, IdSource, Ranked
from service.ranking.slate import Slate, SlateFiller
from service.ranking.whole_request import Meters, RankingParts, WholeRequest, clock_agrees
from service.ranking_errors import InvalidSlate, LimitExceeded, ScoreNotFinite
from service.scorers.choice import ScorerChoice
from service.scorers.protocol import LARGEST, Scorer

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


class RankingModel:
    """One model, loaded. Build it with ``load``, then ``warm`` it before the first request."""

    def __init__(self, artefact: Artefact, scorer: Scorer, catalogue: Catalogue | None, limits: Limits) -> None:
        self.artefact = artefact
        self.manifest = artefact.manifest
        self.scorer = scorer
        self.catalogue = catalogue
        self.limits = limits
        items = None if catalogue is None else catalogue.items
        encoder = artefact.encoder
        tables = FieldTables(encoder, "item")
        self._contexts = ContextEncoder(encoder, limits)
        self._item_position = tables.position
        self._look_up = CatalogueLookUp(None if items is None else items.ids, limits)
        self._catalogue_ids = CatalogueIds(self._look_up.table)
        self._inline = InlineItems(encoder, tables, self._look_up, limits)
        self._filler = SlateFiller(tables, items, self.manifest.item_id_field)
        self._largest_state = scorer.largest_state(None if catalogue is None else catalogue.g)
        self._sigmoid = _sigmoid(self.manifest)
        self._best_ids = None
        if catalogue is not None and scorer.has_query and (self._sigmoid[0] or self.manifest.loss != "logistic"):
            self._best_ids = BestIds(catalogue, self._look_up, self._catalogue_ids, limits, *self._sigmoid)

    @classmethod
    def load(
        cls,
        artefact: Artefact,
        cache_dir: Path | None = None,
        limits: Limits | None = None,
        choice: ScorerChoice | None = None,
    ) -> RankingModel:
        """A model over a verified artefact. With ``cache_dir`` the precomputed item side is a file there that all
        workers map; without, each computes its own."""
        scorer = (choice or ScorerChoice()).make(artefact)
        catalogue = Catalogue.open(artefact, scorer, cache_dir)
        return cls(artefact, scorer, catalogue, limits or Limits())

    @property
    def digest(self) -> str:
        """The artefact's digest as cache keys hold it: 16 hexadecimal digits."""
        return self.artefact.digest[:16]

    @property
    def n_items(self) -> int:
        """Items of the catalogue."""
        return 0 if self.catalogue is None else len(self.catalogue)

    def warm(self) -> None:
        """Run every path once on tiny input, so that no request compiles anything or meets cold code."""
        self.scorer.warm()
        known = [] if self.n_items == 0 else self._catalogue_ids.strings(np.zeros(1, dtype=np.int32))
        context = self.encode_context(b"{}")
        state = self.context_state(context)
        self.encode_context({})
        whole = self.whole_request("", b"", Meters.discarded())
        if whole is not None:
            raw = msgspec.json.encode(known * SELECT_SHARE)
            whole.answer(b'{"context":{},"item_ids":%b,"top_k":1}' % raw, 0.0)
        for ids in (known, [*known, ""]):
            raw = msgspec.json.encode(ids)
            self.rank_ids(state, raw).to_json_items()
            self.rank_ids(state, ids)
            self.rank_columns(state, b'{"ids":%b,"fields":{}}' % raw, 1).to_json_items()
            self.rank_items(state, msgspec.json.encode([{"id": i, "fields": {}} for i in ids])).to_json_items()
        fields = {name: [None] for name in self._item_position}
        self.rank_columns(state, msgspec.json.encode({"ids": [""], "fields": fields}))
        if self.n_items:
            self.rank_catalogue(state, 1).to_json_items()
        self.score([{"context": {}, "item": {}}])

    # -- context ------------------------------------------------------------------------------------------------------

    def encode_context(self, context: Raw | Mapping[str, Any]) -> Context:
        """Encode a context given as JSON text or as a mapping."""
        return self._contexts.encode(context)

    def context_state(self, context: Context) -> F32:
        """What a context adds to every item's score, float32 [state_size]; this is what the context cache holds."""
        state = self.scorer.context_state(context.encoded)
        if not is_within(state, self._largest_state):  # within it, no catalogue score can overflow
            raise ScoreNotFinite(
                "the context's score is not finite in float32: a weight is too large for this model", "context"
            )
        return state

    def whole_request(self, name: str, head: bytes, meters: Meters) -> WholeRequest | None:
        """The short way for usual requests to this model under its served ``name``; ``head`` is the reply up to its
        items. ``None`` where it does not apply: no catalogue, a calibration that is no sigmoid, no compiled scorer."""
        compiled = self.scorer.compiled()
        if self._best_ids is None or self.catalogue is None or compiled is None or not clock_agrees():
            return None
        parts = RankingParts(
            name, self._contexts.tables, self._look_up, self._catalogue_ids, self.catalogue, *compiled,
            self._largest_state, self._sigmoid, self.limits,
        )  # fmt: skip
        return WholeRequest(parts, head, meters)

    # -- ranking ------------------------------------------------------------------------------------------------------

    def rank_ids(self, state: F32, item_ids: Raw | Sequence[object], top_k: int | None = None) -> Ranked:
        """Rank catalogue items given by id. Repeated ids are ranked each; unknown ones are listed and left out."""
        if top_k is not None and self._best_ids is not None and is_raw(item_ids):
            ranked = self._best_ids.rank(item_ids, *self.scorer.query(state), top_k)
            if ranked is not None:
                return ranked
        index, source, n_unknown = self._look_up.resolve(item_ids, "item_ids")
        unknown: list[str] = []
        if n_unknown:
            unknown = source.strings(np.flatnonzero(index < 0).astype(np.int32))
            index = index[index >= 0]
        k = self._count(top_k, len(index))
        catalogue = self.catalogue
        if catalogue is None or k == 0:
            rows, scores = index[:0], np.zeros(0, dtype=np.float32)
        elif k * SELECT_SHARE <= len(index):
            rows, scores = self.scorer.top_index(state, catalogue.g, catalogue.beta, index, k)
        else:
            scores = self.scorer.score_catalogue(state, catalogue.g, catalogue.beta, index)
            best = best_of(scores, k)
            rows, scores = index[best], scores[best]
        return self._ranked(scores, rows, self._catalogue_ids, len(index), unknown, {})

    def rank_items(self, state: F32, items: Raw | Sequence[Any], top_k: int | None = None) -> Ranked:
        """Rank inline items ``[{"id": .., "fields": {..}}]``; fields not given come from the catalogue where it knows
        the id, else they are missing. An explicit null is a missing value."""
        return self._rank_slate(state, self._filler.fill(self._inline.rows(items)), top_k)

    def rank_columns(self, state: F32, columns: Raw | Mapping[str, Any], top_k: int | None = None) -> Ranked:
        """Rank inline items ``{"ids": [..], "fields": {field: [value per item]}}``, completed as by ``rank_items``."""
        return self._rank_slate(state, self._filler.fill(self._inline.columns(columns)), top_k)

    def rank_catalogue(self, state: F32, top_k: int) -> Ranked:
        """The best ``top_k`` items of the whole catalogue, exactly, in one pass."""
        limit = self.limits.max_catalogue_top_k
        if top_k > limit:
            raise LimitExceeded(f"top_k: at most {limit} of the whole catalogue, found {top_k}", "top_k")
        k = self._count(top_k, self.n_items)
        if self.catalogue is None:
            raise InvalidSlate("this model has no catalogue; give the candidates as items or item_columns", "item_ids")
        index, scores = self.scorer.top_catalogue(state, self.catalogue.g, self.catalogue.beta, k)
        return self._ranked(scores, index, self._catalogue_ids, self.n_items, [], {})

    def _rank_slate(self, state: F32, slate: Slate, top_k: int | None) -> Ranked:
        if len(slate) == 0:
            scores = np.zeros(0, dtype=np.float32)
        else:
            scores = self.scorer.score_items(state, slate.side)
            if not is_within(scores, LARGEST):
                raise ScoreNotFinite("a score is not finite in float32: a weight is too large for this model")
        best = best_of(scores, self._count(top_k, len(scores)))
        return self._ranked(scores[best], best, slate.ids, len(slate), [], slate.unknown)

    def _ranked(
        self,
        scores: F32,
        position: I32,
        source: IdSource,
        candidates: int,
        unknown_ids: list[str],
        unknown_values: Mapping[str, int],
    ) -> Ranked:
        return Ranked(scores, self._probabilities(scores), position, source, candidates, unknown_ids, unknown_values)

    def _probabilities(self, scores: F32) -> npt.NDArray[np.float64] | None:
        """Calibrated probabilities of scores, which are checked to be finite; ``None`` for a squared loss."""
        slope, shift = self._sigmoid
        p = np.empty(len(scores) if slope else 0, dtype=np.float64)
        if not sigmoid(scores, slope, shift, p):
            raise ScoreNotFinite("a score is not finite in float32: a weight is too large for this model")
        if slope:
            return p
        return self.manifest.calibration.probability(scores) if self.manifest.loss == "logistic" else None

    # -- rows ---------------------------------------------------------------------------------------------------------

    def score(self, instances: Sequence[Any]) -> Predictions:
        """Score ``[{"context": {..}, "item": {..}}]`` row by row, any mixture of contexts. An item is field -> value
        (completed from the catalogue by its item id field, as an inline item is) or an inline item itself."""
        if len(instances) > self.limits.max_instances:
            raise LimitExceeded(f"instances: at most {self.limits.max_instances} rows", "instances")
        contexts, items = pairs(instances)
        id_field = self.manifest.item_id_field
        inline = [
            as_inline(item, f"instances[{i}].item", id_field, self._item_position) for i, item in enumerate(items)
        ]
        slate = self._filler.fill(self._inline.rows(as_json(inline) or inline))
        unknown = dict(slate.unknown)
        groups: dict[tuple[int, bytes], tuple[Context, list[int]]] = {}
        for i, raw in enumerate(contexts):
            context = self.encode_context(as_json(raw) or raw)
            key = context.hash, context.encoded.rows.tobytes()
            groups.setdefault(key, (context, []))[1].append(i)
            for name, count in context.unknown.items():
                unknown[name] = unknown.get(name, 0) + count
        scores = np.empty(len(items), dtype=np.float32)
        if self.scorer.has_rows and len(groups) > 1:
            of_rows = {i: context.encoded for context, rows in groups.values() for i in rows}
            together = EncodedSide.concatenated([of_rows[i] for i in range(len(items))])
            scores = self.scorer.score_rows(together, slate.side)
            groups = {}
        for context, rows in groups.values():
            side = slate.side if len(rows) == len(items) else slate.side.take(np.array(rows))
            scores[rows] = self.scorer.score_items(self.context_state(context), side)
        if not is_within(scores, LARGEST):
            raise ScoreNotFinite("a score is not finite in float32: a weight is too large for this model")
        return Predictions(scores, self._probabilities(scores), unknown)

    # -- checks -------------------------------------------------------------------------------------------------------

    @staticmethod
    def _count(top_k: int | None, n: int) -> int:
        """How many of ``n`` candidates to return."""
        if top_k is None:
            return n
        if top_k < 1:
            raise InvalidSlate(f"top_k: expected at least 1, found {top_k}", "top_k")
        return min(top_k, n)


def _sigmoid(manifest: Manifest) -> tuple[float, float]:
    """Slope and shift of the calibrated probability if it is a sigmoid of the score, else a slope of 0."""
    calibration = manifest.calibration
    if manifest.loss != "logistic" or calibration.kind == "isotonic":
        return 0.0, 0.0
    return (calibration.a, calibration.b) if calibration.kind == "platt" else (1.0, 0.0)
