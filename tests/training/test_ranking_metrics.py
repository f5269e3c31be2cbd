"""Recall and NDCG against a plain double loop."""

from __future__ import annotations

import numpy as np
import pytest

from tests import oracle
from training import ranking_metrics as module
from training.interactions import UserItems
from training.ranking_metrics import ranking_metrics, top_items


def lists(owned: UserItems) -> list[list[int]]:
    return [owned.items[a:b].tolist() for a, b in zip(owned.indptr[:-1], owned.indptr[1:], strict=True)]


def draw(rng: np.random.Generator, n_users: int, n_items: int, share: float) -> UserItems:
    user, item = np.nonzero(rng.random((n_users, n_items)) < share)
    return UserItems.of(n_users, n_items, user.astype(np.int32), item.astype(np.int32))


@pytest.mark.parametrize("block", [1, 100, 1 << 24])
@pytest.mark.parametrize("k", [1, 3, 20, 60])
def test_metrics_equal_a_double_loop(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_SCORES", block)
    rng = np.random.default_rng(k)
    n_users, n_items, dim = 23, 37, 2
    a = rng.integers(-1, 2, (n_users, dim)).astype(np.float32)  # small integers: many equal scores, no rounding
    g = rng.integers(-1, 2, (n_items, dim)).astype(np.float32)
    beta = rng.integers(0, 2, n_items).astype(np.float32)
    known = draw(rng, n_users, n_items, 0.4)
    relevant = draw(rng, n_users, n_items, 0.1)
    users = np.flatnonzero(np.diff(relevant.indptr))
    best = top_items(a[users], g, beta, users, known, k)
    found = ranking_metrics(best, users, relevant, np.zeros(len(users), dtype=np.int64), (k,))
    expected = oracle.recall_and_ndcg(a @ g.T + beta, lists(known), lists(relevant), k)
    assert (found[f"recall@{k}"], found[f"ndcg@{k}"]) == pytest.approx(expected, abs=1e-12)


def test_the_best_are_in_order_without_the_known_and_without_those_that_are_no_candidates() -> None:
    g = np.array([[3.0], [1.0], [2.0], [2.0], [9.0], [2.0]], dtype=np.float32)
    beta = np.array([0, 0, 0, 0, -np.inf, 0], dtype=np.float32)
    known = UserItems.of(2, 6, np.array([1, 1], np.int32), np.array([0, 3], np.int32))
    best = top_items(np.ones((2, 1), np.float32), g, beta, np.arange(2), known, 6)
    assert best.tolist() == [[0, 2, 3, 5, 1, -1], [2, 5, 1, -1, -1, -1]]


def test_relevant_items_that_are_no_candidates_count_as_missed() -> None:
    best = np.array([[0, 1]], dtype=np.int32)
    relevant = UserItems.of(1, 4, np.array([0], np.int32), np.array([1], np.int32))
    found = ranking_metrics(best, np.array([0]), relevant, np.array([3]), (2,))
    assert found["recall@2"] == 0.25
    assert found["ndcg@2"] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))
