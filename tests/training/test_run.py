"""The RUN folder: resumption, bytes, and what a damaged or foreign one gets."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.training.prepared_log import prepare_log
from training.batches import Layout
from training.errors import UsageError
from training.models import FAMILIES
from training.prepared import Prepared
from training.run import Run, fit
from training.trainers.checkpoint import read_arrays, write_arrays
from training.trainers.settings import FitSettings

SETTINGS = FitSettings(dim=4, learning_rate=0.1, batch_size=64, epochs=4, patience=4, field_init_std=0.3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    return prepare_log(tmp_path_factory.mktemp("log"))


class Stop(Exception):
    pass


def stop_after(epoch):
    def on_epoch(report, best):
        if report.epoch == epoch:
            raise Stop

    return on_epoch


def interrupted(prepared, settings, out, after):
    with pytest.raises(Stop):
        fit(prepared, settings, out, on_epoch=stop_after(after))


@pytest.mark.parametrize("optimiser", ["adagrad", "adam"])
@pytest.mark.parametrize(
    ("family", "gradual"),
    [
        ("dplr", False),
        ("pruned_fwfm", True),
        ("fm", False),
        ("rafm", False),
        ("nfm", False),
        ("afm", False),
        ("llfm", False),
    ],
)
def test_resumed_equals_uninterrupted_to_the_byte(prepared, tmp_path, family, gradual, optimiser):
    rate = 0.1 if optimiser == "adagrad" else 0.01
    settings = replace(SETTINGS, model=family, gradual=gradual, optimiser=optimiser, learning_rate=rate)
    if FAMILIES[family].compiled is False:
        settings = replace(settings, hidden=(6,), dropout=0.3)  # the same units are dropped again
    if family == "llfm":  # with anchors that move, so that they have to be restored
        settings = replace(settings, locality="jo" if optimiser == "adam" else "apl", l2=0.01, anchors=9, init_std=0.1)
    whole = fit(prepared, settings, tmp_path / "whole")
    interrupted(prepared, settings, tmp_path / "parts", after=2)
    parts = fit(prepared, settings, tmp_path / "parts", resume=True)
    for name in ("weights.safetensors", "run.json"):
        left, right = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "parts"))
        if name == "run.json":
            left, right = (json.loads(b) for b in (left, right))
            for run in (left, right):
                for epoch in run["history"]:
                    del epoch["rows_per_second"], epoch["seconds"]
        assert left == right, name
    arrays = [read_arrays(tmp_path / folder / "checkpoint.safetensors")[0] for folder in ("whole", "parts")]
    for name, array in arrays[0].items():
        assert array.tobytes() == arrays[1][name].tobytes(), name
    assert whole.metrics == parts.metrics


def test_killed_in_the_middle_resumes_to_the_same_bytes(prepared, tmp_path):
    """SIGKILL, at no chosen moment, to the real command."""
    command = [sys.executable, "-m", "training", "fit", str(prepared.path), "--epochs", "20", "--patience", "20"]
    command += ["--batch-size", "4", "--dim", "4", "--resume", "--out"]
    running = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "checkpoint.safetensors").exists():
        assert running.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.01)
    running.kill()
    assert running.wait() == -9
    assert not json.loads((tmp_path / "killed" / "run.json").read_text())["finished"]
    for folder in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / folder)], check=True, capture_output=True)
    names = [tmp_path / folder / "weights.safetensors" for folder in ("killed", "whole")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_interrupted_before_the_first_epoch_starts_over(prepared, tmp_path):
    def tick(rows):
        raise Stop

    with pytest.raises(Stop):
        fit(prepared, SETTINGS, tmp_path / "run", tick=tick)
    assert fit(prepared, SETTINGS, tmp_path / "run", resume=True).finished
    fit(prepared, SETTINGS, tmp_path / "other")
    names = [tmp_path / folder / "weights.safetensors" for folder in ("run", "other")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_resume_with_more_epochs_continues(prepared, tmp_path):
    fit(prepared, replace(SETTINGS, epochs=2), tmp_path / "run")
    longer = fit(prepared, SETTINGS, tmp_path / "run", resume=True)
    fit(prepared, SETTINGS, tmp_path / "whole")
    assert len(longer.history) == 4
    names = [tmp_path / folder / "weights.safetensors" for folder in ("run", "whole")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_run_is_not_overwritten(prepared, tmp_path):
    fit(prepared, replace(SETTINGS, epochs=1), tmp_path)
    with pytest.raises(UsageError, match="there is a run already; add --resume"):
        fit(prepared, SETTINGS, tmp_path)


def test_resume_with_other_settings_names_the_setting(prepared, tmp_path):
    fit(prepared, replace(SETTINGS, epochs=1), tmp_path)
    with pytest.raises(UsageError, match=r"found dim = 5 instead of 4"):
        fit(prepared, replace(SETTINGS, dim=5), tmp_path, resume=True)


def test_resume_on_other_data_is_refused(prepared, tmp_path):
    fit(prepared, replace(SETTINGS, epochs=1), tmp_path / "run")
    (tmp_path / "log").mkdir()
    other = prepare_log(tmp_path / "log", seed=9)
    with pytest.raises(UsageError, match="was trained on other data"):
        fit(other, SETTINGS, tmp_path / "run", resume=True)


def test_unfinished_run_is_not_evaluated(prepared, tmp_path):
    interrupted(prepared, SETTINGS, tmp_path, after=1)
    with pytest.raises(UsageError, match="not finished; finish it with the same"):
        Run.open(tmp_path)


def test_damaged_checkpoint_is_named(prepared, tmp_path):
    interrupted(prepared, SETTINGS, tmp_path, after=1)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"checkpoint\.safetensors: expected arrays .*to start anew"):
        fit(prepared, SETTINGS, tmp_path, resume=True)


def test_another_models_arrays_are_refused(prepared, tmp_path):
    run = fit(prepared, replace(SETTINGS, epochs=1), tmp_path / "run")
    fit(prepared, replace(SETTINGS, model="fm", rank=None, dim=3, epochs=1), tmp_path / "fm")
    for name in ("weights", "checkpoint"):
        other = (tmp_path / "fm" / f"{name}.safetensors").read_bytes()
        (tmp_path / "run" / f"{name}.safetensors").write_bytes(other)
    layout = Layout.of(prepared.fields)
    with pytest.raises(
        UsageError, match=r"weights\.safetensors: expected a table of shape \(\d+, 5\), found \(\d+, 4\)"
    ):
        run.restore(layout)
    with pytest.raises(UsageError, match=r"'table': expected shape .* delete .*checkpoint\.safetensors to start anew"):
        fit(prepared, SETTINGS, tmp_path / "run", resume=True)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 99}', '{"format": 1, "settings": {"what": 1}}'])
def test_foreign_run_json_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match=r"run.json: expected a run of this version"):
        Run.open(tmp_path)


def test_moved_data_are_noticed(prepared, tmp_path):
    run = fit(prepared, replace(SETTINGS, epochs=1), tmp_path)
    with pytest.raises(UsageError, match=r"expected the data that .* was trained on"):
        replace(run, fingerprint="0" * 64).open_prepared()


def test_best_epoch_is_kept_not_the_last(prepared, tmp_path):
    run = fit(prepared, replace(SETTINGS, learning_rate=0.5, epochs=12, patience=3), tmp_path)
    assert run.best_epoch < len(run.history), "this small log overfits"
    best = run.history[run.best_epoch - 1]
    assert run.metrics["valid"]["log_loss_uncalibrated"] == pytest.approx(best["valid_loss"], abs=1e-6)


def test_arrays_and_note_survive_the_file(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b.c": np.zeros(0, dtype=np.float32)}
    write_arrays(tmp_path / "x", arrays, {"n": 1, "list": [0.1, None]})
    found, note = read_arrays(tmp_path / "x")
    assert note == {"n": 1, "list": [0.1, None]}
    assert all(np.array_equal(found[k], v) and found[k].dtype == v.dtype for k, v in arrays.items())
    first = (tmp_path / "x").read_bytes()
    write_arrays(tmp_path / "x", arrays, {"list": [0.1, None], "n": 1})
    assert (tmp_path / "x").read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_splits_measured_after_every_epoch_survive_a_resumption(prepared, tmp_path):
    whole = fit(prepared, SETTINGS, tmp_path / "whole", each_epoch=("valid", "test"))
    with pytest.raises(Stop):
        fit(prepared, SETTINGS, tmp_path / "run", on_epoch=stop_after(2), each_epoch=("valid", "test"))
    run = fit(prepared, SETTINGS, tmp_path / "run", resume=True, each_epoch=("valid", "test"))
    assert [epoch["metrics"] for epoch in run.history] == [epoch["metrics"] for epoch in whole.history]
    best = run.history[run.best_epoch - 1]
    assert best["metrics"]["valid"]["log_loss"] == pytest.approx(best["valid_loss"], abs=1e-9)
    uncalibrated = run.metrics["test"]["log_loss_uncalibrated"]
    assert best["metrics"]["test"]["log_loss"] == pytest.approx(uncalibrated, abs=1e-12)
    assert all(epoch["seconds"] > 0 for epoch in run.history)
