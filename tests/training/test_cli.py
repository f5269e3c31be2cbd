"""``ctrank-train`` as a user meets it: every command end to end, its help, and one clear line for every mistake."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models_export.reader import read_artefact
from tests.training.prepared_log import write_log
from training.cli import COMMANDS, main, parser


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a prepared log, a dplr run and an fwfm run, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("work")
    spec = write_log(folder)
    assert main(["prepare", str(spec), "--data", str(folder), "--out", str(folder / "prepared")]) == 0
    for model in ("dplr", "fwfm"):
        command = [
            "fit",
            str(folder / "prepared"),
            "--model",
            model,
            "--dim",
            "4",
            "--epochs",
            "3",
            "--batch-size",
            "64",
        ]
        assert main([*command, "--out", str(folder / model)]) == 0
    return folder


def refused(capsys, *command: object) -> str:
    """The one line on stderr of a command that must end with exit code 2."""
    capsys.readouterr()
    assert main([str(c) for c in command]) == 2
    out, err = capsys.readouterr()
    lines = err.strip().splitlines()
    about = [line for line in lines if line.startswith("ctrank-train")]
    assert about == lines[-1:] and not out and "Traceback" not in err, err  # progress may stand above it
    return lines[-1]


@pytest.mark.parametrize("name", [c.__name__.rsplit(".", 1)[-1] for c in COMMANDS])
def test_every_command_is_documented(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"ctrank-train {name} " in text and "example" in text
    command = parser()._subparsers._group_actions[0].choices[name]
    assert all(action.help for action in command._actions), [a.dest for a in command._actions if not a.help]


@pytest.mark.parametrize("family", ["rafm", "difacto"])
def test_ragged_families_from_fit_to_artefact(family, work, tmp_path, capsys):
    run, registry = tmp_path / "run", tmp_path / "registry"
    command = ["fit", str(work / "prepared"), "--model", family, "--ranks", "2,5", "--thresholds", "40", "--l2-scope"]
    assert main([*command, "all", "--epochs", "2", "--batch-size", "64", "--out", str(run)]) == 0
    assert "ranks 2, 5" in capsys.readouterr().err
    assert json.loads((run / "run.json").read_text())["settings"]["thresholds"] == [40.0]
    assert main(["evaluate", str(run)]) == 0
    assert main(["export", str(run), "--registry", str(registry), "--name", "small"]) == 0
    artefact = read_artefact(registry / "small" / "v000001")
    if family == "rafm":
        assert artefact.ragged is not None and artefact.ragged.ranks == (2, 5) and artefact.manifest.dim == 5
        assert set(artefact.ragged.shape.groups) == {1, 2}
    else:
        assert artefact.manifest.family == "fm" and artefact.manifest.training["settings"]["model"] == "difacto"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "fm", "--ranks", "2,5"), "--ranks: expected with --model rafm or difacto, found with fm"),
        (("--model", "rafm", "--ranks", "5,2"), "--ranks: expected 1 to 16 strictly increasing numbers from 1"),
        (("--model", "rafm", "--ranks", "2,5", "--dim", "6"), "--dim 6: expected the last of --ranks, 5, or no --dim"),
        (("--model", "rafm", "--dim", "8", "--thresholds", "1,2"), "--thresholds: expected 1 strictly increasing"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(options, words, work, tmp_path, capsys):
    assert words in refused(capsys, "fit", work / "prepared", *options, "--out", tmp_path / "run")


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command.__name__.rsplit(".", 1)[-1] in text


def test_help_loads_neither_torch_nor_numba():
    code = "import sys; from training.cli import main; main(['fit', '-h']); print({'torch', 'numba'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip().endswith("set()")


def test_module_form_and_exit_codes_of_a_process(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "training", "evaluate", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 2 and found.stdout == "" and len(found.stderr.strip().splitlines()) == 1


def test_evaluate_prints_metrics_and_reliability(work, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(work / "dplr")]) == 0
    text = capsys.readouterr().out
    assert "auc" in text and "log_loss" in text and "predicted   observed" in text
    assert main(["evaluate", str(work / "dplr"), "--split", "valid", "--json", "--bins", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == "valid" and found["rank"] == 2
    assert 0.5 < found["metrics"]["auc"] <= 1
    assert sum(b["count"] for b in found["reliability"]) == found["metrics"]["rows"]


def test_fit_reports_json(work, tmp_path, capsys):
    capsys.readouterr()
    command = ["fit", str(work / "prepared"), "--model", "fm", "--epochs", "1", "--out", str(tmp_path / "r"), "--json"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert set(json.loads(out)["metrics"]) == {"valid", "test"}
    assert "epoch  1: train loss" in err and "rows/s" in err


def test_export_publishes_and_activates(work, tmp_path, capsys):
    command = ["export", str(work / "dplr"), "--registry", str(tmp_path), "--name", "small"]
    assert main([*command, "--activate"]) == 0
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "v000001 (active)" in out and "v000002 (not active; active is v000001)" in out
    assert read_artefact(tmp_path / "small" / "v000002").manifest.family == "dplr"


def test_data_that_were_moved_are_named(work, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    shutil.copytree(work / "prepared", moved)
    assert main(["evaluate", str(work / "dplr"), "--prepared", str(moved)]) == 0
    spec = write_log(tmp_path, seed=5)
    assert main(["prepare", str(spec), "--out", str(tmp_path / "other")]) == 0
    line = refused(capsys, "evaluate", work / "dplr", "--prepared", tmp_path / "other")
    assert f"{tmp_path / 'other'}: expected the data that" in line


def test_factorise_writes_spectra_and_a_run(work, tmp_path, capsys):
    out = tmp_path / "post"
    assert main(["factorise", str(work / "fwfm"), "--rank", "2", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "sigma 1" in text and "nuclear" in text and "pruned 10" in text
    assert len(json.loads((out / "spectrum.json").read_text())["field matrix"]) == 5
    assert (out / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    assert main(["evaluate", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "dplr"
    assert main(["export", str(out), "--registry", str(tmp_path / "reg"), "--name", "post"]) == 0
    assert "expected a folder that does not exist" in refused(
        capsys, "factorise", work / "fwfm", "--rank", "2", "--out", out
    )


def test_synth_prepare_fit(tmp_path, capsys):
    assert main(["synth", "--rows", "2000", "--out", str(tmp_path / "log")]) == 0
    assert main(["prepare", str(tmp_path / "log" / "spec.toml"), "--out", str(tmp_path / "p")]) == 0
    assert main(["fit", str(tmp_path / "p"), "--epochs", "1", "--out", str(tmp_path / "r")]) == 0
    assert "next: ctrank-train evaluate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "required: COMMAND"),
        (["fitt"], "invalid choice"),
        (["fit", "{work}/prepared", "--out", "{tmp}/r", "--l2-lin", "1"], "unrecognized arguments: --l2-lin"),
        (["fit", "{work}/prepared"], "required: --out"),
        (["fit", "{work}/nothing", "--out", "{tmp}/r"], "expected a folder made by ctrank-train prepare"),
        (["fit", "{work}/prepared", "--out", "{tmp}/r", "--lr", "nan"], "expected a number above 0, found nan"),
        (["fit", "{work}/prepared", "--out", "{tmp}/r", "--lr", "0"], "expected a number above 0, found 0"),
        (["fit", "{work}/prepared", "--out", "{tmp}/r", "--l2", "-1"], "expected a number of at least 0, found -1"),
        (["fit", "{work}/prepared", "--out", "{tmp}/r", "--dim", "x"], "expected a whole number, found 'x'"),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--dim", "0"],
            "expected a whole number from 1 to 1024, found 0",
        ),
        (["fit", "{work}/prepared", "--out", "{tmp}/r", "--model", "ffm"], "invalid choice: 'ffm'"),
        (["fit", "{work}/prepared", "--out", "{tmp}/r", "--model", "fm", "--rank", "2"], "expected with --model dplr"),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--gradual"],
            "expected with --model pruned_fwfm, found with dplr",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--candidates", "3"],
            "--candidates: expected with --method smfm or maxup, found with plain",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--method", "copy", "--paper-compat"],
            "--paper-compat: expected with --method mixfm or smfm or maxup, or with --locality jo, found with copy",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--anchors", "3"],
            "--anchors: expected with --model llfm, found with dplr",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--model", "llfm", "--lipschitz", "3"],
            "--lipschitz: expected with --locality jo, found with do",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--model", "llfm", "--method", "mixfm"],
            "--method mixfm: expected plain with --model llfm",
        ),
        (["fit", "{work}/prepared", "--out", "{tmp}/r", "--stop", "auc", "--loss", "squared"], "found with squared"),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--choose-once"],
            "expected with --method maxup, found with plain",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--model", "fm", "--hidden", "8"],
            "--hidden: expected with --model nfm or afm or dcn or deepfm, found with fm",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--model", "nfm", "--cross-layers", "2"],
            "--cross-layers: expected with --model dcn, found with nfm",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--model", "nfm", "--hidden", "8,x"],
            "as 128,64, found '8,x'",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--model", "nfm", "--dropout", "1"],
            "dropout: expected below 1",
        ),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--model", "afm", "--hidden", "8,4"],
            "hidden: expected one width, that of the attention, with afm",
        ),
        (["fit", "{work}/prepared", "--out", "{work}/dplr"], "there is a run already; add --resume"),
        (["fit", "{work}/prepared", "--out", "{work}/dplr", "--resume"], "expected the settings it was started with"),
        (
            ["fit", "{work}/prepared", "--out", "{tmp}/r", "--loss", "squared", "--lr", "1e18"],
            "try a lower learning rate",
        ),
        (["evaluate", "{work}"], "expected a RUN folder of 'ctrank-train fit'"),
        (["evaluate", "{work}/dplr", "--bins", "1"], "invalid choice: 1"),
        (["factorise", "{work}/dplr", "--rank", "1"], "expected a run of --model fwfm, found dplr"),
        (["factorise", "{work}/fwfm", "--rank", "6", "--out", "{tmp}/f"], "rank: expected 1 to 5"),
        (["export", "{work}/dplr", "--registry", "{tmp}", "--name", "../x"], "model name"),
        (["fit", "{work}/prepared", "--out", "{work}/spec.toml"], "spec.toml"),
        (["reproduce", "nobody1999"], "expected 'all', a .toml file or one of "),
        (["prepare", "no-such-spec", "--out", "{tmp}/p"], "expected a .toml file or one of"),
        (["synth", "--rows", "0", "--out", "{tmp}/l"], "expected a whole number at least 1"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(work, tmp_path, capsys, command, message):
    assert message in refused(capsys, *(c.format(work=work, tmp=tmp_path) for c in command))


def test_ratings_want_squared_loss(tmp_path, capsys):
    spec = write_log(tmp_path, label="rating")
    assert main(["prepare", str(spec), "--out", str(tmp_path / "p")]) == 0
    line = refused(capsys, "fit", tmp_path / "p", "--loss", "logistic", "--out", tmp_path / "r")
    assert "expected labels 0 and 1, found ratings" in line
    assert main(["fit", str(tmp_path / "p"), "--epochs", "1", "--out", str(tmp_path / "r")]) == 0
    assert main(["evaluate", str(tmp_path / "r"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.split("evaluate " + str(tmp_path / "r"), 1)[1])
    assert {"mse", "rmse"} <= set(found["metrics"]) and found["reliability"] == []


def test_an_unexpected_failure_is_one_line_and_exit_code_1(work, monkeypatch, capsys):
    from training.commands import evaluate

    def broken(_):
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(evaluate, "run", broken)
    assert main(["evaluate", str(work / "dplr")]) == 1
    assert capsys.readouterr().err == "ctrank-train: failed: RuntimeError: the disk is on fire\n"
