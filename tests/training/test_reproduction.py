"""Reproductions: a whole small one, resumption, what is kept, each metric at its own epoch, shipped experiments."""

import json
import re

import pytest

from tests.data_folder import data_folder
from tests.training.prepared_log import write_log
from training.cli import main
from training.experiment import load_experiment, parse_experiment, shipped_experiments
from training.progress import Silent
from training.reproduction import reproduce
from training.reproduction_report import check_claims, write_report
from training.spec import load_spec

SMALL = """
name = "small2024_dplr_small"
title = "Small"
paper = "Nobody, Nothing, 2024"
spec = "spec.toml"
metrics = ["mse", "rmse", "parameters", "epoch_s", "train_s"]
seeds = [1, 2]
notes = ["a small log"]
[settings]
loss = "squared"
dim = 3
batch_size = 64
epochs = 3
learning_rate = 0.1
[quick]
dim = 2
[[rows]]
label = "FM"
model = "fm"
published = { mse = 0.5 }
elsewhere = { "BARS" = { rmse = 0.7 } }
[[rows]]
label = "DPLR rank 1"
model = "dplr"
rank = 1
published = { mse = 0.4 }
note = "one of rank 1"
[[rows]]
label = "pruned rank 1"
model = "pruned_fwfm"
rank = 1
seeds = 1
[[claims]]
better = "DPLR rank 1"
than = "pruned rank 1"
[[claims]]
row = "FM"
over = "DPLR rank 1"
metric = "parameters"
at_most = 1.0
[[plots]]
kind = "curve"
x = "dim"
lines = { "all" = ["FM", "DPLR rank 1"] }
"""


@pytest.fixture
def small(tmp_path):
    write_log(tmp_path, label="rating")
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


def command(folder, *more):
    return ["reproduce", str(folder / "small.toml"), "--data", str(folder), "--out", str(folder / "out"), *more]


def test_a_reproduction_writes_its_table_and_keeps_finished_runs(small, capsys):
    assert main(command(small, "--jobs", "2")) == 0
    table, progress = capsys.readouterr()
    for part in (
        "| row | model | rank |",
        "| FM |",
        "| 0.5000 |",
        "| 0.7000 |",
        "a small log",
        "DPLR rank 1: one of rank 1",
        "DPLR rank 1 beats pruned rank 1 on mse: **",
        "parameters of FM over DPLR rank 1's at most 1: **holds** (ratio 0.9",
        "One seed only, for the time a run takes: pruned rank 1.",
        "seeds 1, 2; split seed 0",
    ):
        assert part in table, part
    assert len(re.findall(r"^\w.*, seed \d: mse ", progress, re.MULTILINE)) == 5
    out = small / "out"
    document = json.loads((out / "small2024_dplr_small.json").read_text())
    assert [len(row["runs"]) for row in document["rows"]] == [2, 2, 1]
    features = document["data"]["features"]
    assert [row["mean"]["parameters"] for row in document["rows"]] == [features * 4 + 1 + n for n in (0, 6, 6)]
    run = document["rows"][0]["runs"][0]
    assert run["test"]["rmse"] == pytest.approx(run["test"]["mse"] ** 0.5)
    assert 0 < run["test"]["epoch_s"] * 2 < run["wall_s"] and run["at_once"] == 2 and run["epochs_run"] == 3
    assert 2 * run["test"]["epoch_s"] < run["test"]["train_s"] < run["wall_s"]
    assert len(document["data"]["fingerprints"][0]) == 64 and document["machine"]["cores"] >= 1
    assert [v["holds"] for v in document["verdicts"]][1] is True
    for picture in ("small2024_dplr_small.png", "small2024_dplr_small.curve.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
        assert picture in (out / "small2024_dplr_small.md").read_text()

    runs = out / "small2024_dplr_small.work"
    weights = runs / "fm-1" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    interrupted = runs / "dplr-rank-1-2"
    (interrupted / "figure.json").unlink()
    (interrupted / "run.json").write_text(
        (interrupted / "run.json").read_text().replace('"finished": true', '"finished": false')
    )
    assert main(command(small)) == 0
    assert "4 of 5 runs are there already" in capsys.readouterr().err
    assert weights.stat().st_mtime_ns == before, "a finished run was trained again"
    again = json.loads((out / "small2024_dplr_small.json").read_text())
    for found in (document, again):  # the resumed run's clock and company are its own
        for key in ("wall_s", "at_once"):
            del found["rows"][1]["runs"][1][key]
        del found["wall_s"]
    assert again == document

    assert main(command(small, "--quick")) == 0
    assert "Quick run" in (out / "small2024_dplr_small.quick.md").read_text()
    quick = json.loads((out / "small2024_dplr_small.quick.json").read_text())
    assert [(r["settings"]["dim"], r["runs"][0]["epochs_run"]) for r in quick["rows"]] == [(2, 2)] * 3


def test_a_new_metric_is_measured_without_training_again(small, capsys):
    file, weights = small / "small.toml", small / "out" / "small2024_dplr_small.work" / "fm-1" / "weights.safetensors"
    file.write_text(SMALL.replace(', "rmse"', "").replace('elsewhere = { "BARS" = { rmse = 0.7 } }', ""))
    assert main(command(small, "--seeds", "1")) == 0
    before = weights.stat().st_mtime_ns
    file.write_text(SMALL)
    assert main(command(small, "--seeds", "1")) == 0
    assert weights.stat().st_mtime_ns == before
    assert "| 0.7000 |" in capsys.readouterr().out


def test_a_figure_of_before_a_setting_was_there_is_kept(small, capsys):
    assert main(command(small, "--seeds", "1")) == 0
    for name in ("run.json", "figure.json"):
        file = small / "out" / "small2024_dplr_small.work" / "fm-1" / name
        content = json.loads(file.read_text())
        del (content["settings"] if name == "run.json" else content["of"]["settings"])["lr_decay"]
        file.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(command(small, "--seeds", "1")) == 0
    assert "3 of 3 runs are there already" in capsys.readouterr().err


def test_changed_settings_want_another_folder(small, capsys):
    assert main(command(small, "--seeds", "1")) == 0
    (small / "small.toml").write_text(SMALL.replace("dim = 3", "dim = 4"))
    assert main(command(small, "--seeds", "1")) == 2
    assert "found dim = 4 instead of 3" in capsys.readouterr().err


def test_each_metric_is_taken_at_its_own_best_validation_epoch(small):
    text = SMALL.replace('"mse", "rmse", "parameters", "epoch_s", "train_s"', '"auc", "log_loss", "accuracy"')
    text = text.replace("squared", "logistic").replace("epochs = 3", "epochs = 8\npatience = 8").replace("0.1", "0.6")
    text = re.sub(r"(published|elsewhere) = .*", "", text[: text.index("[[claims]]")])
    write_log(small, label="click")
    experiment = parse_experiment(
        'best_epoch = "each metric"\n' + text.replace("spec.toml", str(small / "spec.toml")), "x"
    )
    options = {"seeds": 1, "quick": False, "jobs": 1, "progress": Silent()}
    result = reproduce(experiment, small, small / "out", **options)
    distinct = 0
    for figure in result.figures:
        history = json.loads((result.run_folder(figure.label, figure.seed) / "run.json").read_text())["history"]
        for name, sign in (("auc", 1), ("log_loss", -1), ("accuracy", 1)):
            valid = [sign * epoch["metrics"]["valid"][name] for epoch in history]
            assert figure.epochs[name] == valid.index(max(valid)) + 1
            assert figure.test[name] == history[figure.epochs[name] - 1]["metrics"]["test"][name]
        distinct += len(set(figure.epochs.values()))
    assert distinct > len(result.figures), "the metrics differ in their best epoch on this small log"
    assert "its own best validation figure" in write_report(result, small / "out")


def test_all_goes_on_where_one_experiment_cannot_be_run(small, capsys, monkeypatch):
    import training.experiment

    shipped = {"broken": str(small / "broken.toml"), "small2024_dplr_small": str(small / "small.toml")}
    (small / "broken.toml").write_text(SMALL.replace('spec = "spec.toml"', 'spec = "nothing"'))
    load = training.experiment.load_experiment
    monkeypatch.setattr(training.experiment, "shipped_experiments", lambda: sorted(shipped))
    monkeypatch.setattr(training.experiment, "load_experiment", lambda name: load(shipped[name]))
    assert main(["reproduce", "all", "--quick", "--data", str(small), "--out", str(small / "out")]) == 2
    out, err = capsys.readouterr()
    assert "| FM |" in out and "experiment 2 of 2: small2024_dplr_small" in err and "of 2 claims hold" in err
    assert err.splitlines()[-1] == "ctrank-train: 1 of 2 experiments could not be run (see above): broken"


def test_a_metric_that_the_loss_does_not_have_is_named(small, capsys):
    (small / "small.toml").write_text(SMALL.replace('"rmse"', '"auc"').replace("rmse", "auc"))
    assert main(command(small, "--quick")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "row 'FM': metric 'auc': expected one that its loss has on this data, found ['mse', 'rmse', 'rows']" in line


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the overflow that it is about
def test_a_diverging_row_is_named(small, capsys):
    (small / "small.toml").write_text(SMALL.replace("learning_rate = 0.1", "learning_rate = 1e18"))
    assert main(command(small, "--seeds", "1")) == 2
    assert "row 'FM', seed 1: epoch 1: " in capsys.readouterr().err


def test_another_split_for_each_seed(small):
    text = SMALL.replace("spec.toml", str(small / "spec.toml"))
    text = 'split_seed = "seed"\n' + text.replace("seeds = 1\n", "")
    options = {"seeds": None, "quick": False, "jobs": 1, "progress": Silent()}
    result = reproduce(parse_experiment(text, "x"), small, small / "out", **options)
    assert len(result.data["fingerprints"]) == 2
    assert {p.name for p in result.work.glob("data*")} == {"data-1", "data-2"}
    assert len(check_claims(result)) == 2


def test_shipped_experiments_are_named_after_their_file():
    assert "shtoff2024_dplr_movielens1m" in shipped_experiments()
    for name in shipped_experiments():
        assert load_experiment(name).name == name


@pytest.mark.parametrize("name", shipped_experiments())
def test_the_quick_run_of_every_shipped_experiment(name, tmp_path, capsys):
    data = data_folder(load_spec(load_experiment(name).spec).source.folder)
    assert main(["reproduce", name, "--quick", "--data", str(data.resolve()), "--out", str(tmp_path)]) == 0
    assert "Quick run" in capsys.readouterr().out
    assert json.loads((tmp_path / f"{name}.quick.json").read_text())["quick"] is True


def test_movielens_compares_equal_sizes_at_both_ranks():
    experiment = load_experiment("shtoff2024_dplr_movielens1m")
    assert len(experiment.seeds) == 3
    assert {c.rows for c in experiment.claims} >= {
        ("DPLR rank 1", "pruned rank 1"),
        ("DPLR rank 2", "pruned rank 2"),
    }
    for row in experiment.rows:
        assert row.settings.loss == "squared" and row.settings.dim == 8
        assert row.settings.rank == (int(row.label[-1]) if "rank" in row.label else None)
