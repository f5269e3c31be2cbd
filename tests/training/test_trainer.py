from dataclasses import replace

import numpy as np
import pytest

from tests.training.small_data import FIELDS, split
from training.batches import Layout
from training.metrics import auc
from training.models import FAMILIES
from training.trainers.methods import make_trainer
from training.trainers.plain import Trainer, predict
from training.trainers.settings import FitSettings

LAYOUT = Layout.of(FIELDS)


def settings(**changes) -> FitSettings:
    base = {"dim": 4, "rank": 2, "learning_rate": 0.1, "batch_size": 64, "epochs": 6, "patience": 3, "hidden": (16,)}
    return FitSettings(**base | changes)


def train(s: FitSettings, n=1500):
    trainer = make_trainer(LAYOUT, split(n, 0, s.loss), split(400, 1, s.loss), s)
    trainer.run(lambda *_: None)
    return trainer


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_learns(family, loss):
    s = settings(model=family, loss=loss, epochs=12, rank=3)
    if family == "llfm":
        s = replace(s, locality="apl", anchors=8, learning_rate=0.3, init_std=0.1)
    trainer = train(s)
    score, label = predict(trainer.model, trainer.table, trainer.valid), trainer.valid.label
    if loss == "logistic":
        assert auc(label, score) > 0.8  # the label alone is worth 0.88
    else:
        assert np.mean((label - score) ** 2) < 0.35 * np.var(label)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("optimiser", ["adagrad", "adam"])
def test_same_seed_same_bytes(optimiser, threads):
    same = {"optimiser": optimiser, "learning_rate": 0.1 if optimiser == "adagrad" else 0.01, "threads": threads}
    a, b, c = (train(settings(**same, seed=seed, epochs=2)) for seed in (1, 1, 2))
    for name, array in a.arrays().items():
        assert array.tobytes() == b.arrays()[name].tobytes(), name
    assert a.table.values.tobytes() != c.table.values.tobytes()


def test_early_stopping_counts_epochs_without_gain():
    s = settings(model="fm", epochs=40, patience=2, learning_rate=0.5)
    state = train(s, n=300).state
    losses = [h["valid_loss"] for h in state.history]
    assert len(losses) < 40, "this small data set overfits"
    assert state.best_epoch == int(np.argmin(losses)) + 1
    assert state.epoch == state.best_epoch + 2


def test_loss_that_is_not_finite_is_an_error_with_a_remedy():
    with pytest.raises(FloatingPointError, match="lower learning rate than 1e"):
        train(settings(loss="squared", learning_rate=1e18))


def test_l2_shrinks_what_the_batches_touch():
    free, shrunk = (train(settings(model="fm", l2=l2, l2_linear=l2)) for l2 in (0.0, 0.05))
    assert np.abs(shrunk.table.values).sum() < 0.5 * np.abs(free.table.values).sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field_init": "crosss"}, "field_init: expected one of normal, cross, found 'crosss'"),
        ({"model": "ffm"}, "model: expected one of fm"),
        ({"dim": 0}, "dim: expected at least 1, found 0"),
        ({"l2": -1.0}, "l2: expected at least 0.0, found -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected at least 0.0, found nan"),
    ],
)
def test_a_bad_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        settings(**change)


def test_bias_starts_at_the_prior():
    for loss, expected in (("squared", np.mean), ("logistic", lambda y: np.log(y.mean() / (1 - y.mean())))):
        s = settings(loss=loss)
        trainer = Trainer(LAYOUT, split(500, 0, loss), split(50, 1, loss), s)
        assert trainer.model.parameters["bias"][0] == pytest.approx(expected(trainer.train.label), rel=1e-5)
