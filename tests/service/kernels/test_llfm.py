"""LLFM's neighbours at their extremes: none that is a number, all of them, and as many as JO's rule takes of fifty."""

from __future__ import annotations

import numpy as np
import pytest

from models_export.locality import Locality
from service.bench.local import local_table
from service.kernels.llfm import LlfmKernel
from service.kernels.side import single
from tests import oracle

ANCHORS, DIM, N_ROWS = 50, 10, 200
RNG = np.random.default_rng(3)
JO = {
    f"{'squared' if squared else 'plain'}-{ratio:g}": Locality("jo", ANCHORS, 5, 1.0, ratio, squared)
    for squared in (True, False)
    for ratio in (0.0, 0.02, 0.5, 3.0)
}


def kernel(locality: Locality, anchors: np.ndarray) -> LlfmKernel:
    table = local_table(np.random.default_rng(1), locality, N_ROWS)
    return LlfmKernel(locality, table, anchors, np.zeros(ANCHORS, np.float32), DIM, 0.1)


@pytest.mark.parametrize("name", JO)
def test_jo_takes_as_many_neighbours_as_its_rule(name: str) -> None:
    """Every machine scores the same number, its anchor's; so a score tells the gammas."""
    locality = JO[name]
    table = local_table(np.random.default_rng(1), locality, N_ROWS)
    table[:, locality.near :] = 0.0
    worth = np.linspace(-2.0, 5.0, ANCHORS, dtype=np.float32)
    made = LlfmKernel(locality, table, np.zeros((ANCHORS, 1), np.float32), worth, DIM, 0.0)
    context, items = single(RNG.integers(0, N_ROWS, (1, 3))), single(RNG.integers(0, N_ROWS, (40, 4)))
    found = made.score_items(made.context_state(context), items)
    taken = []
    for i in range(40):
        rows = np.concatenate([context[0][0], items[0][i]])
        distances = table[rows, :ANCHORS].astype(np.float64).sum(0)
        gamma = oracle.local_coding(locality, list(distances))
        taken.append(len(gamma))
        expected = sum(share * float(worth[a]) for a, share in gamma.items())
        assert found[i] == pytest.approx(expected, abs=1e-4 * (1.0 + locality.ratio))
    if locality.ratio == 0.0:
        assert set(taken) == {ANCHORS}
    else:
        assert len(set(taken)) > 1 or locality.ratio == 0.02


@pytest.mark.parametrize("scheme", ["do", "apl", "jo-squared", "jo-plain"])
def test_where_no_distance_is_a_number_there_is_no_score(scheme: str) -> None:
    name, _, how = scheme.partition("-")
    locality = Locality(name, ANCHORS, 5, 1.0, 0.5, how == "squared")
    made = kernel(locality, np.zeros((ANCHORS, 1), np.float32))
    context, items = single(RNG.integers(0, N_ROWS, (1, 2))), single(RNG.integers(0, N_ROWS, (9, 2)))
    state = made.context_state(context)
    assert np.isfinite(made.score_items(state, items)).all()
    state[:ANCHORS] = np.nan
    assert np.isnan(made.score_items(state, items)).all()
    state[:ANCHORS] = np.inf
    assert np.isnan(made.score_items(state, items)).all()
    state[7] = 3.0  # one number is enough
    assert np.isfinite(made.score_items(state, items)).all()
