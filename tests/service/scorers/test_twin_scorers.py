"""Both scorers over one artefact: every path gives the same order and the same scores, and their states and item sides
are interchangeable. Networks, which have no compiled scorer, are held to the float64 oracle.

ONNX Runtime runs on the CPU as it does in the service, on the CPU with everything bound and shared as on a GPU, and on
a GPU where there is one.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest

from models_export.encoded import EncodedSide
from models_export.manifest import FAMILIES
from models_export.reader import Artefact
from service.scorers.numba_scorer import FAMILIES as COMPILED
from service.scorers.numba_scorer import make_scorer
from service.scorers.onnx_provider import CPU, OnnxUnavailable, Provider, find_provider
from service.scorers.onnx_scorer import OnnxScorer
from service.scorers.protocol import Scorer
from tests import oracle
from tests.tiny_artefact import CONTEXT, tiny_artefact

CONTEXTS = [CONTEXT, {}, {"recent": {"i1": 0.5, "i9": 2.0}, "user_id": "nobody", "tenure": -4.0}]


def providers() -> dict[str, Provider]:
    """What this machine has."""
    found = {"cpu": CPU, "bound": replace(CPU, bound=True)}
    try:
        return found | {"cuda": find_provider("cuda")}
    except OnnxUnavailable:
        return found


@dataclass(frozen=True)
class Twins:
    artefact: Artefact
    compiled: Scorer | None
    contexts: list[EncodedSide]
    items: EncodedSide  # the catalogue, and behind it its first ten items again: ties

    def expected(self, which: int) -> np.ndarray:
        """The scores of all items in a context."""
        context = self.contexts[which]
        if self.compiled is not None:
            return self.compiled.score_items(self.compiled.context_state(context), self.items)
        unique = len(self.items) - 10
        scores = oracle.scores(
            self.artefact.manifest, self.artefact.weights(), context, self.items.take(np.arange(unique))
        )
        return np.concatenate([scores, scores[:10]])


@pytest.fixture(scope="module", params=FAMILIES)
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    family = request.param
    artefact = tiny_artefact(tmp_path_factory.mktemp("twins") / family, family, dim=5, rank=3, graphs=True)
    assert artefact.items is not None
    items = artefact.items.side.take(np.append(np.arange(60), np.arange(10)))
    contexts = [artefact.encoder.encode_side("context", [values]) for values in CONTEXTS]
    return Twins(artefact, make_scorer(artefact) if family in COMPILED else None, contexts, items)


@pytest.fixture(scope="module", params=providers())
def onnx(request: pytest.FixtureRequest, twins: Twins) -> OnnxScorer:
    return OnnxScorer(twins.artefact, providers()[request.param], 2, 0.0)


def assert_twins(found: np.ndarray, expected: np.ndarray) -> None:
    """Scores to 1e-5 relative, and the very same order."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.argsort(-found, kind="stable"), np.argsort(-expected, kind="stable"))


def test_twin_scores_of_items(twins: Twins, onnx: OnnxScorer) -> None:
    for which, context in enumerate(twins.contexts):
        state = onnx.context_state(context)
        assert state.dtype == np.float32 and state.shape == (onnx.state_size,)
        assert_twins(onnx.score_items(state, twins.items), twins.expected(which))


def test_twin_states_and_item_sides_are_interchangeable(twins: Twins, onnx: OnnxScorer) -> None:
    """For networks: an item side computed item by item is the one computed at once."""
    g, beta = onnx.item_side(twins.items)
    assert g.shape == (len(twins.items), onnx.vector_size) and g.dtype == beta.dtype == np.float32
    if twins.compiled is None:
        for i in (0, 13):
            one_g, one_beta = onnx.item_side(twins.items.take(np.array([i])))
            np.testing.assert_allclose(one_g[0], g[i], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(one_beta[0], beta[i], rtol=1e-5, atol=1e-6)
        return
    compiled = twins.compiled
    assert (onnx.state_size, onnx.vector_size) == (compiled.state_size, compiled.vector_size)
    expected_g, expected_beta = compiled.item_side(twins.items)
    np.testing.assert_allclose(g, expected_g, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(beta, expected_beta, rtol=1e-5, atol=1e-5)
    index = np.arange(len(twins.items), dtype=np.int32)
    for which, context in enumerate(twins.contexts):
        ours, theirs = onnx.context_state(context), compiled.context_state(context)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        assert_twins(compiled.score_items(ours, twins.items), twins.expected(which))
        assert_twins(onnx.score_items(theirs, twins.items), twins.expected(which))
        assert_twins(compiled.score_catalogue(ours, g, beta, index), twins.expected(which))
        assert_twins(onnx.score_catalogue(theirs, expected_g, expected_beta, index), twins.expected(which))


def test_twin_catalogue(twins: Twins, onnx: OnnxScorer) -> None:
    """By index, the best by index, the best of all; equal items in the order given."""
    g, beta = onnx.item_side(twins.items)
    index = np.array([65, 3, 3, 59, 0, 17, 5, 60], np.int32)
    for which, context in enumerate(twins.contexts):
        state, expected = onnx.context_state(context), twins.expected(which)
        assert_twins(onnx.score_catalogue(state, g, beta, index), expected[index])
        order = index[np.argsort(-expected[index], kind="stable")]
        best, scores = onnx.top_index(state, g, beta, index, 5)
        np.testing.assert_array_equal(best, order[:5])
        np.testing.assert_allclose(scores, expected[best], rtol=1e-5, atol=1e-5)
        whole = np.argsort(-expected, kind="stable")
        for k in (1, 7, 70, 100):
            best, scores = onnx.top_catalogue(state, g, beta, k)
            np.testing.assert_array_equal(best, whole[:k])
            np.testing.assert_allclose(scores, expected[best], rtol=1e-5, atol=1e-5)
            assert best.dtype == np.int32 and scores.dtype == np.float32


def test_twins_agree_on_ties(twins: Twins, onnx: OnnxScorer) -> None:
    """Equal items have equal scores wherever they stand in a slate or a catalogue, so that they stay in order."""
    state = onnx.context_state(twins.contexts[0])
    for n in (5, 13, 30):
        items = twins.items.take(np.tile(np.arange(n), 3))
        g, beta = onnx.item_side(items)
        index = np.arange(3 * n, dtype=np.int32)
        order = np.argsort(-np.tile(twins.expected(0)[:n], 3), kind="stable")
        for scores in (onnx.score_items(state, items), onnx.score_catalogue(state, g, beta, index)):
            np.testing.assert_array_equal(np.argsort(-scores, kind="stable"), order)
        np.testing.assert_array_equal(onnx.top_catalogue(state, g, beta, 3 * n)[0], order)


def test_twin_rows(twins: Twins, onnx: OnnxScorer) -> None:
    """Row by row, each with its own context."""
    n = len(twins.items)
    which = np.arange(n) % len(CONTEXTS)
    contexts = EncodedSide.concatenated([twins.contexts[w] for w in which])
    expected = np.stack([twins.expected(w) for w in range(len(CONTEXTS))])[which, np.arange(n)]
    np.testing.assert_allclose(onnx.score_rows(contexts, twins.items), expected, rtol=1e-5, atol=1e-5)


def test_twin_in_parts(twins: Twins) -> None:
    """What is too large for one run is scored in several: the same, bound or not."""
    n = 60  # without ties: a part of one row may be rounded differently
    items = twins.items.take(np.arange(n))
    for bound in (False, True):
        small = OnnxScorer(twins.artefact, replace(CPU, bound=bound), 1, 0.0)
        small._size = replace(small._size, most=25 * small._size.per_row)
        state, expected = small.context_state(twins.contexts[0]), twins.expected(0)[:n]
        assert len(list(small._spans(items))) > 2
        assert_twins(small.score_items(state, items), expected)
        g, beta = small.item_side(items)
        assert_twins(small.score_catalogue(state, g, beta, np.arange(n, dtype=np.int32)), expected)
        for k in (1, 30, n):
            best, _ = small.top_catalogue(state, g, beta, k)
            np.testing.assert_array_equal(best, np.argsort(-expected, kind="stable")[:k])
        rows = small.score_rows(twins.contexts[0].take(np.zeros(n, np.int64)), items)
        np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-5)


def test_twin_of_requests_that_share_a_run(twins: Twins) -> None:
    """Requests of several threads become one batch, and each gets the very scores that it gets alone."""
    alone = OnnxScorer(twins.artefact, CPU, 1, 0.0)
    shared = OnnxScorer(twins.artefact, CPU, 1, 5e4)
    g, beta = alone.item_side(twins.items)
    states = [alone.context_state(context) for context in twins.contexts]
    sizes = [1, 17, 70]
    start = threading.Barrier(len(states))

    def slate(which: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(sizes[which])
        start.wait()
        scores = shared.score_items(states[which], twins.items.take(rows))
        return scores, shared.score_catalogue(states[which], g, beta, rows.astype(np.int32))

    with ThreadPoolExecutor(len(states)) as pool:
        for which, (scores, chosen) in enumerate(pool.map(slate, range(len(states)))):
            rows = np.arange(sizes[which])
            expected = alone.score_items(states[which], twins.items.take(rows))
            np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
            assert_twins(scores, twins.expected(which)[rows])
            assert_twins(chosen, twins.expected(which)[rows])
    assert shared._rank.batches < shared._rank.calls == len(states)


def test_twin_of_nothing(twins: Twins, onnx: OnnxScorer) -> None:
    state = onnx.context_state(twins.contexts[0])
    nothing = twins.items.take(np.zeros(0, np.int64))
    assert onnx.score_items(state, nothing).shape == (0,)
    g, beta = onnx.item_side(nothing)
    assert g.shape == (0, onnx.vector_size) and beta.shape == (0,)
    assert onnx.score_catalogue(state, g, beta, np.zeros(0, np.int32)).shape == (0,)
    assert onnx.top_catalogue(state, g, beta, 5)[0].shape == (0,)


def test_a_context_of_two_rows_is_refused(twins: Twins) -> None:
    two = EncodedSide.concatenated(twins.contexts[:2])
    with pytest.raises(ValueError, match="expected one encoded row, found 2"):
        OnnxScorer(twins.artefact, CPU, 1, 0.0).context_state(two)
