"""The pairwise methods as a user meets them: one clear line and exit code 2 for every mistake, memory stated, metrics
printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.test_user_items import write
from tests.training.prepared_log import write_log
from training.cli import main


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`implicit`: prepared positives; `clicks`: a prepared click log; `run`: a SharpCF run on the first."""
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    parts = ("".join(f"u{u} " + " ".join(f"i{i}" for i in rng.choice(30, n, replace=False)) + "\n" for u in range(30))
             for n in (9, 3))  # fmt: skip
    for name, make in (("implicit", lambda at: write(at, *parts)), ("clicks", write_log)):
        (folder / f"{name}.raw").mkdir()
        spec = make(folder / f"{name}.raw")
        assert main(["prepare", str(spec), "--data", str(folder / f"{name}.raw"), "--out", str(folder / name)]) == 0
    fit = ["fit", str(folder / "implicit"), "--model", "fm", "--method", "sharpcf", "--epochs", "2", "--dim", "4"]
    assert main([*fit, "--start-epoch", "1", "--out", str(folder / "run")]) == 0
    return folder


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        ("implicit", "--model fm", "--method plain: expected labels, found implicit feedback (positives only) in"),
        ("implicit", "--model fm --method mixfm", "--method mixfm: expected labels, found implicit feedback"),
        ("implicit", "--model dplr --method bpr", "--method bpr: expected --model fm, found --model dplr"),
        ("clicks", "--model fm --loss pairwise", "--loss pairwise: expected pairwise with --method bpr"),
        ("clicks", "--model fm --method bpr --loss logistic", "--loss logistic: expected pairwise with --method bpr"),
        ("clicks", "--model fm --method bpr --start-epoch 3", "--start-epoch: expected with --method apr or sharpcf"),
        ("clicks", "--model fm --no-linear", "--no-linear: expected with --method bpr or apr or sharpcf"),
        ("clicks", "--model fm --method bpr --valid-metric auc", "invalid choice: 'auc'"),
        ("clicks", "--model fm --method apr --perturbation 0", "expected a number above 0, found 0"),
        ("clicks", "--model fm --method bpr --lr 1e30 --epochs 3 --init-std 1", "try a lower learning rate than 1e+30"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, words: str, message: str
) -> None:
    capsys.readouterr()
    assert main(["fit", str(work / data), *words.split(), "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert message in err.strip().splitlines()[-1] and not out and "Traceback" not in err


def test_a_run_says_what_it_remembers_and_what_it_found(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((work / "implicit" / "prepared.json").read_text())["splits"]["train"]["rows"]
    fit = ["fit", str(work / "implicit"), "--model", "fm", "--method", "sharpcf", "--epochs", "2", "--eval-every", "2"]
    assert main([*fit, "--trajectory-epochs", "5", "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert f"past scores of 5 epochs: {rows * 20 / 1e6:.1f} MB of memory" in err
    assert "epoch  2: train loss" in err and "valid recall@10" in err and "test: recall@10" in out
    assert main(["evaluate", str(tmp_path / "run"), "--split", "train"]) == 0
    assert "recall@20" in capsys.readouterr().out


def test_evaluate_prints_recall_and_ndcg(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(work / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["metrics"]) == {"rows", "users", "recall@10", "ndcg@10", "recall@20", "ndcg@20"}
    assert found["reliability"] == [] and 0 < found["metrics"]["recall@20"] < 1
