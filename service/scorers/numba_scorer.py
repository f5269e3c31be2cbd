"""The compiled scorer: an artefact's arrays, in kernel order, behind the family's kernel."""

from collections.abc import Callable

import numpy as np

from models_export.encoded import EncodedSide
from models_export.reader import Artefact
from service.kernels.catalogue import CatalogueKernel
from service.kernels.of_artefact import KERNELS
from service.kernels.query import ContextProgram, QueryForm
from service.kernels.side import Side as Arrays
from service.kernels.top_k import top_k
from service.scorers.bounds import query_bound
from service.scorers.local_scorer import LocalScorer
from service.scorers.missing import missing_side
from service.scorers.protocol import F32, I32, Scorer

__all__ = ["FAMILIES", "NumbaScorer", "make_scorer", "top_k"]


def _arrays(side: EncodedSide) -> Arrays:
    return side.rows, side.multi_indptr, side.multi_rows, side.multi_weights


class NumbaScorer:
    """A ``Scorer`` on compiled kernels. All compilation happens in the constructor."""

    name, provider = "numba", "cpu"
    has_query, has_rows, coalesces = True, False, False
    us_per_item = 0.0

    def __init__(self, artefact: Artefact) -> None:
        manifest = artefact.manifest
        if manifest.family not in KERNELS:
            raise ValueError(
                f"artefact {artefact.path}: no compiled kernel for family {manifest.family!r}; "
                f"there are {', '.join(sorted(KERNELS))}"
            )
        self._manifest = manifest
        self._kernel = KERNELS[manifest.family](artefact)
        self.state_size = self._kernel.state_size
        self.vector_size = self._kernel.vector_size
        self._catalogue = CatalogueKernel(self.vector_size)

    def warm(self) -> None:
        """Run every path once on the missing values of all fields."""
        context, items = missing_side(self._manifest, "context", 1), missing_side(self._manifest, "item", 9)
        state = self.context_state(context)
        scores = self.score_items(state, items)
        g, beta = self.item_side(items)
        self.score_catalogue(state, g, beta, np.arange(9, dtype=np.int32))
        self.top_index(state, g, beta, np.arange(9, dtype=np.int32), 2)
        self.top_catalogue(state, g, beta, 2)
        top_k(np.repeat(scores, 16), 1)
        top_k(scores, 9)

    def context_state(self, context: EncodedSide) -> F32:
        """See ``Scorer``."""
        if len(context) != 1:
            raise ValueError(f"context: expected one encoded row, found {len(context)}")
        return self._kernel.context_state(_arrays(context))

    def score_items(self, state: F32, items: EncodedSide) -> F32:
        """See ``Scorer``."""
        return self._kernel.score_items(state, _arrays(items))

    def item_side(self, items: EncodedSide) -> tuple[F32, F32]:
        """See ``Scorer``."""
        return self._kernel.item_side(_arrays(items))

    def query(self, state: F32) -> tuple[float, F32]:
        """See ``Scorer``."""
        return self._kernel.query(state)

    def score_rows(self, contexts: EncodedSide, items: EncodedSide) -> F32:
        """There is no such kernel."""
        raise ValueError("the compiled kernels score the items of one context at a time")

    def compiled(self) -> tuple[ContextProgram, QueryForm] | None:
        """See ``Scorer``."""
        return self._kernel.context_program(), self._kernel.query

    def largest_state(self, g: F32 | None) -> float:
        """See ``Scorer``."""
        return query_bound(g)

    def score_catalogue(self, state: F32, g: F32, beta: F32, index: I32) -> F32:
        """See ``Scorer``."""
        alpha, a = self._kernel.query(state)
        return self._catalogue.score_index(g, beta, alpha, a, index)

    def top_index(self, state: F32, g: F32, beta: F32, index: I32, k: int) -> tuple[I32, F32]:
        """See ``Scorer``."""
        alpha, a = self._kernel.query(state)
        return self._catalogue.top_index(g, beta, alpha, a, index, k)

    def top_catalogue(self, state: F32, g: F32, beta: F32, k: int) -> tuple[I32, F32]:
        """See ``Scorer``."""
        alpha, a = self._kernel.query(state)
        return self._catalogue.top(g, beta, alpha, a, k)


FAMILIES: dict[str, Callable[[Artefact], Scorer]] = {**dict.fromkeys(KERNELS, NumbaScorer), "llfm": LocalScorer}
"""Manifest family -> its scorer."""


def make_scorer(artefact: Artefact) -> Scorer:
    """The scorer of an artefact; ``ValueError`` for a family without a compiled kernel."""
    return FAMILIES.get(artefact.manifest.family, NumbaScorer)(artefact)
