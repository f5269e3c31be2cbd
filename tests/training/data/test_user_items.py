"""Implicit logs with one user per line, and what prepare makes of positives only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data_folder import data_folder
from training.errors import UsageError
from training.interactions import Interactions
from training.prepare import prepare
from training.raw_log import Rejected, open_log
from training.raw_log import lines as lines_module
from training.spec import parse_spec

SPEC = """
name = "implicit"
[source]
format = "user-items"
[source.files]
train = ["train.txt"]
test = ["test.txt"]
[label]
kind = "implicit"
[split]
kind = "files"
valid_from_train = 0.2
seed = 1
[users]
id_field = "user"
[items]
id_field = "item"
[[fields]]
name = "user"
side = "context"
[[fields]]
name = "item"
side = "item"
"""


def write(folder: Path, train: str, test: str = "u1 i1\n") -> Path:
    (folder / "train.txt").write_text(train)
    (folder / "test.txt").write_text(test)
    (folder / "spec.toml").write_text(SPEC)
    return folder / "spec.toml"


@pytest.mark.parametrize("block_bytes", [16, 1 << 20])
def test_a_line_is_a_row_for_each_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", block_bytes)
    write(tmp_path, "u1 i1 i2\nu2\n  u3\ti3  i1 i3\n\nu1 i4\n", "u2 i9\n")
    rejected, rows = Rejected(), []
    for chunk in open_log(parse_spec(SPEC.encode(), "spec"), tmp_path).chunks(["item", "user"], rejected):
        names = (chunk.columns["user"].to_pylist(), chunk.columns["item"].to_pylist())
        rows += list(zip(*names, chunk.rows.tolist(), chunk.lines.tolist(), [chunk.split] * len(chunk), strict=True))
    assert rows == [
        ("u1", "i1", 0, 1, "train"),
        ("u1", "i2", 1, 1, "train"),
        ("u3", "i3", 2, 3, "train"),
        ("u3", "i1", 3, 3, "train"),
        ("u1", "i4", 5, 5, "train"),
        ("u2", "i9", 6, 1, "test"),
    ]
    assert rejected.counts == {"an item that its line repeats": 1, "blank line": 1}


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.txt: expected lines of a user and its items, found an empty file"):
        prepare(write(tmp_path, ""), tmp_path, tmp_path / "prepared")


def test_a_prepared_implicit_log_says_that_it_has_positives_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"u{u} " + " ".join(f"i{i}" for i in rng.choice(30, 8, replace=False)) for u in range(40)]
    report = prepare(write(tmp_path, "\n".join(lines) + "\n", "u0 i31\nu99 i1\n"), tmp_path, tmp_path / "prepared")
    assert "positives only" in report.summary() and "clicks" not in report.summary()
    prepared = report.open()
    assert prepared.task == "implicit" and prepared.user_id_field == "user"
    assert 0 < prepared.rows("valid") < prepared.rows("train") < 320 and prepared.rows("test") == 2
    assert all((prepared.split(s).label == 1.0).all() for s in ("train", "valid", "test"))
    found = Interactions(prepared)
    train, test = found.pairs("train"), found.pairs("test")
    assert found.n_users == 40 and len(found.items) == 31 and len(found.candidates) == 30  # i31: in the test file alone
    users, ids = list(prepared.encoder.tables["user"]), list(prepared.items.ids)
    assert test.user.tolist() == [users.index("u0"), -1]
    assert test.item[0] == -1 and ids[test.item[1]] == "i1"
    told = {(users[u], ids[i]) for u, i in zip(train.user.tolist(), train.item.tolist(), strict=True)}
    assert told < {(line.split()[0], item) for line in lines for item in line.split()[1:]}
    assert len(told) == prepared.rows("train")


def test_gowalla_has_its_published_split(tmp_path: Path) -> None:
    report = prepare("gowalla", data_folder("gowalla"), tmp_path / "prepared")
    rows = {s: report.info["splits"][s]["rows"] for s in ("train", "valid", "test")}
    assert rows["train"] + rows["valid"] == 810_128 and rows["test"] == 217_242 and report.rejected.total == 0
    assert abs(rows["valid"] / 810_128 - 0.05) < 0.001
    assert {f.name: f.size - 2 for f in report.open().fields} == {"user": 29_858, "item": 40_981}


def test_movielens_as_implicit_feedback_takes_every_rating(tmp_path: Path) -> None:
    report = prepare("movielens-1m-implicit", data_folder("ml-1m"), tmp_path / "prepared")
    assert report.info["rows"] == 1_000_209 and report.open().task == "implicit"
    assert Interactions(report.open()).n_users == 6040
