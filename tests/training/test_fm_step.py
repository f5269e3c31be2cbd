"""The compiled FM step and comparison of mixtures against the torch path and the definitions they replace."""

import numpy as np
import pytest
import torch

from tests.training.test_mixing import LAYOUT, make, window
from training.fm_candidates import FMCandidates
from training.fm_step import fm_gradients
from training.mixing import Mixer, Pairs
from training.saliency import losses, weighted_saliency
from training.trainers.plain import mean_loss


def mixtures(n, count, seed):
    rng = np.random.default_rng(seed)
    first = np.sort(rng.integers(0, n, count))
    return Pairs(first, rng.integers(0, n, count), rng.uniform(0.5, 1.0, count).astype(np.float32))


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("mixed", [False, True])
def test_gradients_equal_torchs(loss, mixed):
    rows = window(70, 2)
    batch = Mixer(LAYOUT, rows)(mixtures(70, 90, 1)) if mixed else rows
    model, table = make("fm", 1)
    twin, other = make("fm", 1)
    expected = mean_loss(
        loss, twin.logits(*other.gather(batch, needs_grad=True), training=True), torch.from_numpy(batch.label)
    )
    expected.backward()
    found, slope, touched = fm_gradients(table, batch, float(model.parameters["bias"][0]), loss)
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)
    assert slope == pytest.approx(float(twin.tensors["bias"].grad), rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(table.grad, other.grad, rtol=1e-4, atol=1e-5)
    assert sorted(touched) == sorted(set(batch.rows.ravel()) | set(batch.multi_rows))
    other.step(0.1, 0.02, 0.01, 1)
    table.step_rows(touched, 0.1, 1, 0.02, 0.01)
    np.testing.assert_allclose(table.values, other.values, rtol=1e-3, atol=1e-4)
    assert not table.grad.any()


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_merits_equal_those_of_the_mixtures_themselves(loss, twice):
    rows, pairs = window(30, 5), mixtures(30, 200, 6)
    model, table = make("fm", 4)
    bias = float(model.parameters["bias"][0])
    batch = Mixer(LAYOUT, rows, twice)(pairs)
    candidates = FMCandidates(table, rows, twice)
    for refreshed in (False, True):
        if refreshed:
            candidates.refresh()
        found = candidates.merit(pairs, bias, loss, by_loss=True)
        np.testing.assert_allclose(found, losses(model, table, batch, loss), rtol=1e-3, atol=1e-4)
        found = candidates.merit(pairs, bias, loss, by_loss=False)
        np.testing.assert_allclose(found, weighted_saliency(model, table, batch, loss), rtol=1e-3, atol=1e-3)


def test_rows_off_the_table_are_an_error_not_a_crash():
    rows = window(5, 0)
    rows.rows[1, 1] = LAYOUT.n_features
    _, table = make("fm", 0)
    with pytest.raises(ValueError, match="prepare the log again"):
        fm_gradients(table, rows, 0.0, "logistic")
    with pytest.raises(ValueError, match="prepare the log again"):
        FMCandidates(table, rows, twice=False)
