"""Families and ranks side by side: the front, what is compared, the measured kernels, the command, its resumption."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_export.encoded import EncodedSide
from models_export.registry import Registry
from tests.training.prepared_log import prepare_log
from training.artefact import export_run
from training.batches import LabelledRows, Layout
from training.cli import main
from training.commands.compare import METRICS, MODELS
from training.comparison import COSTS, OF_LOSS, candidates
from training.comparison_chart import AXES, MARKERS, TITLES
from training.errors import UsageError
from training.pareto import pareto_front
from training.run import Run
from training.serving_cost import TOP_K, _Slates, _ways
from training.trainers.plain import predict

COST = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, float("inf")]) | st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(COST, COST)))
def test_the_front_is_what_no_other_point_beats(points):
    def beats(a, b):
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    assert pareto_front(points) == [not any(beats(other, point) for other in points) for point in points]


def test_the_front_of_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="expected numbers, found NaN"):
        pareto_front([(1.0, float("nan"))])


def labels(*models, ranks=range(1, 5), dim=8, n_fields=8):
    return [c.label for c in candidates(models or MODELS, ranks, dim, "logistic", n_fields)]


def test_ranks_that_the_fields_leave_room_for_are_compared():
    assert labels() == [
        "FM", "FwFM", "pruned FwFM rank 1", "pruned FwFM rank 2", "pruned FwFM rank 3",
        "DPLR rank 1", "DPLR rank 2", "DPLR rank 3", "DPLR rank 4", "RaFM 2, 8", "RaFM 4, 8", "RaFM 8, 16",
    ]  # fmt: skip
    assert labels("dplr", ranks=range(1, 10), n_fields=3) == ["DPLR rank 1", "DPLR rank 2"]
    assert labels("rafm", dim=1) == ["RaFM 1, 2"]
    with pytest.raises(UsageError, match="expected a rank that 3 fields leave room for"):
        labels("pruned_fwfm", n_fields=3)


def test_what_is_offered_is_what_there_is():
    assert tuple(TITLES) == tuple(MARKERS) == MODELS
    assert set(METRICS) == {metric for metrics in OF_LOSS.values() for metric in metrics}
    assert tuple(AXES) == tuple(COSTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    prepare_log(folder)
    return folder


def command(folder, *more):
    out = ["--out", str(folder / "out"), "--models", "fm", "dplr", "--max-rank", "1", "--dim", "3", "--seeds", "2"]
    return ["compare", str(folder / "prepared"), *out, "--epochs", "2", "--repetitions", "3", *more]


@pytest.fixture(scope="module")
def compared(folder):
    assert main(command(folder)) == 0
    return folder / "out"


def test_the_table_has_every_model_with_its_costs_and_the_command_that_publishes_it(compared, tmp_path, monkeypatch):
    found = json.loads((compared / "compare_small.json").read_text())
    assert [row["label"] for row in found["rows"]] == ["FM", "DPLR rank 1"] and found["metric"] == "auc"
    text = (compared / "compare_small.md").read_text()
    for row in found["rows"]:
        best = max(row["runs"], key=lambda run: run["valid"]["auc"])
        assert len(row["runs"]) == 2
        assert row["valid"]["auc"][0] == pytest.approx(np.mean([run["valid"]["auc"] for run in row["runs"]]))
        cost = row["cost"]
        assert 0 < cost["inline_quartiles_us"][0] <= cost["inline_us"] <= cost["inline_quartiles_us"][1]
        assert 0 < cost["ids_us"] < 1e6 and 0 < cost["weights_bytes"] < cost["artefact_bytes"]
        assert f"| {row['label']} | {row['valid']['auc'][0]:.4f} ± " in text
        if row["fronts"]:
            assert f"-{best['seed']} --registry" in row["publish"] and f"`{row['publish']}`" in text
    fastest = min(found["rows"], key=lambda row: row["cost"]["inline_us"])
    most_accurate = max(found["rows"], key=lambda row: row["valid"]["auc"][0])
    assert "inline" in fastest["fronts"] and most_accurate["fronts"] == ["inline", "ids", "size"]
    assert (compared / "compare_small.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(most_accurate["publish"])[1:]) == 0
    assert Registry(tmp_path / "registry").active("small") == "v000001"


def test_finished_runs_are_kept_and_missing_ones_trained(folder, compared, capsys):
    weights = {path.parent.name: path for path in (compared / "runs").glob("*/weights.safetensors")}
    before = {name: (path.read_bytes(), path.stat().st_mtime_ns) for name, path in weights.items()}
    assert sorted(before) == ["dplr-rank-1-1", "dplr-rank-1-2", "fm-1", "fm-2"]
    for path in (compared / "runs" / "fm-2").iterdir():
        path.unlink()
    assert main(command(folder, "--metric", "log_loss")) == 0
    said = capsys.readouterr()
    assert "3 of 4 runs are there already" in said.err and "FM, seed 2: auc" in said.err
    for name, path in weights.items():
        content, written = before[name]
        assert path.read_bytes() == content
        assert (path.stat().st_mtime_ns == written) == (name != "fm-2")
    assert json.loads((compared / "compare_small.json").read_text())["metric"] == "log_loss"


def joined(context, items):
    """The one context beside each item, encoded over both sides; one multi-valued field on each."""
    n, lengths = len(items), np.diff(items.multi_indptr)
    parts = np.split(np.arange(lengths.sum()), np.cumsum(lengths)[:-1])
    rows = np.hstack([np.repeat(context.rows, n, axis=0), items.rows])
    multi = [
        [(context.multi_rows, context.multi_weights), (items.multi_rows[p], items.multi_weights[p])] for p in parts
    ]
    flat = [pair for row in multi for pair in row]
    indptr = np.concatenate([[0], np.cumsum([len(r) for r, _ in flat])]).astype(np.int64)
    return EncodedSide(rows, indptr, np.concatenate([r for r, _ in flat]), np.concatenate([w for _, w in flat]))


@pytest.mark.parametrize("name", ["fm-1", "dplr-rank-1-1"])
def test_the_timed_kernels_score_as_the_trained_model(folder, compared, name, tmp_path):
    run = Run.open(compared / "runs" / name)
    prepared = run.open_prepared()
    export_run(run, prepared, "x", tmp_path / "x")
    slates = _Slates(prepared)
    ways = _ways(tmp_path / "x", slates)
    model, table = run.restore(Layout.of(prepared.fields))
    for number in (0, 17, 63):
        rows = joined(EncodedSide(*slates.contexts[number]), prepared.items.side)
        expected = predict(model, table, LabelledRows(rows, np.zeros(len(rows), np.float32)))
        best = slates.index[number][np.argsort(-expected[slates.index[number]], kind="stable")[:TOP_K]]
        index, scores = ways["ids"](number)
        np.testing.assert_allclose(scores, expected[best], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(index, best)
        np.testing.assert_array_equal(slates.index[number][ways["inline"](number)], best)


def test_without_a_catalogue_items_come_from_the_log(folder, compared, tmp_path):
    run = Run.open(compared / "runs" / "fm-1")
    prepared = replace(run.open_prepared(), items=None)
    export_run(run, prepared, "x", tmp_path / "x")
    slates = _Slates(prepared)
    assert list(_ways(tmp_path / "x", slates)) == ["inline"]
    assert slates.facts()["catalogue"] is False and slates.facts()["drawn_from"] == prepared.rows("test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "mse"], "--metric mse: expected auc or log_loss for labels that are clicks"),
        (["--models", "nfm"], "invalid choice: 'nfm'"),
        (["--dim", "4"], "found dim = 4 instead of 3; choose another --out"),
        (["--max-rank", "0"], "expected a whole number from 1 to 64, found 0"),
    ],
)
def test_mistakes_end_with_code_2(folder, compared, options, message, capsys):
    assert main(command(folder, *options)) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_prepared_ends_with_code_2(tmp_path, capsys):
    assert main(["compare", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "found no prepared.json" in capsys.readouterr().err
