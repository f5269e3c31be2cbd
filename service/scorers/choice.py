"""Which scorer a model gets: the compiled one, or ONNX Runtime's, which alone scores networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models_export.manifest import NETWORK_FAMILIES
from models_export.onnx_files import has_graphs
from models_export.reader import Artefact
from service.scorers.onnx_provider import OnnxUnavailable, Provider, Wanted, find_provider
from service.scorers.protocol import Scorer

GPU_WAIT_US = 200.0
EXPORT = "export it again: ctrank-train export RUN --registry REGISTRY --name NAME --activate"


@dataclass(frozen=True)
class ScorerChoice:
    """``scorer`` of the families that have both; ``provider``, ``threads`` and ``batch_us`` are ONNX Runtime's:
    ``batch_us`` is how long a request may wait for others to share a run with, by default ``GPU_WAIT_US`` on a GPU and
    0 (not at all) on the CPU."""

    scorer: Literal["numba", "onnx"] = "numba"
    provider: Wanted = "auto"
    threads: int = 2
    batch_us: float | None = None

    def provider_of(self, artefact: Artefact) -> Provider | None:
        """Where ONNX Runtime scores an artefact, ``None`` where compiled kernels do. Raises ``OnnxUnavailable``."""
        family = artefact.manifest.family
        if self.scorer == "numba" and family not in NETWORK_FAMILIES:
            return None
        if not has_graphs(artefact.manifest):
            raise OnnxUnavailable(
                f"a {family} model is scored by ONNX Runtime here, and the artefact has no graphs for it; {EXPORT}"
            )
        return find_provider(self.provider)

    def make(self, artefact: Artefact) -> Scorer:
        """The scorer of an artefact. Raises ``OnnxUnavailable``."""
        provider = self.provider_of(artefact)
        if provider is None:
            from service.scorers.numba_scorer import make_scorer  # compiles kernels

            return make_scorer(artefact)
        from service.scorers.onnx_scorer import OnnxScorer

        wait_us = self.batch_us
        if wait_us is None:
            wait_us = 0.0 if provider.name == "cpu" else GPU_WAIT_US
        return OnnxScorer(artefact, provider, self.threads, wait_us)
