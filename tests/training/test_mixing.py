"""Mixtures and saliency against their definitions (tests/oracle.py), for every family."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.training.small_data import FIELDS, MULTI, SINGLE, split
from tests.training.small_models import LAYOUT, small_model
from training.mixing import Mixer, Pairs
from training.models import FAMILIES
from training.saliency import feature_saliency, losses, weighted_saliency

ORDER = [*SINGLE, *MULTI]


def window(n, seed):
    return split(n, seed).window(0, n)


def fields_of(batch, i):
    fields = [[] for _ in FIELDS]
    if batch.mixed:
        oracle.place(fields, range(len(FIELDS)), len(FIELDS), batch, i)
    else:
        oracle.place(fields, ORDER, len(MULTI), batch, i)
    return fields


def pairs(n, count, rng):
    share = rng.uniform(0.5, 1.0, count).astype(np.float32)
    return Pairs(rng.integers(0, n, count), np.where(rng.random(count) < 0.8, rng.integers(0, n, count), -1), share)


def drawn(n, count, seed, twice=False):
    rows, chosen = window(n, seed), pairs(n, count, np.random.default_rng(seed))
    return rows, chosen, Mixer(LAYOUT, rows, twice)(chosen)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 9), count=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
def test_mixtures_equal_the_oracle(n, count, seed):
    rows, chosen, mixed = drawn(n, count, seed)
    assert len(mixed) == count and mixed.rows.shape == (count, 0)
    for i, (a, b, share) in enumerate(zip(chosen.first, chosen.second, chosen.share, strict=True)):
        expected = fields_of(rows, a)
        label = rows.label[a]
        if b >= 0:
            expected = oracle.mixture(expected, fields_of(rows, b), float(share))
            label = share * label + (1 - share) * rows.label[b]
        for mine, its in zip(fields_of(mixed, i), expected, strict=True):
            assert [row for row, _ in mine] == [row for row, _ in its]
            assert [x for _, x in mine] == pytest.approx([x for _, x in its], rel=1e-6)
        assert mixed.label[i] == pytest.approx(label, rel=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.6, 0.123456, 0.999])
def test_a_feature_of_both_parents_appears_once_with_weight_one(share):
    rows = window(1, 0)
    both = Pairs(np.zeros(1, int), np.zeros(1, int), np.array([share], np.float32))
    assert all(len({row for row, _ in values}) == len(values) for values in fields_of(rows, 0))
    mixed = Mixer(LAYOUT, rows)(both)
    for mine, its in zip(fields_of(mixed, 0), fields_of(rows, 0), strict=True):
        assert [row for row, _ in mine] == [row for row, _ in its]
        np.testing.assert_allclose([x for _, x in mine], [x for _, x in its], rtol=1e-7)
    twice = Mixer(LAYOUT, rows, twice=True)(both)
    assert len(twice.multi_rows) == 2 * len(mixed.multi_rows), "the paper's code lists it for each parent"


def test_twice_makes_an_fm_feature_interact_with_itself():
    """Difference of the two readings: lambda (1 - lambda) |v|^2 for each feature of both parents."""
    model, table = make("fm", 0)
    rows = window(1, 0)
    both = Pairs(np.zeros(1, int), np.zeros(1, int), np.array([0.7], np.float32))
    once, twice = (
        float(model.logits(*table.gather(Mixer(LAYOUT, rows, flag)(both), needs_grad=False)).detach()[0])
        for flag in (False, True)
    )
    norms = sum(
        x * x * oracle.dot(table.values[row, :-1], table.values[row, :-1])
        for values in fields_of(rows, 0)
        for row, x in values
    )
    assert twice - once == pytest.approx(0.7 * 0.3 * norms, rel=1e-4)


def make(family, seed):
    return small_model(family, 5, 2, seed, n_context=3, optimiser="adam")


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("family", sorted(f for f in FAMILIES if not FAMILIES[f].per_sample))
def test_scores_and_saliency_of_mixtures_equal_the_oracle(family, loss):
    model, table = make(family, 3)
    weights = model.weights(table)
    rows, _, mixed = drawn(12, 10, 4)
    for batch, order in ((mixed, range(len(FIELDS))), (rows, ORDER)):
        of_single, of_multi, weighted = feature_saliency(model, table, batch, loss)
        n_single, n_multi = batch.rows.shape[1], len(FIELDS) - batch.rows.shape[1]
        score = model.logits(*table.gather(batch, needs_grad=False)).detach()
        fast, loss_of_row = weighted_saliency(model, table, batch, loss), losses(model, table, batch, loss)
        for i in range(len(batch)):
            fields = fields_of(batch, i)
            assert float(score[i]) == pytest.approx(
                oracle.FORMULAS[weights.family](weights, fields), rel=1e-4, abs=1e-4
            )
            its_loss = oracle.loss_of(loss, oracle.FORMULAS[weights.family](weights, fields), float(batch.label[i]))
            assert loss_of_row[i] == pytest.approx(its_loss, rel=1e-3, abs=1e-4)
            expected = oracle.slopes(weights, fields, loss, float(batch.label[i]))
            for column, f in enumerate(order):
                if column < n_single:
                    found = [of_single[i, column]]
                else:
                    at = i * n_multi + column - n_single
                    found = of_multi[batch.multi_indptr[at] : batch.multi_indptr[at + 1]].tolist()
                np.testing.assert_allclose(found, expected[f], rtol=2e-3, atol=2e-3)
            product = sum(
                x * slope
                for values, its in zip(fields, expected, strict=True)
                for (_, x), slope in zip(values, its, strict=True)
            )
            assert weighted[i] == pytest.approx(product, rel=2e-3, abs=5e-3)
            assert fast[i] == pytest.approx(product, rel=2e-3, abs=5e-3)


def test_saliency_is_not_f_times_its_slope():
    """Equation 5's second form does not hold for an FM, whose pairwise term is of degree 2."""
    model, table = make("fm", 3)
    _, _, mixed = drawn(12, 10, 4)
    score = model.logits(*table.gather(mixed, needs_grad=False)).detach().numpy()
    wrong = (1 / (1 + np.exp(-score)) - mixed.label) * score
    assert np.abs(weighted_saliency(model, table, mixed, "logistic") - wrong).max() > 0.1


@pytest.mark.parametrize("family", sorted(f for f in FAMILIES if not FAMILIES[f].per_sample))
def test_gradients_of_unmixed_rows_are_those_of_the_rows(family):
    """A mixed batch of whole rows and the rows themselves change every parameter alike."""
    rows = split(200, 0).window(0, 200)
    changed = []
    for batch in (rows, Mixer(LAYOUT, rows)(Pairs.unmixed(np.arange(200)))):
        model, table = make(family, 1)
        model.logits(*table.gather(batch, needs_grad=True), training=True).square().sum().backward()
        table.step(0.1, 0.0, 0.0, 1)
        changed.append((table.values, {name: t.grad.numpy() for name, t in model.tensors.items()}))
    (table_a, dense_a), (table_b, dense_b) = changed
    np.testing.assert_allclose(table_a, table_b, rtol=1e-4, atol=1e-4)
    for name, gradient in dense_a.items():
        np.testing.assert_allclose(gradient, dense_b[name], rtol=1e-3, atol=1e-3)
