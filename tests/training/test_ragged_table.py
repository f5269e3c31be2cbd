"""RaFM's and DiFacto's table: Algorithm 1 against a plain torch transcription, storage, choice of the rank groups."""

import numpy as np
import pytest
import torch

from tests.training.small_data import FIELDS, MULTI, SINGLE, split
from tests.training.small_models import LAYOUT, small_model, small_settings
from training.batches import Batch, epoch_batches
from training.models import FAMILIES
from training.ragged_table import row_starts
from training.rank_choice import check_ranks, default_ranks
from training.rank_groups import feature_counts, rank_groups
from training.trainers.dense import DenseOptimiser
from training.trainers.plain import Trainer, mean_loss

RANKS = (2, 3, 5)


def features_of(batch: Batch, i: int) -> list[tuple[int, float]]:
    n_multi = len(MULTI)
    begin, end = batch.multi_indptr[i * n_multi], batch.multi_indptr[(i + 1) * n_multi]
    pairs = zip(batch.multi_rows[begin:end].tolist(), batch.multi_weights[begin:end].tolist(), strict=True)
    return [(row, 1.0) for row in batch.rows[i].tolist()] + list(pairs)


def clamped_score(vectors, linear, bias, groups, features, low, high):
    """Equation 8 by its definition: B_{low,high} of one example, every pair at its level clamped to [low, high]."""
    total = bias + sum(x * linear[row] for row, x in features)
    for i, (row_i, x_i) in enumerate(features):
        for row_j, x_j in features[i + 1 :]:
            level = max(low, min(high, int(groups[row_i]), int(groups[row_j])))
            total = total + x_i * x_j * (vectors[level - 1][row_i] @ vectors[level - 1][row_j])
    return total


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("optimiser", ["adagrad", "adam"])
def test_training_is_algorithm_1(optimiser, loss):
    """Three steps; the twin holds each level as one dense matrix and takes each gradient as Algorithm 1 lists it."""
    model, table = small_model("rafm", 5, 3, 7, loss=loss, optimiser=optimiser, l2_scope="all")
    ranks, groups = table.sizes, table.groups
    assert ranks == (1, 2, 5) and set(groups) == {1, 2, 3}
    small = DenseOptimiser(model.parameters, optimiser)

    vectors = [np.zeros((LAYOUT.n_features, rank), np.float32) for rank in ranks]
    for row in range(LAYOUT.n_features):
        at = table.start[row]
        for level in range(groups[row]):
            vectors[level][row] = table.values[at : at + ranks[level]]
            at += ranks[level]
    twins = [torch.tensor(v, requires_grad=True) for v in vectors]
    linear = torch.tensor(table.linear, requires_grad=True)
    bias = torch.tensor(model.parameters["bias"].copy(), requires_grad=True)
    parameters = [*twins, linear, bias]
    kind = torch.optim.Adagrad if optimiser == "adagrad" else torch.optim.Adam
    torch_optimiser = kind(parameters, lr=0.05)

    l2, l2_linear = 0.01, 0.002
    for step, batch in enumerate(epoch_batches(split(60, 0, loss), 20, 0, 0), start=1):
        label = torch.from_numpy(batch.label)
        gathered = table.gather(batch, needs_grad=True)
        score = model.logits(*gathered, training=True)
        (mean_loss(loss, score, label) + model.side_loss(loss, *gathered)).backward()
        table.step(0.05, l2, l2_linear, step)
        small.step(model.tensors, 0.05, step)

        levels = [
            torch.stack([
                clamped_score(twins, linear, bias[0], groups, features_of(batch, i), 1, p)
                for i in range(len(batch))
            ])
            for p in (1, 2, 3)
        ]  # fmt: skip
        np.testing.assert_allclose(score.detach(), levels[-1].detach(), rtol=1e-3, atol=1e-4)
        main = torch.autograd.grad(mean_loss(loss, levels[-1], label), parameters, retain_graph=True)
        gradients = [g.clone() for g in main]
        for p in (1, 2):
            target = levels[p].detach() if loss == "squared" else torch.sigmoid(levels[p].detach())
            beside = torch.autograd.grad(mean_loss(loss, levels[p - 1], target), twins[p - 1], retain_graph=True)[0]
            gradients[p - 1][groups > p] = beside[groups > p]
        for parameter, gradient, penalty in zip(parameters, gradients, [l2] * 3 + [l2_linear, 0.0], strict=True):
            parameter.grad = gradient + penalty * parameter.detach()
        torch_optimiser.step()
    for row in range(LAYOUT.n_features):
        at = table.start[row]
        for level in range(groups[row]):
            mine, its = table.values[at : at + ranks[level]], twins[level][row].detach().numpy()
            np.testing.assert_allclose(mine, its, rtol=5e-3, atol=2e-3, err_msg=f"feature {row}, level {level + 1}")
            at += ranks[level]
    np.testing.assert_allclose(table.linear, linear.detach(), rtol=5e-3, atol=1e-3)
    np.testing.assert_allclose(model.parameters["bias"], bias.detach(), rtol=1e-3)


def test_levels_are_b_1_p_by_definition():
    table = small_model("rafm", 7, 3, 2)[1]
    batch = split(30, 3).window(0, 30)
    levels, linear = (t.numpy() for t in table.gather(batch, needs_grad=False))
    vectors = [np.zeros((LAYOUT.n_features, rank)) for rank in table.sizes]
    for row in range(LAYOUT.n_features):
        at = table.start[row]
        for level in range(table.groups[row]):
            vectors[level][row] = table.values[at : at + table.sizes[level]]
            at += table.sizes[level]
    for i in range(30):
        for p in (1, 2, 3):
            expected = clamped_score(vectors, table.linear, 0.0, table.groups, features_of(batch, i), 1, p)
            assert levels[i, p - 1] + linear[i] == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("family", ["rafm", "difacto"])
def test_inactive_factors_are_not_stored(family):
    """Proposition 1: sum_p D_p |F_p| factors in memory; DiFacto: D_{k_i} per feature."""
    settings = small_settings(family, 12, 3, thresholds=(5, 9))
    trainer = Trainer(LAYOUT, split(60, 0), split(50, 1), settings)
    groups, ranks = trainer.table.groups, (3, 6, 12)
    at_least = [int((groups >= p).sum()) for p in (1, 2, 3)]
    assert at_least[0] > at_least[1] > at_least[2] > 0, "every group has features"
    factors = sum(d * n for d, n in zip(ranks, at_least, strict=True))
    if family == "difacto":
        factors = sum(ranks[group - 1] for group in groups)
    assert trainer.table.factors.size == factors
    assert trainer.table.values.size == factors + LAYOUT.n_features
    assert all(state.size == trainer.table.values.size for state in trainer.table.state)
    weights = trainer.model.weights(trainer.table)
    assert trainer.model.parameter_count(trainer.table) == factors + LAYOUT.n_features + 1
    if family == "rafm":
        assert weights.vectors.size == factors and weights.ragged.factors == factors
    else:
        assert weights.family == "fm" and np.count_nonzero(weights.vectors) == factors


def test_one_rank_is_an_fm():
    fm, fm_table = small_model("fm", 4)
    for family in ("rafm", "difacto"):
        model, table = small_model(family, 4, 1)
        assert set(table.groups) == {1} and table.sizes == (4,)
        table.values[...] = fm_table.values.ravel()
        batch = split(50, 0).window(0, 50)
        found, expected = (m.logits(*t.gather(batch, needs_grad=False)) for m, t in ((model, table), (fm, fm_table)))
        np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-4, atol=1e-4)
        assert model.side_loss("logistic", *table.gather(batch, needs_grad=True)) is None


@pytest.mark.parametrize("family", ["rafm", "difacto"])
def test_same_seed_same_bytes(family):
    def trained(seed):
        trainer = Trainer(LAYOUT, split(300, 0), split(50, 1), small_settings(family, 8, 2, seed=seed, epochs=2))
        trainer.run(lambda *_: None)
        return {name: array.tobytes() for name, array in trainer.arrays().items()}

    first, again, other = trained(1), trained(1), trained(2)
    assert first == again and first["factors"] != other["factors"] and first["groups"] == other["groups"]


def test_equation_17_takes_the_closest_rank_in_logarithms():
    ranks = (4, 32, 128)
    counts = np.array([0, 1, 4, 11, 12, 32, 63, 64, 65, 10**6])
    expected = [
        1 + int(np.argmin(np.abs(np.log(max(n, 1e-9)) - np.log(ranks)))) for n in counts
    ]  # fmt: skip
    assert rank_groups(counts, ranks).tolist() == expected == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]


def test_thresholds_are_exceeded():
    assert rank_groups(np.array([0, 10, 11, 50, 51]), (2, 4, 8), (10, 50)).tolist() == [1, 1, 2, 2, 3]


def test_counts_are_those_of_the_training_split(monkeypatch):
    monkeypatch.setattr("training.rank_groups.COUNTED_ROWS", 7)
    data = split(40, 0)
    counts = feature_counts(data, LAYOUT.n_features)
    assert counts.sum() == data.encoded.rows.size + data.encoded.multi_rows.size
    assert counts[3] == (data.encoded.rows[:, SINGLE.index(0)] == 3).sum()
    trainer = Trainer(LAYOUT, data, split(4000, 1), small_settings("rafm", 8, 2))
    np.testing.assert_array_equal(trainer.table.groups, rank_groups(counts, (4, 8)))


@pytest.mark.parametrize("bad", [-1, LAYOUT.n_features])
def test_rows_off_the_table_are_an_error_not_a_crash(bad):
    batch = split(9, 0).window(0, 9)
    batch.multi_rows[0] = bad
    with pytest.raises(ValueError, match=rf"expected 0 to {LAYOUT.n_features - 1}, found .*prepare the log again"):
        small_model("rafm")[1].gather(batch, needs_grad=True)


def test_the_whole_table_is_stepped_where_asked():
    """Rows that a batch does not touch shrink under L2 with "all", and stay with "touched"."""
    for scope, moves in (("touched", False), ("all", True)):
        model, table = small_model("rafm", 5, 2, l2_scope=scope)
        batch = split(2, 0).window(0, 2)
        untouched = np.setdiff1d(np.arange(LAYOUT.n_features), np.concatenate([batch.rows.ravel(), batch.multi_rows]))
        at = np.concatenate([np.arange(table.start[row], table.start[row + 1]) for row in untouched])
        before = table.values[at].copy()
        model.logits(*table.gather(batch, needs_grad=True), training=True).sum().backward()
        table.step(0.01, 0.1, 0.1, 1)
        assert (table.values[at] != before).all() == moves and (table.values[at] != before).any() == moves


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": (4, 4)}, r"ranks: expected 1 to 16 strictly increasing numbers from 1, found \[4, 4\]"),
        ({"ranks": (4.0, 8.0)}, "ranks: expected 1 to 16 strictly increasing numbers"),
        ({"ranks": (0, 8)}, "ranks: expected 1 to 16 strictly increasing"),
        ({"ranks": (2, 4)}, "ranks: expected the last one to be dim = 8"),
        ({"ranks": (2, 8), "thresholds": (1, 2)}, "thresholds: expected 1 strictly increasing numbers"),
        ({"model": "fm", "ranks": (2, 8)}, "ranks: expected with rafm or difacto, found with fm"),
        ({"l2_scope": "some"}, "l2_scope: expected one of touched, all, found 'some'"),
    ],
)
def test_a_bad_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        small_settings("rafm", 8).__class__(**{"model": "rafm", "dim": 8, **change})


def test_default_ranks_are_those_of_the_paper():
    assert default_ranks(256) == (64, 256) and default_ranks(3) == (1, 3) and default_ranks(1) == (1,)
    check_ranks(default_ranks(8), ())


@pytest.mark.parametrize("arrays", [{}, {"factors": np.zeros(3, np.float32)}])
def test_another_models_arrays_are_refused(arrays):
    settings = small_settings("rafm")
    with pytest.raises(ValueError, match="expected factors and groups"):
        FAMILIES["rafm"].table_of(LAYOUT, arrays, settings)
    groups = np.full(LAYOUT.n_features, 3, np.int32)
    with pytest.raises(ValueError, match=r"groups: expected .* numbers from 1 to 2"):
        FAMILIES["rafm"].table_of(LAYOUT, {"factors": np.zeros(3, np.float32), "groups": groups}, settings)
    with pytest.raises(ValueError, match=r"factors: expected .* numbers for these rank groups, found 3"):
        FAMILIES["rafm"].table_of(LAYOUT, {"factors": np.zeros(3, np.float32), "groups": groups - 1}, settings)


def test_row_starts():
    assert row_starts(np.array([1, 3, 2], np.int32), RANKS).tolist() == [0, 3, 14, 20]
    assert len(FIELDS) == LAYOUT.n_fields


@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("family", ["rafm", "difacto"])
def test_the_compiled_step_is_that_of_torch(family, loss):
    batch = split(150, 5, loss).window(0, 150)
    label = torch.from_numpy(batch.label)
    (model, table), (_, compiled) = (small_model(family, 9, 3, 4, loss=loss) for _ in range(2))
    gathered = table.gather(batch, needs_grad=True)
    mean = mean_loss(loss, model.logits(*gathered, training=True), label)
    beside = model.side_loss(loss, *gathered)
    (mean if beside is None else mean + beside).backward()
    found, slope = compiled.gradients(batch, float(model.parameters["bias"][0]), loss)
    assert found == pytest.approx(float(mean.detach()), rel=1e-4)
    assert slope == pytest.approx(float(model.tensors["bias"].grad[0]), rel=1e-3, abs=1e-5)
    np.testing.assert_allclose(compiled._grad, table._grad, rtol=1e-3, atol=1e-5)
    assert sorted(compiled._touched) == sorted(table._touched)
