import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from training.metrics import (
    accuracy,
    auc,
    binary_metrics,
    expected_calibration_error,
    log_loss,
    mean_squared_error,
    reliability,
    sigmoid,
)


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    p = np.round(rng.random(2000), 2)  # rounded: many ties
    return (rng.random(2000) < p**1.3).astype(np.float32), p


def test_auc_counts_ties_half(predictions):
    y, p = predictions
    assert auc(y, p) == pytest.approx(oracle.roc_auc_score(y, p), abs=1e-12)
    assert auc([0, 1, 0, 1], [1, 1, 1, 1]) == 0.5
    assert auc([0, 0, 1], [0.1, 0.2, 0.3]) == 1.0


def test_auc_of_one_class_is_undefined():
    assert np.isnan(auc([1, 1], [0.1, 0.2]))
    assert "auc" not in {k for k, v in binary_metrics([1, 1], [0.1, 0.2], [0.5, 0.6]).items() if np.isfinite(v)}


def test_log_loss_and_mse(predictions):
    y, p = predictions
    inside = np.clip(p, 0.01, 0.99)
    assert log_loss(y, inside) == pytest.approx(oracle.log_loss(y, inside), rel=1e-12)
    assert mean_squared_error(y, p) == pytest.approx(oracle.mean_squared_error(y, p), rel=1e-12)


def test_accuracy(predictions):
    y, p = predictions
    assert accuracy(y, p) == pytest.approx(oracle.accuracy_score(y, p >= 0.5), abs=1e-12)
    assert accuracy([1, 0, 0, 1], [0.5, 0.5, 0.4, 0.1]) == 0.5
    assert binary_metrics(y, p, p)["accuracy"] == accuracy(y, p)


def test_log_loss_of_a_certain_error_is_finite():
    assert log_loss([1.0], [0.0]) == pytest.approx(-np.log(1e-7))


def test_sigmoid_does_not_overflow():
    with np.errstate(over="raise", invalid="raise"):
        assert sigmoid([-1000.0, 0.0, 1000.0]).tolist() == [0.0, 0.5, 1.0]


def test_reliability_table(predictions):
    y, p = predictions
    p = np.clip(p + 0.003, 0, 1)  # off the bin edges, whose side the oracle chooses differently
    table = reliability(y, p, 10)
    observed, predicted = calibration_curve(y, p, n_bins=10)
    np.testing.assert_allclose([b.positive_rate for b in table], observed)
    np.testing.assert_allclose([b.mean_probability for b in table], predicted)
    assert sum(b.count for b in table) == len(y)
    by_hand = sum(np.sum((p >= b.low) & (p < b.high)) * abs(b.mean_probability - b.positive_rate) for b in table)
    assert expected_calibration_error(table) == pytest.approx(by_hand / len(y), rel=0.01)


def test_reliability_includes_one_and_leaves_out_empty_bins():
    table = reliability([1, 0], [1.0, 0.0], 5)
    assert [(b.low, b.count) for b in table] == [(0.0, 1), (0.8, 1)]
