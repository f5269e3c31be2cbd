"""The ONNX graphs of every family, run by ONNX Runtime on the CPU: equal to the oracle and to the compiled kernels."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models_export.manifest import COMPILED_FAMILIES, FAMILIES
from models_export.onnx_files import GRAPHS
from service.scorers.numba_scorer import make_scorer
from tests import oracle
from tests.models_export.onnx_case import Case, Graphs, make_case
from tests.tiny_artefact import CONTEXT, item_rows, tiny_artefact


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)


@pytest.fixture(scope="module")
def graphs(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    return case.write(tmp_path_factory.mktemp("graphs"))


def expected(case: Case, context: int = 0) -> np.ndarray:
    one = case.contexts.take(np.array([context]))
    return oracle.scores(case.manifest, case.weights, one, case.items)


def assert_close(found: np.ndarray, scores: np.ndarray) -> None:
    np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-5 * max(float(np.abs(scores).max(initial=0)), 1.0))


def test_graphs_are_sound(graphs: Graphs) -> None:
    for name in GRAPHS:
        path = graphs.folder / name
        onnx.checker.check_model(str(path), full_check=True)
        onnx.shape_inference.infer_shapes_path(str(path), str(path.with_suffix(".inferred")), True, True, True)


def test_rank_equals_the_oracle(case: Case, graphs: Graphs) -> None:
    assert_close(graphs.rank(graphs.state(case.contexts), case.items, [1]), expected(case, 1))


def test_several_contexts_in_one_call(case: Case, graphs: Graphs) -> None:
    """Each item meets the state that its index names."""
    index = np.arange(len(case.items)) % 2
    scores = np.where(index == 0, expected(case, 0), expected(case, 1))
    assert_close(graphs.rank(graphs.state(case.contexts), case.items, index), scores)
    assert_close(graphs.score(case.contexts.take(index), case.items), scores)


def test_padding_says_nothing(case: Case, graphs: Graphs) -> None:
    state = graphs.state(case.contexts)
    assert_close(graphs.rank(state, case.items, padding=5), graphs.rank(state, case.items))


def test_precomputed_items_score_alike(case: Case, graphs: Graphs) -> None:
    state, sides = graphs.state(case.contexts), graphs.item(case.items)
    index = np.array([5, 0, 5, 2], np.int32)
    inputs = {"state": state, "state_index": np.ones(1, np.int32), "index": index} | sides
    assert_close(graphs.run("candidates", inputs)[0], expected(case, 1)[index])


def test_the_catalogues_best(case: Case, graphs: Graphs) -> None:
    """Exact, and ties by the lowest index: every item is there twice."""
    sides = {name: np.concatenate([value, value]) for name, value in graphs.item(case.items).items()}
    inputs = {"state": graphs.state(case.contexts)[:1], "k": np.array([5])} | sides
    top, index, scores = graphs.run("catalogue", inputs)
    assert_close(scores, np.tile(expected(case), 2))
    assert index.tolist() == np.argsort(-scores, kind="stable")[:5].tolist()
    assert top.tolist() == scores[index].tolist()


@pytest.mark.parametrize("singles", [(0, 3), (3, 0), (1, 0), (0, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_side_without_fields(family: str, singles: tuple[int, int], tmp_path: Path) -> None:
    case = make_case(family, singles=singles, multis=(0, 0), dense=(0, 0))
    graphs = case.write(tmp_path)
    assert_close(graphs.rank(graphs.state(case.contexts), case.items, [1]), expected(case, 1))
    assert_close(graphs.score(case.contexts.take(np.ones(len(case.items), np.int64)), case.items), expected(case, 1))


@pytest.mark.parametrize("family", COMPILED_FAMILIES)
def test_states_and_item_sides_are_those_of_the_kernels(family: str, tmp_path: Path) -> None:
    artefact = tiny_artefact(tmp_path / family, family, graphs=True)
    graphs, scorer = Graphs(artefact.path, artefact.manifest), make_scorer(artefact)
    context = artefact.encoder.encode_side("context", [CONTEXT])
    items = artefact.encoder.encode_side("item", item_rows(20, seed=1))
    state, sides = scorer.context_state(context), scorer.item_side(items)
    found = graphs.item(items)
    np.testing.assert_allclose(graphs.state(context), state[None], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["g"], sides[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["beta"], sides[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(graphs.rank(state[None], items), scorer.score_items(state, items), rtol=1e-5, atol=1e-5)


@st.composite
def cases(draw: st.DrawFn, family: str) -> Case:
    """Any small case, each side with one field or more."""
    singles = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    multis = draw(st.tuples(st.integers(int(singles[0] == 0), 2), st.integers(int(singles[1] == 0), 2)))
    return make_case(
        family,
        dim=draw(st.integers(1, 20)),
        rank=draw(st.integers(1, 4)),
        singles=singles,
        multis=multis,
        dense=draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        n_items=draw(st.integers(1, 5)),
        most_values=draw(st.integers(0, 4)),
        scale=draw(st.sampled_from([0.1, 0.5])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_shape_equals_the_oracle(family: str, data: st.DataObject) -> None:
    case = data.draw(cases(family))
    with TemporaryDirectory() as folder:
        graphs = case.write(Path(folder))
        scores = graphs.rank(graphs.state(case.contexts), case.items, [1])
    assert_close(scores, expected(case, 1))
