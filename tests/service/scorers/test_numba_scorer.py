"""The compiled scorer of real artefacts against the oracle, over the whole way: file, encoder, kernel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models_export.manifest import COMPILED_FAMILIES, FAMILIES
from models_export.reader import Artefact
from service.scorers.numba_scorer import FAMILIES as COMPILED
from service.scorers.numba_scorer import KERNELS, make_scorer
from tests import oracle
from tests.tiny_artefact import CONTEXT, tiny_artefact


@pytest.fixture(params=sorted(COMPILED_FAMILIES))
def artefact(request: pytest.FixtureRequest, tmp_path: Path) -> Artefact:
    return tiny_artefact(tmp_path / "model", request.param, dim=5, rank=2)


def test_every_family_has_an_oracle_and_every_compiled_one_a_kernel() -> None:
    assert set(COMPILED) == set(COMPILED_FAMILIES)
    assert set(FAMILIES) == set(oracle.FORMULAS)


def test_scores_are_the_oracles(artefact: Artefact) -> None:
    scorer = make_scorer(artefact)
    assert artefact.items is not None
    items = artefact.items.side
    for values in (CONTEXT, {}, {"recent": {"i1": 0.5, "i9": 2.0}, "user_id": "nobody"}):
        context = artefact.encoder.encode_side("context", [values])
        expected = oracle.scores(artefact.manifest, artefact.weights(), context, items)
        state = scorer.context_state(context)
        assert state.dtype == np.float32 and state.shape == (scorer.state_size,)
        np.testing.assert_allclose(scorer.score_items(state, items), expected, rtol=1e-5, atol=1e-5)


def test_precomputed_item_side_gives_the_same_scores(artefact: Artefact) -> None:
    scorer = make_scorer(artefact)
    assert artefact.items is not None
    items = artefact.items.side
    state = scorer.context_state(artefact.encoder.encode_side("context", [CONTEXT]))
    g, beta = scorer.item_side(items)
    assert g.shape == (len(items), scorer.vector_size) and g.dtype == beta.dtype == np.float32
    direct = scorer.score_items(state, items)
    index = np.array([3, 3, 59, 0, 17], np.int32)
    np.testing.assert_allclose(scorer.score_catalogue(state, g, beta, index), direct[index], rtol=1e-5, atol=1e-5)
    chosen, best_scores = scorer.top_index(state, g, beta, index, 2)
    order = np.argsort(-scorer.score_catalogue(state, g, beta, index), kind="stable")[:2]
    np.testing.assert_array_equal(chosen, index[order])
    np.testing.assert_allclose(best_scores, direct[chosen], rtol=1e-5, atol=1e-5)
    if scorer.has_query:
        alpha, a = scorer.query(state)
        np.testing.assert_allclose(alpha + beta + g @ a, direct, rtol=1e-5, atol=1e-5)
    else:
        with pytest.raises(ValueError, match="no inner products"):
            scorer.query(state)
    best, scores = scorer.top_catalogue(state, g, beta, 7)
    everything = scorer.score_catalogue(state, g, beta, np.arange(len(items), dtype=np.int32))
    np.testing.assert_array_equal(best, np.argsort(-everything, kind="stable")[:7])
    np.testing.assert_array_equal(scores, everything[best])


def test_items_one_by_one_are_the_batch(artefact: Artefact) -> None:
    scorer = make_scorer(artefact)
    assert artefact.items is not None
    items = artefact.items.side
    state = scorer.context_state(artefact.encoder.encode_side("context", [CONTEXT]))
    batch = scorer.score_items(state, items)
    alone = [scorer.score_items(state, items.take(np.array([i])))[0] for i in range(len(items))]
    np.testing.assert_allclose(alone, batch, rtol=1e-5, atol=1e-6)


def test_an_empty_slate_has_no_scores(artefact: Artefact) -> None:
    scorer = make_scorer(artefact)
    assert artefact.items is not None
    state = scorer.context_state(artefact.encoder.encode_side("context", [CONTEXT]))
    nothing = artefact.items.side.take(np.zeros(0, np.int64))
    assert scorer.score_items(state, nothing).shape == (0,)
    g, beta = scorer.item_side(nothing)
    assert scorer.top_catalogue(state, g, beta, 5)[0].shape == (0,)
    assert scorer.score_catalogue(state, g, beta, np.zeros(0, np.int32)).shape == (0,)


def test_warm_leaves_nothing_to_compile(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import event

    scorer = make_scorer(artefact)
    scorer.warm()
    assert artefact.items is not None
    with event.install_recorder("numba:compile") as recorder:
        state = scorer.context_state(artefact.encoder.encode_side("context", [CONTEXT]))
        scorer.score_items(state, artefact.items.side)
        g, beta = scorer.item_side(artefact.items.side)
        scorer.top_catalogue(state, g, beta, 3)
        scorer.score_catalogue(state, g, beta, np.arange(3, dtype=np.int32))
    assert not recorder.buffer


def test_a_context_of_two_rows_is_refused(artefact: Artefact) -> None:
    with pytest.raises(ValueError, match="expected one encoded row, found 2"):
        make_scorer(artefact).context_state(artefact.encoder.encode_side("context", [CONTEXT, CONTEXT]))


def test_a_family_without_a_kernel_is_named(artefact: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in (COMPILED, KERNELS):
        monkeypatch.delitem(known, artefact.manifest.family, raising=False)
    with pytest.raises(ValueError, match=f"no compiled kernel for family '{artefact.manifest.family}'; there are"):
        make_scorer(artefact)


def test_threads_do_not_disturb_one_another(artefact: Artefact) -> None:
    scorer = make_scorer(artefact)
    assert artefact.items is not None
    items = artefact.items.side
    contexts = [artefact.encoder.encode_side("context", [{**CONTEXT, "user_id": f"u{i}"}]) for i in range(8)]
    g, beta = scorer.item_side(items)

    def work(i: int) -> tuple[np.ndarray, np.ndarray]:
        state = scorer.context_state(contexts[i % 8])
        return scorer.score_items(state, items), scorer.top_catalogue(state, g, beta, 5)[0]

    alone = [work(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for i, (scores, best) in enumerate(pool.map(work, range(200))):
            np.testing.assert_array_equal(scores, alone[i % 8][0])
            np.testing.assert_array_equal(best, alone[i % 8][1])
