from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from training.cli import main
from training.errors import UsageError
from training.prepare import prepare
from training.synthetic import synthesize
from training.synthetic_world import CHUNK_ROWS, FIELDS, World


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "log"
    synthesize(70_000, out, seed=5)
    return out


def test_same_seed_same_bytes_other_seed_other_bytes(log: Path, tmp_path: Path) -> None:
    synthesize(70_000, tmp_path / "again", seed=5)
    synthesize(70_000, tmp_path / "other", seed=6)
    for name in ("log.csv", "items.csv", "truth.json", "spec.toml"):
        assert (log / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (log / "log.csv").read_bytes() != (tmp_path / "other" / "log.csv").read_bytes()


def test_a_longer_log_begins_with_a_shorter_one(log: Path, tmp_path: Path) -> None:
    synthesize(66_000, tmp_path / "shorter", seed=5, users=3500, items=700)
    long, short = (p / "log.csv" for p in (log, tmp_path / "shorter"))
    assert long.read_bytes().startswith(short.read_bytes()[:1_000_000])


def test_clicks_come_with_the_stated_probability(log: Path) -> None:
    table = pa_csv.read_csv(log / "log.csv")
    p, click = (table.column(c).to_numpy() for c in ("true_probability", "click"))
    truth = json.loads((log / "truth.json").read_text())
    assert abs(click.mean() - 0.2) < 0.02 and truth["click_rate"] == pytest.approx(click.mean(), abs=1e-6)
    assert truth["log_loss"] == pytest.approx(log_loss(click, p), abs=1e-5)
    assert truth["auc"] == pytest.approx(roc_auc_score(click, p), abs=1e-4) and truth["auc"] > 0.75
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        part = (p >= low) & (p < high)
        assert abs(click[part].mean() - p[part].mean()) < 5 * np.sqrt(0.25 / part.sum())


def test_the_teacher_is_the_pairwise_sum(tmp_path: Path) -> None:
    world = World(3, 50, 20)
    drawn = world.draw(0, 40)
    scores = world._scores(drawn)
    matrix = np.array(world.describe()["field_matrix"])
    for i in range(40):
        v = [world.vectors[f][drawn.index[f][i]].astype(float) for f in FIELDS]
        plain = sum(float(world.linear[f][drawn.index[f][i]]) for f in FIELDS)
        plain += sum(matrix[a, b] * float(v[a] @ v[b]) for a in range(len(v)) for b in range(a))
        assert scores[i] == pytest.approx(plain, abs=1e-4)
        assert drawn.probability[i] == pytest.approx(1 / (1 + np.exp(-plain - world.bias)), abs=1e-4)


def test_users_follow_zipf(log: Path) -> None:
    users = pa_csv.read_csv(log / "log.csv").column("user_id").value_counts()
    counts = np.sort([c["counts"] for c in users.to_pylist()])[::-1]
    expected = 70_000 / np.sum(1 / np.arange(1, 3501))
    assert counts[0] == pytest.approx(expected, rel=0.05) and counts[9] == pytest.approx(expected / 10, rel=0.2)


def test_it_prepares_alike_from_csv_and_parquet(log: Path, tmp_path: Path) -> None:
    synthesize(70_000, tmp_path / "parquet", seed=5, form="parquet")
    assert pq.ParquetFile(tmp_path / "parquet" / "log.parquet").metadata.num_rows == 70_000
    one = prepare(log / "spec.toml", None, tmp_path / "one").open()
    two = prepare(tmp_path / "parquet" / "spec.toml", None, tmp_path / "two").open()
    assert one.info["rejected"] == {} and one.info["rows"] == 70_000
    assert [f.name for f in one.fields] == list(FIELDS)
    assert one.items is not None and len(one.items) == 700 and one.titles["i3"].startswith("Item 3 (k")
    for name in ("train", "valid", "test"):
        a, b = one.split(name), two.split(name)
        assert (a.encoded.rows == b.encoded.rows).all() and (a.encoded.multi_rows == b.encoded.multi_rows).all()
        assert (a.label == b.label).all() and (a.row_number == b.row_number).all()
    assert prepare("synthetic", log, tmp_path / "three").open().fingerprint == one.fingerprint


def test_a_pairwise_method_learns_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthesize(20_000, tmp_path / "log")
    assert main(["prepare", str(tmp_path / "log" / "spec.toml"), "--out", str(tmp_path / "prepared")]) == 0
    fit = ["fit", str(tmp_path / "prepared"), "--model", "fm", "--method", "bpr", "--epochs", "3"]
    assert main([*fit, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["recall@10"] > 0.15  # by chance 10 of 200 items: 0.05


def test_no_rows_and_a_folder_that_is_there_are_refused(log: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rows: expected at least 1, found 0"):
        synthesize(0, tmp_path / "none")
    with pytest.raises(UsageError, match="expected a folder that does not exist yet"):
        synthesize(10, log)
    assert synthesize(10, tmp_path / "ten")["rows"] == 10 and CHUNK_ROWS > 10
