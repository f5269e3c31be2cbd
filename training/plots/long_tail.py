"""Recall by how often an item occurs in the training split (SharpCF paper, figure 4)."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.ranking import RankingSplit
    from training.reproduction import Reproduction


def draw(result: Reproduction, figure: Figure, *, rows: list[str], edges: list[int], k: int = 20) -> str:
    """``rows``: labels of pairwise rows, all their seeds; ``edges``: ascending numbers of training positives that
    bound the groups (the last group is open). A group's recall: for each user with a test item in it, the share of
    these items among the user's best ``k`` of all items; mean over those users.
    """
    if len(edges) < 2 or any(a >= b for a, b in pairwise(edges)):
        raise UsageError(f"plot 'long_tail': edges: expected ascending numbers, found {edges}")
    from training.batches import Layout
    from training.interactions import Interactions
    from training.ranking import RankingSplit
    from training.run import Run

    names = [f"{a}-{b - 1}" for a, b in pairwise(edges)] + [f"{edges[-1]}+"]
    axes = figure.subplots()
    figure.set_size_inches(8, 4)
    width, users = 0.8 / len(rows), np.zeros(len(names), dtype=np.int64)
    task: RankingSplit | None = None
    for place, label in enumerate(rows):
        found = []
        for of_seed in result.of_row(label):
            run = Run.open(result.run_folder(label, of_seed.seed))
            prepared = run.open_prepared()
            if task is None or task.interactions.prepared.fingerprint != prepared.fingerprint:
                task = RankingSplit(Interactions(prepared), "test")
            table = run.restore_features(Layout.of(prepared.fields))
            recall, users = recall_by_degree(task, task.best(table, k), edges)
            found.append(recall)
        means = [statistics.fmean(values) for values in zip(*found, strict=True)]
        axes.bar(np.arange(len(names)) + (place - (len(rows) - 1) / 2) * width, means, width, label=label)
    axes.set_xticks(range(len(names)), [f"{name}\n{count:,} users" for name, count in zip(names, users, strict=True)])
    axes.set(xlabel="training positives of the item", ylabel=f"test recall@{k} within the group")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
    return f"test recall@{k} by how often an item occurs in training"


def recall_by_degree(
    task: RankingSplit, best: NDArray[np.int32], edges: list[int]
) -> tuple[list[float], NDArray[np.int64]]:
    """Each group's recall (0 where no user has an item in it), and how many users have one."""
    items = task.interactions.items
    degree = np.bincount(task.interactions.user_items("train").items, minlength=len(items))
    group = np.searchsorted(np.array(edges), degree, side="right") - 1  # -1: below the first edge
    relevant, hit = task.relevant, task.hits(best)
    n = len(edges)
    owner = np.repeat(np.arange(len(relevant.indptr) - 1), np.diff(relevant.indptr))
    wanted, got = np.zeros((len(relevant.indptr) - 1, n)), np.zeros((len(task.users), n))
    of_item = group[relevant.items]
    np.add.at(wanted, (owner[of_item >= 0], of_item[of_item >= 0]), 1.0)
    rank = np.nonzero(hit)
    of_hit = group[best[rank]]
    np.add.at(got, (rank[0][of_hit >= 0], of_hit[of_hit >= 0]), 1.0)
    wanted = wanted[task.users]
    has = wanted > 0
    recall = [float(np.mean(got[has[:, j], j] / wanted[has[:, j], j])) if has[:, j].any() else 0.0 for j in range(n)]
    return recall, has.sum(0)
