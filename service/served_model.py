"""One version of a model as a worker serves it: read, verified, warmed, with the counters of its requests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from models_export.reader import read_artefact
from service.errors import NotServable
from service.kernel_cache import compile_kernels
from service.metrics import Counter, Metrics
from service.scorers.choice import ScorerChoice
from service.scorers.onnx_provider import OnnxUnavailable
from service.settings import Settings

if TYPE_CHECKING:
    from service.ranking import RankingModel


@dataclass(eq=False)
class ServedModel:
    """A loaded, warm version, with the counters that its requests update."""

    name: str
    version: str
    ranking: RankingModel
    digest: str
    candidates: Counter
    unknown_items: Counter
    catalogue_floats: int = 0
    _unknown_values: dict[str, Counter] = field(default_factory=dict)

    def count_unknown(self, metrics: Metrics, unknown: Mapping[str, int]) -> None:
        """Count values that the model has never seen, by field."""
        for name, count in unknown.items():
            counter = self._unknown_values.get(name)
            if counter is None:
                counter = self._unknown_values[name] = metrics.counter("ctrank_unknown_values", self.name, name)
            counter.add(count)


def load_model(folder: Path, settings: Settings) -> RankingModel:
    """Read, verify and warm the artefact in `folder`. `ArtefactError` names the culprit, `NotServable` what is not
    installed or not in the artefact, with the remedy.

    The ranking layer is imported here and nowhere in the service's routes: its kernels are compiled or read from disk
    on import, and the server answers `/healthz` meanwhile.
    """
    artefact = read_artefact(folder)
    cache_dir = settings.cache_dir or default_cache_dir()
    compile_kernels(cache_dir, artefact)
    from service.ranking import Limits, RankingModel

    limits = Limits(
        settings.max_candidates, settings.max_values_per_field, settings.max_instances, settings.max_catalogue_top_k
    )
    try:
        ranking = RankingModel.load(artefact, cache_dir, limits, scorer_choice(settings))
    except OnnxUnavailable as error:
        raise NotServable(str(error)) from error
    ranking.warm()
    return ranking


def scorer_choice(settings: Settings) -> ScorerChoice:
    """Which scorers the settings ask for."""
    return ScorerChoice(settings.scorer, settings.onnx_provider, settings.threads, settings.onnx_batch_us)


def default_cache_dir() -> Path:
    """Where precomputed item sides are kept: `ctrank` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ctrank"
