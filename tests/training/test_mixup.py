"""The mixup trainers: what they train on, that they are reproducible and resumable, when they stop."""

import numpy as np
import pytest

from tests.training.prepared_log import prepare_log
from tests.training.small_data import FIELDS, split
from training.batches import Layout
from training.commands.fit_options import METHODS as OFFERED
from training.metrics import auc
from training.mixing import Mixer
from training.models import FAMILIES
from training.run import fit
from training.saliency import losses, weighted_saliency
from training.trainers.methods import TRAINERS, make_trainer
from training.trainers.mixup import first_parents
from training.trainers.plain import predict
from training.trainers.settings import METHODS, MIXUP, FitSettings, method_defaults

LAYOUT = Layout.of(FIELDS)


def settings(**changes) -> FitSettings:
    base = {
        "dim": 4,
        "learning_rate": 0.01,
        "optimiser": "adam",
        "batch_size": 64,
        "epochs": 3,
        "candidates": 3,
        "hidden": (16,),
    }
    return FitSettings(**base | changes)


def trainer(n=300, **changes):
    return make_trainer(LAYOUT, split(n, 0), split(200, 1), settings(**changes))


def test_the_settings_and_the_command_line_name_the_same_methods():
    assert set(MIXUP) < set(TRAINERS) <= set(METHODS)
    assert METHODS == OFFERED


@pytest.mark.parametrize("method", MIXUP)
@pytest.mark.parametrize("family", sorted(f for f in FAMILIES if not FAMILIES[f].per_sample))
def test_every_method_trains_every_family(method, family):
    t = trainer(n=1000, method=method, model=family, epochs=12, field_init_std=0.3, init_std=0.1)
    t.run(lambda *_: None)
    least = 0.6 if method == "maxup" and not t.model.quadratic else 0.75  # the worst mixtures alone are hard to fit
    assert auc(t.valid.label, predict(t.model, t.table, t.valid)) > least


@pytest.mark.parametrize("method", MIXUP)
def test_resumed_equals_uninterrupted_to_the_byte(method, tmp_path):
    prepared = prepare_log(tmp_path)
    common = settings(method=method, model="fm", lr_decay=0.9)
    whole = fit(prepared, common, tmp_path / "whole")
    first = settings(method=method, model="fm", lr_decay=0.9, epochs=1)
    fit(prepared, first, tmp_path / "parts")
    parts = fit(prepared, common, tmp_path / "parts", resume=True)
    assert (whole.path / "weights.safetensors").read_bytes() == (parts.path / "weights.safetensors").read_bytes()
    assert whole.metrics == parts.metrics and whole.metrics["test"]["rows"] == parts.metrics["test"]["rows"]


@pytest.mark.parametrize("method", MIXUP)
def test_what_an_epoch_trains_on(method):
    t = trainer(method=method, mix_ratio=1.5)
    rows = t.settings.rows_per_epoch(300)
    assert rows == (450 if method == "maxup" else 750)
    epochs = [list(t.batches(number)) for number in (1, 1, 2)]
    assert [sum(len(b) for b in epoch) for epoch in epochs] == [rows] * 3
    first, again, other = (np.concatenate([b.multi_weights for b in epoch]) for epoch in epochs)
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any(), "regenerated every epoch"
    labels = np.concatenate([b.label for b in epochs[0]])
    soft = np.mean((labels > 0) & (labels < 1))
    assert soft == 0 if method == "copy" else 0.1 < soft < 0.6


@pytest.mark.parametrize(("extra", "least", "most"), [(4, 0, 1), (10, 1, 1), (23, 2, 3), (0, 0, 0)])
def test_first_parents_are_drawn_without_replacement(extra, least, most):
    counts = np.bincount(first_parents(10, extra, np.random.default_rng(0)), minlength=10)
    assert counts.sum() == extra and counts.min() >= least and counts.max() <= most


def test_shares_are_beta_folded_to_a_half_and_more():
    t = trainer(method="mixfm", mix_alpha=0.5)
    drawn = t._drawn(np.zeros(20_000, int), 300, np.random.default_rng(0))
    assert drawn.share.min() >= 0.5 and drawn.share.max() <= 1.0
    assert drawn.share.mean() == pytest.approx(0.5 + 1 / np.pi, abs=0.005)  # E max(s, 1 - s) of the arcsine law
    uniform = trainer(method="mixfm", mix_alpha=1.0)._drawn(np.zeros(20_000, int), 300, np.random.default_rng(0))
    assert uniform.share.mean() == pytest.approx(0.75, abs=0.005)
    assert set(drawn.second) == set(range(300)), "second parents are drawn from all rows"


@pytest.mark.parametrize("family", ["fm", "fwfm", "nfm"])
@pytest.mark.parametrize(("method", "merit"), [("smfm", weighted_saliency), ("maxup", losses)])
def test_the_best_candidate_is_taken(method, merit, family):
    t = trainer(method=method, candidates=7, model=family)
    t.table.values[...] = np.random.default_rng(5).normal(0, 0.5, t.table.values.shape)
    window = t.train.window(0, 300)
    mixer, first = Mixer(LAYOUT, window), np.arange(40)
    compare = t._saliency(mixer) if method == "smfm" else t._loss(mixer)
    best = t._best(compare, 300, first, np.random.default_rng(9))
    all_of_them = t._drawn(np.repeat(first, 7), 300, np.random.default_rng(9))
    of_all = merit(t.model, t.table, mixer(all_of_them), "logistic").reshape(40, 7)
    np.testing.assert_allclose(merit(t.model, t.table, mixer(best), "logistic"), of_all.max(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(best.first, first)
    assert (of_all.max(1) - of_all.mean(1)).min() > 0


@pytest.mark.parametrize("family", ["fm", "nfm"])
def test_maxup_may_choose_once_per_epoch(family):
    """Then all mixtures of an epoch are those that are worst under the parameters at its beginning."""
    once, each = (trainer(method="maxup", model=family, candidates=5, choose_once=flag) for flag in (True, False))
    for t in (once, each):
        t.table.values[...] = np.random.default_rng(5).normal(0, 0.5, t.table.values.shape)
    labels = []
    for t in (once, each):
        stream = t.batches(1)
        seen = [next(stream)]
        t.table.values[...] *= -1.0  # another model from the second step on
        labels.append(np.concatenate([b.label for b in [*seen, *stream]]))
    t = trainer(method="maxup", model=family, candidates=5, choose_once=True)
    t.table.values[...] = np.random.default_rng(5).normal(0, 0.5, t.table.values.shape)
    untouched = np.concatenate([b.label for b in t.batches(1)])
    np.testing.assert_array_equal(labels[0], untouched)
    assert len(labels[1]) == len(untouched) and (labels[1] != untouched).any()


def test_the_learning_rate_decays_by_epoch():
    """With one epoch the decay has no effect, with two it has."""
    for epochs, same in ((1, True), (2, False)):
        tables = []
        for decay in (1.0, 0.5):
            t = trainer(method="copy", lr_decay=decay, epochs=epochs)
            t.run(lambda *_: None)
            tables.append(t.table.values)
        assert np.array_equal(*tables) is same
    assert method_defaults("smfm", "fm") == method_defaults("copy", "dplr") == {"lr_decay": 0.99}
    assert method_defaults("mixfm", "fm") == method_defaults("plain", "nfm") == {}
    assert method_defaults("mixfm", "nfm") == {"mix_alpha": 1.0}


def history(*areas):
    return [{"valid_auc": area} for area in areas]


@pytest.mark.parametrize(
    ("areas", "stops"),
    [
        ((0.9, 0.8, 0.7, 0.6, 0.5), False),  # the first fall that counts is that of epoch 6
        ((0.9, 0.8, 0.7, 0.6, 0.5, 0.4), False),
        ((0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), True),
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.5), False),
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.4), False),
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.39), True),
    ],
)
def test_falls_of_auc_in_a_row_stop_training(areas, stops):
    s = settings(stop="auc", patience=2, stop_after=5)
    assert s.stops(history(*areas), best_epoch=1) is stops


def test_epochs_without_gain_stop_training():
    s = settings(patience=2)
    assert [s.stops(history(*[0.5] * n), best_epoch=2) for n in (2, 3, 4)] == [False, False, True]
    late = settings(patience=2, stop_after=5)
    assert [late.stops(history(*[0.5] * n), best_epoch=2) for n in (4, 6, 7)] == [False, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "mixup"}, "method: expected one of plain, copy, mixfm, smfm, maxup"),
        ({"mix_alpha": 0.0}, "mix_alpha: expected above 0, found 0.0"),
        ({"method": "maxup", "mix_ratio": 0.0}, "mix_ratio: expected above 0, found 0.0"),
        ({"candidates": 0}, "candidates: expected at least 1, found 0"),
        ({"stop": "auc", "loss": "squared"}, "stop: expected 'loss' with squared loss, found 'auc'"),
    ],
)
def test_a_bad_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        settings(**change)
