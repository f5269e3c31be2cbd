"""``tune``: the search finds, stops, resumes, and writes a winner that ``reproduce`` takes."""

import json

import pytest

from tests.training.prepared_log import prepare_log, write_log
from training.cli import main
from training.errors import UsageError
from training.experiment import load_experiment
from training.prepare import prepare
from training.trainers.settings import FitSettings
from training.tuned_experiment import experiment_text
from training.tuning import TuneResult, tune

BASE = FitSettings(model="fm", rank=None, dim=3, batch_size=64, epochs=3, learning_rate=0.1, calibration="none")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_log(tmp_path_factory.mktemp("log"))


def test_the_command_finds_settings_continues_and_writes_an_experiment(prepared, tmp_path, capsys):
    command = ["tune", str(prepared.path), "--model", "fm", "--epochs", "2", "--out", str(tmp_path / "s")]
    command += ["--objective", "auc", "--range", "dim", "2", "5", "--range", "learning_rate", "0.01", "0.3"]
    assert main([*command, "--trials", "3", "--confirm", "1"]) == 0
    assert main([*command, "--trials", "5", "--confirm", "2"]) == 0
    out, err = capsys.readouterr()
    assert all(err.count(f"trial {n}: ") == 1 for n in range(5)), "an earlier trial was run again"
    best = json.loads((tmp_path / "s" / "best.json").read_text())
    assert best["trials"] == 5 and best["objective"] == "auc" and best["seeds"] == [1, 2, 3]
    assert 2 <= best["settings"]["dim"] <= 5 and 0.01 <= best["settings"]["learning_rate"] <= 0.3
    assert f"best validation auc {best['value']:.5f}, mean of 3 seeds" in out
    assert f"  learning_rate {best['settings']['learning_rate']:g}, l2 " in out

    winner = tmp_path / "s" / "winner.toml"
    assert f"next: ctrank-train reproduce {winner}" in out
    experiment = load_experiment(str(winner))
    settings = experiment.rows[0].settings.to_json() | {"seed": 1, "calibration": "platt"}
    assert json.loads(json.dumps(settings)) == best["settings"]
    assert experiment.seeds == (4, 5, 6) and experiment.metrics[0] == "auc"
    data = str(prepared.path.parent)
    assert main(["reproduce", str(winner), "--data", data, "--out", str(tmp_path / "r"), "--seeds", "1"]) == 0
    assert "| fm |" in capsys.readouterr().out

    assert main([*command[:-8], "--out", str(tmp_path / "s"), "--trials", "5"]) == 2
    assert "holds a study of other data, settings or objective" in capsys.readouterr().err


def test_the_best_trial_is_the_best_in_the_objectives_direction(prepared, tmp_path):
    for objective, first in (("auc", max), ("logloss", min), ("accuracy", max)):
        values = []
        result = tune(
            prepared, BASE, 3, tmp_path / objective, objective=objective, confirm=1,
            on_trial=lambda n, value, _, values=values: values.append(value),
        )  # fmt: skip
        assert result.value == first(v for v in values if v is not None)
    assert result.settings != BASE, "the search moved"


def test_the_start_is_the_first_trial(prepared, tmp_path):
    seen = []
    tune(prepared, BASE, 1, tmp_path, confirm=1, on_trial=lambda n, value, params: seen.append(params))
    assert seen[0]["learning_rate"] == BASE.learning_rate


def test_the_search_begins_where_the_command_line_says(prepared, tmp_path, capsys):
    command = ["tune", str(prepared.path), "--model", "dplr", "--dim", "2", "--epochs", "1", "--trials", "1"]
    named = ["--lr", "0.0321", "--l2", "1.5e-5", "--field-lr-scale", "0.77"]
    assert main([*command, *named, "--confirm", "1", "--out", str(tmp_path)]) == 0
    first = capsys.readouterr().err.split("trial 0: ")[1].splitlines()[0]
    assert "learning_rate 0.0321, l2 1.5e-05," in first and "field_lr_scale 0.77" in first


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the overflow that it is about
def test_a_diverging_trial_does_not_end_the_search(prepared, tmp_path):
    base = BASE.from_json(BASE.to_json() | {"loss": "squared", "epochs": 1})
    seen = []
    result = tune(
        prepared, base, 3, tmp_path / "some", ranges={"learning_rate": (0.1, 1e300)}, confirm=1,
        on_trial=lambda number, value, _: seen.append(value),
    )  # fmt: skip
    assert seen[0] == result.value < 1 and float("inf") in seen and result.settings.learning_rate == 0.1
    with pytest.raises(UsageError, match="expected a finished trial, found none of 2"):
        tune(prepared, base, 2, tmp_path / "all", ranges={"learning_rate": (1e18, 1e19)})


def test_hopeless_trials_are_cut_short(prepared, tmp_path):
    base = BASE.from_json(BASE.to_json() | {"epochs": 6, "patience": 6, "dim": 2})
    result = tune(prepared, base, 12, tmp_path, confirm=1)
    assert result.pruned > 0 and result.finished + result.pruned == 12


def test_an_interrupted_search_continues(prepared, tmp_path):
    def interrupt(number, value, params):
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(prepared, BASE, 4, tmp_path, on_trial=interrupt)
    numbers = []
    tune(prepared, BASE, 4, tmp_path, confirm=1, on_trial=lambda n, *_: numbers.append(n))
    assert numbers == [2, 3]


@pytest.mark.parametrize(
    ("options", "objective", "searched"),
    [
        (["--model", "dplr", "--method", "smfm", "--batch-size", "64"], "log_loss", "mix_alpha"),
        (["--model", "nfm", "--hidden", "4,3", "--objective", "auc"], "auc", "l2"),
        (["--model", "fm", "--method", "sharpcf", "--objective", "recall"], "recall@10", "trajectory_weight"),
        (["--model", "fm", "--method", "apr", "--valid-metric", "ndcg@20"], "ndcg@20", "perturbation"),
        (["--model", "llfm", "--anchors", "4"], "log_loss", "beta"),
        (["--model", "llfm", "--anchors", "4", "--locality", "jo", "--objective", "auc"], "auc", "lipschitz"),
    ],
)
def test_families_and_methods_are_tuned_alike(prepared, tmp_path, capsys, options, objective, searched):
    command = ["tune", str(prepared.path), "--dim", "3", "--epochs", "2", "--trials", "2", "--confirm", "1"]
    assert main([*command, *options, "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert f"best validation {objective} " in out and f"{searched} " in err
    experiment = load_experiment(str(tmp_path / "winner.toml"))
    best = json.loads((tmp_path / "best.json").read_text())
    found = json.loads(json.dumps(experiment.rows[0].settings.to_json())) | {"seed": 1}
    assert found | {"calibration": best["settings"]["calibration"]} == best["settings"]
    assert experiment.metrics[0] == objective


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "beauty"], "metric 'beauty': expected one of auc"),
        (["--objective", "parameters"], "expected a measure of predictions"),
        (["--objective", "mse"], "expected one that logistic loss has here: accuracy, auc"),
        (["--range", "learning_rate", "0.1", "0.01"], "--range learning_rate: expected LOW below HIGH"),
        (["--range", "learning_rate", "0.1", "x"], "--range learning_rate: expected two numbers, found 'x'"),
        (["--range", "learning_rate", "-1", "1"], "--range learning_rate: expected at least 0.0, found -1.0"),
        (["--range", "beauty", "1", "2"], "--range beauty: expected a setting that is a number"),
        (["--range", "seed", "1", "2"], "--range seed: expected a setting that is a number"),
        (["--range", "gradual", "0", "1"], "--range gradual: expected a setting that is a number"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(prepared, tmp_path, capsys, options, message):
    command = ["tune", str(prepared.path), "--model", "fm", "--trials", "1", "--out", str(tmp_path / "s"), *options]
    assert main(command) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert message in line


def test_the_winner_names_a_shipped_spec_or_brings_its_own(prepared, tmp_path):
    text = experiment_text(TuneResult(BASE, ("l2",), "log_loss", 0.5, 3, 1, (1,)), prepared, "movielens-1m")
    assert 'spec = "movielens-1m"' in text and 'best_epoch = "loss"' in text and "seeds = [2, 3, 4]" in text
    log = tmp_path / "log"
    log.mkdir()
    rated = prepare(write_log(log, label="rating"), log, log / "prepared", seed=7).open()
    squared = BASE.from_json(BASE.to_json() | {"loss": "squared", "mix_ratio": 0.5})
    text = experiment_text(TuneResult(squared, ("l2",), "rmse", 0.5, 3, 1, (1, 2, 3)), rated, "spec.toml")
    for part in (
        "split_seed = 7",
        'metrics = ["rmse", "mse"',
        "mix_ratio = 0.5",
        'loss = "squared"',
        "seeds = [4, 5, 6]",
    ):
        assert part in text
