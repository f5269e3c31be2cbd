"""Loss landscape and long tail, drawn from the runs of a small experiment by the command itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.test_user_items import write
from training.cli import main
from training.interactions import Interactions
from training.plots.long_tail import recall_by_degree
from training.plots.loss_landscape import as_long_as
from training.prepare import prepare
from training.ranking import RankingSplit

EXPERIMENT = """
name = "small"
title = "Small"
paper = "none"
spec = "spec.toml"
metrics = ["recall@10", "ndcg@10", "epoch_s"]
seeds = [1]
notes = []
[settings]
model = "fm"
loss = "pairwise"
linear = false
dim = 4
learning_rate = 0.1
batch_size = 64
epochs = 4
[[rows]]
label = "BPR"
method = "bpr"
published = {}
[[rows]]
label = "APR"
method = "apr"
start_epoch = 2
published = {}
[[plots]]
kind = "loss_landscape"
rows = ["BPR", "APR"]
seed = 1
pairs = 50
[[plots]]
kind = "long_tail"
rows = ["BPR", "APR"]
edges = [0, 5, 8]
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    parts = ("".join(f"u{u} " + " ".join(f"i{i}" for i in rng.choice(30, n, replace=False)) + "\n" for u in range(30))
             for n in (9, 3))  # fmt: skip
    write(tmp_path, *parts)
    return tmp_path


def test_an_experiment_of_pairwise_rows_is_reproduced_with_its_pictures(log: Path) -> None:
    (log / "small.toml").write_text(EXPERIMENT)
    assert main(["reproduce", str(log / "small.toml"), "--data", str(log), "--out", str(log / "out")]) == 0
    found = json.loads((log / "out" / "small.json").read_text())
    assert "recall@10" in json.dumps(found)
    pictures = sorted(p.name for p in (log / "out").glob("*.png"))
    assert (
        len(pictures) == 3 and any("loss_landscape" in p for p in pictures) and any("long_tail" in p for p in pictures)
    )


def test_the_groups_recall_equals_a_double_loop(log: Path) -> None:
    task = RankingSplit(Interactions(prepare(log / "spec.toml", log, log / "p").open()), "test")
    edges = [1, 5, 8]
    best = np.stack([np.random.default_rng(u).permutation(30)[:7] for u in task.users.tolist()]).astype(np.int32)
    train = task.interactions.pairs("train")
    degree = [int((train.item == i).sum()) for i in range(len(task.interactions.items))]
    found, users = recall_by_degree(task, best, edges)
    for group in range(3):
        shares = []
        for place, user in enumerate(task.users.tolist()):
            wanted = task.relevant.items[task.relevant.indptr[user] : task.relevant.indptr[user + 1]].tolist()
            inside = [i for i in wanted if edges[group] <= degree[i] < [*edges, 10**9][group + 1]]
            if inside:
                shares.append(sum(i in best[place] for i in inside) / len(inside))
        assert users[group] == len(shares) and found[group] == pytest.approx(np.mean(shares) if shares else 0.0)
    assert (users > 0).sum() >= 2


def test_directions_are_as_long_as_the_vectors() -> None:
    rng = np.random.default_rng(0)
    table, noise = (rng.standard_normal((6, 5)).astype(np.float32) for _ in range(2))
    noise[2] = 0.0
    along = as_long_as(noise, table)
    lengths = np.linalg.norm(table[:, :4], axis=1)
    assert np.linalg.norm(along, axis=1) == pytest.approx(
        [n if i != 2 else 0.0 for i, n in enumerate(lengths)], rel=1e-5
    )
    assert not along[:, 4].any()
