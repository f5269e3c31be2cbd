"""Every registered family against the float64 oracle."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models_export.manifest import Manifest
from models_export.weights import check_weights
from tests import oracle
from tests.training.small_data import FIELDS, encoded
from tests.training.small_models import LAYOUT, small_model, small_settings
from training.batches import LabelledRows
from training.factorise import low_rank_matrix
from training.feature_table import FeatureTable
from training.models import FAMILIES, ModelShape
from training.models.pruned import gradual_sparsity, keep_mask, kept_pairs
from training.trainers.plain import predict
from training.trainers.settings import defaults

ORDER = sorted(range(len(FIELDS)), key=lambda f: FIELDS[f].kind == "multi")


def make(family, dim, rank, seed):
    return small_model(family, dim, rank, seed)


def manifest_of(family, dim, rank):
    family = FAMILIES[family].exported_as or family
    locality = small_settings("llfm").local_scheme if family == "llfm" else None
    return Manifest("m", family, "logistic", dim, FIELDS, rank if family == "dplr" else None, locality=locality)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@settings(max_examples=15, deadline=None)
@given(dim=st.integers(1, 9), rank=st.integers(1, 3), seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12))
def test_scores_equal_the_oracle(family, dim, rank, seed, n):
    model, table = make(family, dim, rank, seed)
    side = encoded(n, np.random.default_rng(seed))
    score = predict(model, table, LabelledRows(side, np.zeros(n, dtype=np.float32)))
    weights = model.weights(table)
    check_weights(weights, manifest_of(family, dim, rank))
    for i in range(n):
        fields = [[] for _ in FIELDS]
        oracle.place(fields, ORDER, side.n_multi, side, i)
        assert score[i] == pytest.approx(oracle.FORMULAS[weights.family](weights, fields), rel=1e-4, abs=2e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_has_settings_to_start_from(family):
    assert defaults(family, "logistic", "adagrad") and defaults(family, "squared", "adam")


def test_model_modules_do_not_import_the_service():
    for path in (Path(__file__).parents[2] / "training" / "models").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("service"), path


def test_dplr_equals_fwfm_with_its_matrix():
    """Proposition 1, with the 1/2 of equation 5."""
    dplr, table = make("dplr", 5, 2, 0)
    fwfm, _ = make("fwfm", 5, 2, 0)
    U, e = dplr.parameters["U"], dplr.parameters["e"]
    fwfm.parameters["pairs"][...] = (U.T * e @ U)[np.triu_indices(len(FIELDS), 1)]
    rows = LabelledRows(encoded(50, np.random.default_rng(1)), np.zeros(50, dtype=np.float32))
    np.testing.assert_allclose(predict(dplr, table, rows), predict(fwfm, table, rows), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "rank"), [("fwfm", None), ("pruned_fwfm", 9), ("dplr", 2), ("dplr", 3)])
def test_cross_init_pairs_context_with_item_fields(family, rank):
    m, n_context = 7, 3
    matrix = first_matrix(family, ModelShape(m, 4, rank, n_context, cross=True))
    context = np.arange(m) < n_context
    np.testing.assert_allclose(matrix, (context[:, None] != context).astype(float), atol=1e-3)


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("dplr", ModelShape(6, 4, 1, 2, cross=True)),
        ("dplr", ModelShape(6, 4, 2, 0, cross=True)),
        ("fwfm", ModelShape(6, 4, None, 6, cross=True)),
    ],
)
def test_cross_init_falls_back_to_fm(family, shape):
    """Rank 1 cannot hold the matrix of context with item, and with one side only there is none: all pairs start at
    1.
    """
    np.testing.assert_allclose(first_matrix(family, shape), 1 - np.eye(6), atol=1e-3)


def first_matrix(family, shape):
    model = FAMILIES[family](shape, np.random.default_rng(0), 0.0, 1e-5)
    weights = model.weights(FeatureTable(LAYOUT, np.zeros((1, shape.dim + 1), dtype=np.float32), "adagrad"))
    if weights.field_matrix is not None:
        return weights.field_matrix
    return low_rank_matrix(weights.U, weights.e)


def test_pruning_keeps_rho_m_plus_one_largest():
    assert kept_pairs(8, 1) == 9 and kept_pairs(8, 2) == 18 and kept_pairs(8, 9) == 28
    assert keep_mask(np.array([0.1, -3.0, 2.0, -0.2]), 2).tolist() == [False, True, True, False]
    assert keep_mask(np.array([1.0, -1.0, 1.0]), 2).tolist() == [True, True, False], "ties go to the earlier pair"
    model, table = make("pruned_fwfm", 3, 1, 0)
    matrix = model.weights(table).field_matrix
    assert np.count_nonzero(matrix) == 2 * 7
    dense = np.sort(np.abs(model.parameters["pairs"]))
    assert np.abs(matrix[matrix != 0]).min() == dense[-7]


def test_pruned_model_trains_dense_and_scores_pruned():
    model, table = make("pruned_fwfm", 3, 1, 0)
    gathered = table._forward(
        LabelledRows(encoded(20, np.random.default_rng(0)), np.zeros(20, np.float32)).window(0, 20)
    )
    assert not torch.allclose(model.logits(*gathered, training=True), model.logits(*gathered, training=False))


def test_gradual_pruning_follows_deeplights_schedule():
    assert gradual_sparsity(0.8, 0) == 0.0
    assert gradual_sparsity(0.8, 100) == pytest.approx(0.8 * 0.01)
    assert gradual_sparsity(0.8, 10**6) == pytest.approx(0.8)
    model, _ = make("pruned_fwfm", 3, 1, 0)
    model.gradual = True
    model.before_step(9)
    assert np.count_nonzero(model.parameters["pairs"]) == 15
    model.before_step(10**6)
    assert np.count_nonzero(model.parameters["pairs"]) == 7
