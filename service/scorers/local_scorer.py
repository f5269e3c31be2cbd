"""The compiled scorer of LLFM, whose scores are no inner products: precomputed items are scored by its own kernel."""

import numpy as np

from models_export.encoded import EncodedSide
from models_export.locality import locality_of
from models_export.reader import Artefact
from service.kernels.llfm import LlfmKernel
from service.kernels.side import Side as Arrays
from service.kernels.top_k import top_k
from service.scorers.bounds import local_bound
from service.scorers.missing import missing_side
from service.scorers.protocol import F32, I32


def local_kernel(artefact: Artefact) -> LlfmKernel:
    """The kernel over an artefact's arrays."""
    m, local = artefact.manifest, artefact.local
    return LlfmKernel(
        locality_of(m),
        artefact.embedding_rows,
        local["local_anchors"],
        local["local_bias"],
        m.dim,
        float(artefact.global_bias[0]),
        m.n_multi("context"),
        m.n_multi("item"),
    )


class LocalScorer:
    """A ``Scorer`` of LLFM. An item's precomputed side is its row of sums, g float32 [n, vector_size]: 3.5 KB for 50
    anchors of k = 10; beta is 0. All compilation happens in the constructor."""

    name, provider = "numba", "cpu"
    has_query = has_rows = coalesces = False
    us_per_item = 0.0

    def __init__(self, artefact: Artefact) -> None:
        self._manifest = artefact.manifest
        self._kernel = local_kernel(artefact)
        self.state_size, self.vector_size = self._kernel.state_size, self._kernel.vector_size

    def warm(self) -> None:
        """Run every path once on the missing values of all fields."""
        state = self.context_state(missing_side(self._manifest, "context", 1))
        items = missing_side(self._manifest, "item", 9)
        scores = self.score_items(state, items)
        g, beta = self.item_side(items)
        self.top_index(state, g, beta, np.arange(9, dtype=np.int32), 2)
        self.top_catalogue(state, g, beta, 2)
        top_k(np.repeat(scores, 16), 1)

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
        return self._kernel.item_side(_arrays(items)), np.zeros(len(items), np.float32)

    def query(self, state: F32) -> tuple[float, F32]:
        """There is none."""
        raise ValueError("llfm: gamma depends on context and item together; its scores are no inner products")

    def score_rows(self, contexts: EncodedSide, items: EncodedSide) -> F32:
        """There is no such kernel."""
        raise ValueError("the compiled kernels score the items of one context at a time")

    def compiled(self) -> None:
        """There is no such code: see ``query``."""

    def largest_state(self, g: F32 | None) -> float:
        """See ``Scorer``."""
        return local_bound(g, self._manifest.dim)

    def score_catalogue(self, state: F32, g: F32, beta: F32, index: I32) -> F32:
        """See ``Scorer``."""
        return self._kernel.score_sums(state, g, index)

    def top_index(self, state: F32, g: F32, beta: F32, index: I32, k: int) -> tuple[I32, F32]:
        """See ``Scorer``."""
        scores = self._kernel.score_sums(state, g, index)
        best = top_k(scores, k)
        return index[best], scores[best]

    def top_catalogue(self, state: F32, g: F32, beta: F32, k: int) -> tuple[I32, F32]:
        """See ``Scorer``."""
        return self.top_index(state, g, beta, np.arange(len(g), dtype=np.int32), k)


def _arrays(side: EncodedSide) -> Arrays:
    return side.rows, side.multi_indptr, side.multi_rows, side.multi_weights
