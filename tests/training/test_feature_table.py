import numpy as np
import pytest
import torch

from tests.training.small_data import FIELDS, split
from training.batches import Layout, epoch_batches
from training.feature_table import FeatureTable
from training.models import FAMILIES, FactorModel, ModelShape
from training.trainers.dense import DenseOptimiser

LAYOUT = Layout.of(FIELDS)


def dense_gather(table, batch, componentwise):
    """The gather written with one dense matrix of feature values per batch; torch differentiates it."""
    n, single, multi = len(batch), LAYOUT.single, LAYOUT.multi
    x = torch.zeros(LAYOUT.n_fields, n, LAYOUT.n_features)
    squared = torch.zeros(n, LAYOUT.n_features)  # sum over occurrences of x^2
    for i in range(n):
        for j, f in enumerate(single):
            x[f, i, batch.rows[i, j]] += 1
            squared[i, batch.rows[i, j]] += 1
        for j, f in enumerate(multi):
            at = i * len(multi) + j
            for p in range(batch.multi_indptr[at], batch.multi_indptr[at + 1]):
                x[f, i, batch.multi_rows[p]] += float(batch.multi_weights[p])
                squared[i, batch.multi_rows[p]] += float(batch.multi_weights[p]) ** 2
    vectors, linear = table[:, :-1], table[:, -1]
    squares = squared @ (vectors * vectors)
    return x @ vectors, x.sum(0) @ linear, squares if componentwise else squares.sum(1)


@pytest.mark.parametrize("optimiser", ["adagrad", "adam"])
@pytest.mark.parametrize("family", sorted(f for f in FAMILIES if issubclass(FAMILIES[f], FactorModel)))
def test_row_wise_steps_equal_torchs_dense_optimiser(family, optimiser):
    """Three steps from the same start, each batch touching every row: the same parameters as torch.optim on dense
    tensors.
    """
    data = split(1200, 0)
    rng = np.random.default_rng(1)
    start = rng.normal(0, 0.3, (LAYOUT.n_features, 5)).astype(np.float32)
    shape = ModelShape(LAYOUT.n_fields, 4, 2, hidden=(5,))
    model, twin = (FAMILIES[family](shape, np.random.default_rng(2), 0.1, 0.5) for _ in range(2))
    table = FeatureTable(LAYOUT, start.copy(), optimiser, model.componentwise)
    small = DenseOptimiser(model.parameters, optimiser)
    dense = torch.tensor(start, requires_grad=True)
    parameters = [dense, *twin.tensors.values()]
    torch_optimiser = (
        torch.optim.Adagrad(parameters, lr=0.05) if optimiser == "adagrad" else torch.optim.Adam(parameters, lr=0.05)
    )
    l2, l2_linear = 0.01, 0.002
    for step, batch in enumerate(epoch_batches(data, 400, 0, 0), start=1):
        label = torch.from_numpy(batch.label)
        score = model.logits(*table.gather(batch, needs_grad=True), training=True)
        torch.nn.functional.binary_cross_entropy_with_logits(score, label).backward()
        table.step(0.05, l2, l2_linear, step)
        small.step(model.tensors, 0.05, step)

        torch_optimiser.zero_grad()
        expected = twin.logits(*dense_gather(dense, batch, model.componentwise), training=True)
        penalty = 0.5 * (l2 * (dense[:, :-1] ** 2).sum() + l2_linear * (dense[:, -1] ** 2).sum())
        (torch.nn.functional.binary_cross_entropy_with_logits(expected, label) + penalty).backward()
        torch_optimiser.step()
        np.testing.assert_allclose(score.detach(), expected.detach(), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(table.values, dense.detach().numpy(), rtol=1e-3, atol=1e-4)
    for name, tensor in twin.tensors.items():
        np.testing.assert_allclose(model.parameters[name], tensor.detach().numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimiser", ["adagrad", "adam"])
def test_field_parameters_learn_at_their_share_of_the_rate(optimiser):
    def moved(scale):
        parameters = {"bias": np.zeros(1, np.float32), "pairs": np.zeros(3, np.float32)}
        tensors = {name: torch.from_numpy(a).requires_grad_() for name, a in parameters.items()}
        small = DenseOptimiser(parameters, optimiser, scale)
        for step in (1, 2):
            for tensor in tensors.values():
                tensor.grad = torch.ones_like(tensor)
            small.step(tensors, 0.1, step)
        return parameters

    full, tenth = moved(1.0), moved(0.1)
    np.testing.assert_allclose(tenth["pairs"], 0.1 * full["pairs"], rtol=1e-5)
    np.testing.assert_array_equal(tenth["bias"], full["bias"])
    assert (full["pairs"] < 0).all()


def test_untouched_rows_keep_their_values_and_state():
    batch = next(epoch_batches(split(3, 0), 3, 0, 0))
    start = np.ones((LAYOUT.n_features, 3), dtype=np.float32)
    table = FeatureTable(LAYOUT, start.copy(), "adagrad")
    vectors, linear, norms = table.gather(batch, needs_grad=True)
    (vectors.sum() + linear.sum() + norms.sum()).backward()
    table.step(0.1, 0.1, 0.1, 1)
    touched = np.zeros(LAYOUT.n_features, dtype=bool)
    touched[batch.rows.ravel()] = True
    touched[batch.multi_rows] = True
    assert (table.values[~touched] == 1).all() and (table.state[0][~touched] == 0).all()
    assert (table.values[touched] < 1).all() and (table.state[0][touched] > 0).all()


@pytest.mark.parametrize("optimiser", ["adagrad", "adam"])
def test_a_whole_table_is_torchs_dense_optimiser(optimiser):
    rng = np.random.default_rng(0)
    start = rng.normal(0, 0.3, (LAYOUT.n_features, 4)).astype(np.float32)
    table = FeatureTable(LAYOUT, start.copy(), optimiser, whole=True)
    dense = torch.tensor(start, requires_grad=True)
    kind = torch.optim.Adagrad if optimiser == "adagrad" else torch.optim.Adam
    torch_optimiser = kind([dense], lr=0.01)
    for step, batch in enumerate(epoch_batches(split(15, 0), 3, 0, 0), start=1):
        vectors, linear, norms = table.gather(batch, needs_grad=True)
        (vectors.sum() + linear.sum() + norms.sum()).backward()
        table.step(0.01, 0.3, 0.1, step)
        torch_optimiser.zero_grad()
        vectors, linear, norms = dense_gather(dense, batch, False)
        penalty = 0.5 * (0.3 * (dense[:, :-1] ** 2).sum() + 0.1 * (dense[:, -1] ** 2).sum())
        (vectors.sum() + linear.sum() + norms.sum() + penalty).backward()
        torch_optimiser.step()
    np.testing.assert_allclose(table.values, dense.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [-1, LAYOUT.n_features])
def test_rows_off_the_table_are_an_error_not_a_crash(bad):
    batch = next(epoch_batches(split(3, 0), 3, 0, 0))
    batch.rows[1, 1] = bad
    table = FeatureTable(LAYOUT, np.ones((LAYOUT.n_features, 3), dtype=np.float32), "adagrad")
    with pytest.raises(ValueError, match=rf"expected 0 to {LAYOUT.n_features - 1}, found .*prepare the log again"):
        table.gather(batch, needs_grad=True)


def test_gradients_do_not_leak_into_the_next_step():
    first, second = epoch_batches(split(400, 0), 200, 0, 0)
    tables = []
    for repeat in range(2):
        table = FeatureTable(LAYOUT, np.ones((LAYOUT.n_features, 3), dtype=np.float32), "adagrad")
        for batch in (first, second):
            vectors, linear, _ = table.gather(batch, needs_grad=True)
            (vectors.sum() * (1 + repeat) / (1 + repeat) + linear.sum()).backward()
            table.step(0.0, 0.0, 0.0, 1)
        tables.append(table)
    assert not tables[0]._grad.any()
    np.testing.assert_array_equal(tables[0].state[0], tables[1].state[0])
