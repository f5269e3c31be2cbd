"""LLFM beside what all families share: local coding, k-means, the gradient step, its settings."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_export.locality import Locality
from tests import oracle
from tests.training.small_data import FIELDS, OFFSETS, encoded, split
from tests.training.small_models import LAYOUT, small_model, small_settings
from training.batches import LabelledRows
from training.commands.fit_options import MODELS
from training.k_means import k_means
from training.local_coding import CODES, code
from training.models import FAMILIES
from training.sparse_rows import SparseRows
from training.trainers.methods import make_trainer
from training.trainers.settings import FitSettings

SCHEMES = [("do", False), ("apl", False), ("jo", False), ("jo", True)]


def coded(distances, scheme, neighbours=3, beta=0.7, ratio=0.8, squared=False):
    m = len(distances)
    room = np.zeros(m, np.bool_), np.empty(m, np.int64), np.empty(m), np.empty(m)
    count, _ = code(np.asarray(distances, np.float64), CODES[scheme], neighbours, beta, ratio, squared, *room)
    return dict(zip(room[1][:count].tolist(), room[2][:count].tolist(), strict=True))


@pytest.mark.parametrize(("scheme", "squared"), SCHEMES)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 30), min_size=1, max_size=12), st.floats(0.01, 3))
def test_coding_is_the_oracles(scheme, squared, distances, ratio):
    neighbours = min(3, len(distances))
    expected = oracle.local_coding(Locality(scheme, len(distances), neighbours, 0.7, ratio, squared), distances)
    found = coded(distances, scheme, neighbours, ratio=ratio, squared=squared)
    assert sum(found.values()) == pytest.approx(1.0)
    for a in {*found, *expected}:
        assert found.get(a, 0.0) == pytest.approx(expected.get(a, 0.0), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 9), min_size=2, max_size=8), st.integers(0, 2**32 - 1))
def test_jo_minimises_its_objective(distances, seed):
    """No other point of the simplex has a lower |gamma|_2 + <gamma, u>."""
    u, rng = 0.8 * np.sqrt(distances), np.random.default_rng(seed)
    gamma = np.zeros(len(u))
    for a, value in coded(distances, "jo").items():
        gamma[a] = value

    def objective(g):
        return np.linalg.norm(g) + g @ u

    assert gamma.min() >= 0
    for _ in range(30):
        other = rng.dirichlet(rng.choice([0.1, 1.0], len(u)))
        for share in (1.0, 0.01):
            assert objective(gamma) <= objective(gamma + share * (other - gamma)) + 1e-9


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize(("scheme", "squared"), SCHEMES)
def test_one_step_follows_the_gradient(scheme, squared, loss):
    """Every parameter moves by minus the rate times the oracle's slope, found by finite differences; those of DO's
    anchors do not."""
    rate, scale = 1e-3, 0.5
    model, table = small_model("llfm", dim=3, locality=scheme, paper_compat=squared, loss=loss, anchors=5, neighbours=3,
                               anchor_lr_scale=scale, learning_rate=rate, l2=0.0, seed=4)  # fmt: skip
    label = np.array([1.0], np.float32)
    batch = LabelledRows(encoded(1, np.random.default_rng(7)), label).window(0, 1)
    fields = [[] for _ in FIELDS]
    order = sorted(range(len(FIELDS)), key=lambda f: FIELDS[f].kind == "multi")
    oracle.place(fields, order, LAYOUT.n_fields - batch.rows.shape[1], batch, 0)
    before = {name: array.copy() for name, array in table.arrays().items()}
    weights = model.weights(table)
    weights = replace(weights, **{name: np.array(getattr(weights, name), np.float64) for name in
                                  ("vectors", "linear", "anchor_bias", "anchors")})  # fmt: skip

    def of_oracle():
        score = oracle.llfm(weights, fields)
        return oracle.loss_of(loss, score, 1.0) * (0.5 if loss == "squared" else 1.0)

    rows = SparseRows.of(batch, LAYOUT.n_features)
    table.train(rows, label, np.zeros(1, np.int64), weights.bias, rate, 0)
    touched = {row for values in fields for row, _ in values}
    rng = np.random.default_rng(0)
    for name, array in table.arrays().items():
        plain = getattr(weights, name)
        moved = (array.astype(np.float64) - before[name]) / -rate
        if name == "anchors":
            plain, moved = plain.T, moved / scale
        places = [i for i in np.ndindex(plain.shape) if name == "anchor_bias" or i[0] in touched or rng.random() < 0.05]
        for place in places:
            kept = plain[place]
            either = []
            for shift in (1e-5, -1e-5):
                plain[place] = kept + shift
                either.append(of_oracle())
            plain[place] = kept
            slope = 0.0 if name == "anchors" and scheme == "do" else (either[0] - either[1]) / 2e-5
            assert moved[place] == pytest.approx(slope, rel=2e-2, abs=2e-3), (name, place)


def test_k_means_finds_what_is_there():
    """Three far groups of one-hot rows: each centre is the mean of one, and a fourth takes a lone row."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 300)
    index = np.stack([3 * group + rng.integers(0, 3, 300), np.full(300, 9)], 1)
    index[0] = (10, 11)
    x = np.full(index.shape, 4.0, np.float32)
    rows = SparseRows(np.arange(0, 602, 2), index.ravel().astype(np.int32), x.ravel())
    dense = np.zeros((300, 12))
    dense[np.arange(300)[:, None], index] = 4.0
    centres = k_means(rows, 12, 10, np.random.default_rng(1))
    again = k_means(rows, 12, 10, np.random.default_rng(1))
    assert centres.tobytes() == again.tobytes()
    distances = ((dense[:, :, None] - centres[None]) ** 2).sum(1)
    own = distances.argmin(1)
    assert distances.min(1).max() == pytest.approx(0.0, abs=1e-9), "ten centres for ten distinct rows"
    for c in range(10):
        np.testing.assert_allclose(centres[:, c], dense[own == c].mean(0), atol=1e-9)


def test_weights_shrink_every_thousand_steps():
    s = small_settings("llfm", l2=0.5, l2_linear=0.25, learning_rate=1e-9, init_std=0.1, epochs=1)
    trainer = make_trainer(LAYOUT, split(2000, 0), split(100, 1), s)
    first = trainer.table.vectors.copy()
    trainer.run(lambda *_: None)
    untouched = first != 0
    eta = [1e-9 / (1 + 0.5e-9 * t) for t in (999, 1999)]
    expected = np.prod([1 - 1000 * e * 0.5 for e in eta])
    np.testing.assert_allclose(trainer.table.vectors[untouched] / first[untouched], expected, rtol=1e-4)


def test_only_fixed_anchors_stay_where_k_means_put_them():
    moved = {}
    for scheme in ("do", "apl", "jo"):
        s = small_settings("llfm", locality=scheme, learning_rate=0.3, init_std=0.1, epochs=2)
        trainer = make_trainer(LAYOUT, split(500, 0), split(100, 1), s)
        first = trainer.table.anchors.copy()
        trainer.run(lambda *_: None)
        moved[scheme] = float(np.abs(trainer.table.anchors - first).max())
    assert moved["do"] == 0.0 and moved["apl"] > 1e-3 and moved["jo"] > 1e-3


def test_one_anchor_is_a_factorization_machine():
    model, table = small_model("llfm", anchors=1, neighbours=1, locality="do")
    weights = model.weights(table)
    side = encoded(9, np.random.default_rng(2))
    found = table.gather(LabelledRows(side, np.zeros(9, np.float32)).window(0, 9), needs_grad=False)[1].numpy()
    order = sorted(range(len(FIELDS)), key=lambda f: FIELDS[f].kind == "multi")
    for i in range(9):
        fields = [[] for _ in FIELDS]
        oracle.place(fields, order, side.n_multi, side, i)
        alone = replace(weights, family="fm", vectors=weights.vectors[:, 0], linear=weights.linear[:, 0],
                        bias=float(weights.anchor_bias[0]))  # fmt: skip
        assert found[i] == pytest.approx(oracle.fm(alone, fields), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "mixfm"}, "method: expected 'plain' with llfm"),
        ({"locality": "near"}, "locality: expected one of do, apl, jo"),
        ({"anchors": 0}, "anchors: expected at least 1"),
        ({"anchors": 5000}, "anchors: expected at most 1024"),
        ({"beta": -1.0}, "beta: expected at least 0.0"),
        ({"model": "fm", "optimiser": "sgd"}, "optimiser: expected adagrad or adam with fm"),
    ],
)
def test_a_bad_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        FitSettings(**{"model": "llfm"} | change)


def test_it_is_offered_and_not_mixed():
    assert "llfm" in MODELS and FAMILIES["llfm"].per_sample
    _, table = small_model("llfm")
    batch = split(3, 0).window(0, 3)
    with pytest.raises(NotImplementedError, match="sample by sample"):
        table.gather(batch, needs_grad=True)
    damaged = replace(batch, rows=batch.rows + int(OFFSETS[-1]))
    with pytest.raises(ValueError, match="prepare the log again"):
        table.gather(damaged, needs_grad=False)
