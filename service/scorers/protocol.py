"""What ranking asks of a scorer, whatever computes the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from models_export.encoded import EncodedSide

if TYPE_CHECKING:  # kernels compile when they are imported
    from service.kernels.query import ContextProgram, QueryForm

F32: TypeAlias = npt.NDArray[np.float32]
I32: TypeAlias = npt.NDArray[np.int32]
State: TypeAlias = F32
"""A context state: flat float32, its layout is the family's affair."""


LARGEST = 1e30
"""Bound of a score that cannot overflow float32 on the way."""


class Scorer(Protocol):
    """Scores (logits) of one model. Thread-safe: every method may run in several threads at once.

    Encoded sides are trusted: feature rows lie in the artefact's table (the encoder's promise).
    """

    name: str
    """`numba` or `onnx`."""
    provider: str
    """What computes: `cpu` or `cuda`."""
    us_per_item: float
    """Microseconds of a candidate, measured by ``warm``; 0 for a compiled scorer, whose cost follows from the size of
    the request."""
    coalesces: bool
    """Whether calls of several threads share a run: they then have to come from several threads."""
    state_size: int
    """Floats of a context state."""
    vector_size: int
    """Floats of an item's precomputed side (D of the catalogue form)."""
    has_query: bool
    """Whether score = alpha + beta + <a, g>: what ``query`` needs. LLFM's item side is what its kernel starts from."""
    has_rows: bool
    """Whether rows of any mixture of contexts are scored at once: what ``score_rows`` needs."""

    def warm(self) -> None:
        """Run every path once, so that no request compiles or faults in code."""

    def context_state(self, context: EncodedSide) -> F32:
        """The state of one encoded context, float32 [state_size]; ``ValueError`` unless it has one row."""

    def score_items(self, state: F32, items: EncodedSide) -> F32:
        """Scores float32 [n] of encoded items, gathers included."""

    def score_rows(self, contexts: EncodedSide, items: EncodedSide) -> F32:
        """Scores float32 [n] of row i of ``items`` for row i of ``contexts``; ``ValueError`` without ``has_rows``."""

    def item_side(self, items: EncodedSide) -> tuple[F32, F32]:
        """Precomputed item side: g float32 [n, vector_size] and beta float32 [n]."""

    def query(self, state: F32) -> tuple[float, F32]:
        """The context side: alpha and a float32 [vector_size], with score = alpha + beta + <a, g>; ``ValueError``
        without ``has_query``."""

    def largest_state(self, g: F32 | None) -> float:
        """Bound of |state| below which no score of precomputed items ``g`` can overflow float32 on the way."""

    def compiled(self) -> tuple[ContextProgram, QueryForm] | None:
        """``context_state`` and ``query`` for compiled code; ``None`` where there is no such code."""

    def score_catalogue(self, state: F32, g: F32, beta: F32, index: I32) -> F32:
        """Scores float32 [len(index)] of precomputed items ``index``, each in ``0 <= index < len(beta)``."""

    def top_index(self, state: F32, g: F32, beta: F32, index: I32, k: int) -> tuple[I32, F32]:
        """The best ``min(k, len(index))`` of the precomputed items ``index``, in range: items and scores, best first,
        ties by position in ``index``."""

    def top_catalogue(self, state: F32, g: F32, beta: F32, k: int) -> tuple[I32, F32]:
        """The best ``min(k, n)`` of all precomputed items: indices and scores, best first, ties by catalogue order."""
