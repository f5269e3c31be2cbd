"""Each family's kernel against the float64 oracle, and its paths against one another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models_export.encoded import EncodedSide
from models_export.manifest import COMPILED_FAMILIES
from models_export.weights import Weights, pack_rows
from service.kernels._simd import stride_of
from tests import oracle
from tests.service.kernels.cases import Case, arrays, cases, make_case, make_kernel

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
families = pytest.mark.parametrize("family", sorted(COMPILED_FAMILIES))


def magnitude(case: Case) -> np.ndarray:
    """Sum of the absolute values of all that a score adds up, per item: float32 rounding is relative to it."""
    w = case.weights
    if w.locality is not None:
        return local_magnitude(case)
    strength = 1.0
    if w.field_matrix is not None:
        strength = float(np.abs(w.field_matrix).max())
    elif w.U is not None and w.e is not None:
        strength = float((np.abs(w.e) @ np.abs(w.U) ** 2).max() + np.abs(w.U.T @ (w.e[:, None] * w.U)).max())
    result = []
    for i in range(len(case.items)):
        fields = oracle.values_by_field(case.manifest, case.context, case.items, i)
        features = [value for values in fields for value in values]
        linear = sum(x * abs(float(w.linear[row])) for row, x in features)
        pairs = 0.0
        for level in range(1, len(w.ranks) + 1) if w.groups is not None else [0]:
            vectors = [(x, vector_of(w, row, level)) for row, x in features]
            vector = sum((x * np.abs(v.astype(np.float64)) for x, v in vectors), np.zeros(1))
            pairs += strength * float(np.sum(vector**2))
        result.append(1e-3 + abs(w.bias) + linear + pairs)
    return np.array(result)


def local_magnitude(case: Case) -> np.ndarray:
    """Of an LLFM: the largest machine's, times what an error in a distance does to gamma."""
    w, result = case.weights, []
    assert w.locality is not None and w.anchors is not None and w.anchor_bias is not None
    for i in range(len(case.items)):
        fields = oracle.values_by_field(case.manifest, case.context, case.items, i)
        features = [value for values in fields for value in values]
        zeros = np.zeros(w.linear.shape[1])
        linear = sum((x * np.abs(w.linear[row]) for row, x in features), zeros)
        vector = sum((x * np.abs(w.vectors[row].astype(np.float64)) for row, x in features), zeros[:, None])
        far = (w.anchors.astype(np.float64) ** 2).sum(1) + sum((x * x + 2 * x for _, x in features), 0.0)
        steep = w.locality.beta + w.locality.ratio
        machines = np.abs(w.anchor_bias) + linear + (vector**2).sum(1)
        result.append(1e-3 + abs(w.bias) + machines.max() * (1 + steep * far.max()))
    return np.array(result)


def vector_of(w: Weights, row: int, level: int) -> np.ndarray:
    """A feature's vector; of a ragged model that of a level, which counts as zero where the feature has none."""
    if w.groups is None:
        return w.vectors[row]
    return oracle.level_vector(w, row, level) if w.groups[row] >= level else np.zeros(w.ranks[level - 1])


def check(case: Case, found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32 and found.shape == expected.shape
    error = np.abs(found - expected)
    allowed = 1e-5 * np.abs(expected) + 1e-6 * magnitude(case)
    assert (error <= allowed).all(), f"error {error.max()}, allowed {allowed[error.argmax()]}"


@families
@EXAMPLES
@given(st.data())
def test_scores_are_the_oracles(family: str, data: st.DataObject) -> None:
    case = data.draw(cases(family))
    state = case.kernel.context_state(arrays(case.context))
    assert state.shape == (case.kernel.state_size,)
    expected = oracle.scores(case.manifest, case.weights, case.context, case.items)
    check(case, case.kernel.score_items(state, arrays(case.items)), expected)


@pytest.mark.parametrize("n_items", [1, 6])
def test_items_of_a_large_table_are_scored_one_by_one(monkeypatch: pytest.MonkeyPatch, n_items: int) -> None:
    monkeypatch.setattr("service.kernels._projection._CACHED_BYTES", 0)
    case = make_case("dplr", dim=8, n_items=n_items, singles=(2, 5), multis=(1, 2))
    state = case.kernel.context_state(arrays(case.context))
    expected = oracle.scores(case.manifest, case.weights, case.context, case.items)
    check(case, case.kernel.score_items(state, arrays(case.items)), expected)


@families
@EXAMPLES
@given(st.data())
def test_precomputed_item_side_adds_up_to_the_score(family: str, data: st.DataObject) -> None:
    case = data.draw(cases(family))
    state = case.kernel.context_state(arrays(case.context))
    if family == "llfm":
        g = case.kernel.item_side(arrays(case.items))
        assert g.shape == (len(case.items), case.kernel.vector_size) and g.dtype == np.float32
        found = case.kernel.score_sums(state, g, np.arange(len(g), dtype=np.int32))
        check(case, found, oracle.scores(case.manifest, case.weights, case.context, case.items))
        return
    g, beta = case.kernel.item_side(arrays(case.items))
    assert g.shape == (len(case.items), case.kernel.vector_size) and g.dtype == np.float32
    alpha, a = case.kernel.query(state)
    expected = oracle.scores(case.manifest, case.weights, case.context, case.items)
    check(case, np.float32(alpha) + beta + g @ a, expected)


@families
@pytest.mark.parametrize("n_items", [0, 1, 2, 3, 4, 5, 7, 8, 9, 33])
def test_a_slate_is_its_items_one_by_one(family: str, n_items: int) -> None:
    case = make_case(family, dim=8, n_items=n_items, singles=(2, 5), multis=(1, 2))
    state = case.kernel.context_state(arrays(case.context))
    together = case.kernel.score_items(state, arrays(case.items))
    for i in range(n_items):
        alone = case.kernel.score_items(state, arrays(case.items.take(np.array([i]))))
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-5)


@families
def test_duplicate_items_score_the_same_wherever_they_stand(family: str) -> None:
    case = make_case(family, dim=8, n_items=3)
    state = case.kernel.context_state(arrays(case.context))
    index = np.array([1, 1, 0, 1, 2, 1, 1, 0, 1])
    scores = case.kernel.score_items(state, arrays(case.items.take(index)))
    for item in range(3):
        same = scores[index == item]
        np.testing.assert_allclose(same, same[0], rtol=1e-6, atol=1e-6)


@families
def test_a_context_state_does_not_depend_on_earlier_calls(family: str) -> None:
    case = make_case(family, dim=8)
    first = case.kernel.context_state(arrays(case.context))
    kept = first.copy()
    scores = case.kernel.score_items(first, arrays(case.items))
    other = make_case(family, dim=8, seed=1)
    case.kernel.context_state(arrays(other.context))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(case.kernel.score_items(first, arrays(case.items)), scores)


@families
@pytest.mark.parametrize(("dim", "rank"), [(64, 3), (32, 7), (20, 9)])
def test_more_accumulators_than_registers(family: str, dim: int, rank: int) -> None:
    case = make_case(family, dim=dim, rank=rank, singles=(3, 9), n_items=11, scale=0.3)
    state = case.kernel.context_state(arrays(case.context))
    expected = oracle.scores(case.manifest, case.weights, case.context, case.items)
    check(case, case.kernel.score_items(state, arrays(case.items)), expected)
    if family == "llfm":
        return
    g, beta = case.kernel.item_side(arrays(case.items))
    alpha, a = case.kernel.query(state)
    check(case, np.float32(alpha) + beta + g @ a, expected)


@families
def test_the_shape_of_the_paper(family: str) -> None:
    case = make_case(family, dim=8, rank=3, singles=(25, 38), multis=(0, 0), n_items=10, scale=0.2)
    state = case.kernel.context_state(arrays(case.context))
    expected = oracle.scores(case.manifest, case.weights, case.context, case.items)
    check(case, case.kernel.score_items(state, arrays(case.items)), expected)


@EXAMPLES
@given(st.data())
def test_sparse_pairs_are_dense_pairs_of_the_pruned_matrix(data: st.DataObject) -> None:
    case = data.draw(cases("pruned_fwfm"))
    dense = make_kernel(case.manifest, case.weights, "fwfm")
    state = case.kernel.context_state(arrays(case.context))
    np.testing.assert_array_equal(state, dense.context_state(arrays(case.context)))
    items = arrays(case.items)
    check(case, case.kernel.score_items(state, items), dense.score_items(state, items).astype(np.float64))


@families
def test_a_composite_of_one_value_of_weight_one_is_the_row_itself(family: str) -> None:
    case = make_case(family, dim=8, singles=(2, 2), multis=(0, 1), n_items=5)
    multi = case.manifest.offsets[case.manifest.kernel_order("item")[2]]
    index = np.arange(6, dtype=np.int64)
    rows = np.full(5, multi + 1, np.int32)
    one = EncodedSide(case.items.rows, index, rows, np.ones(5, np.float32))
    half = EncodedSide(case.items.rows, 2 * index, rows.repeat(2), np.full(10, 0.5, np.float32))
    state = case.kernel.context_state(arrays(case.context))
    expected = oracle.scores(case.manifest, case.weights, case.context, one)
    check(case, case.kernel.score_items(state, arrays(one)), expected)
    if family == "llfm":  # halves are another point: anchors lie elsewhere to it
        check(
            case,
            case.kernel.score_items(state, arrays(half)),
            oracle.scores(case.manifest, case.weights, case.context, half),
        )
        return
    twice = case.kernel.score_items(state, arrays(half))
    if family in ("fm", "rafm"):
        # Over features, two halves of a value also interact with one another: 1/4 |v|^2.
        w = case.weights
        own = vector_of(w, multi + 1, 0 if w.groups is None else int(w.groups[multi + 1]))
        norm = float(np.sum(own.astype(np.float64) ** 2))
        expected = expected + 0.25 * norm
    check(case, twice, expected)


@families
def test_many_values_in_one_field(family: str) -> None:
    case = make_case(family, dim=8, most_values=200, n_items=2, scale=0.1, seed=5)
    assert np.diff(case.context.multi_indptr).max() > 50
    state = case.kernel.context_state(arrays(case.context))
    expected = oracle.scores(case.manifest, case.weights, case.context, case.items)
    check(case, case.kernel.score_items(state, arrays(case.items)), expected)


@pytest.mark.parametrize("dim", [1, 8, 13, 14, 16, 20, 24, 30, 64])
def test_kernels_read_rows_as_wide_as_the_artefact_packs_them(dim: int) -> None:
    case = make_case("fm", dim=8)
    manifest = case.manifest
    wide = type(manifest)(**{**manifest.__dict__, "dim": dim})
    assert stride_of(wide.kp) == wide.stride
    vectors = np.zeros((wide.n_features, dim), np.float32)
    weights = type(case.weights)("fm", vectors, case.weights.linear, 0.0)
    assert pack_rows(weights, wide).shape == (wide.n_features, stride_of(wide.kp))
