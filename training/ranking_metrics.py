"""Recall@K and NDCG@K of full rankings: each user's best K of all candidate items that the user is not known to have.

Scores are <a_u, g_i> + beta_i for a block of users at a time, one matrix product; a compiled pass selects each row's
best K. The order is exact: score descending, equal scores in catalogue order. No item is sampled away.

    Recall@K = (relevant items among the best K) / (all relevant items)
    NDCG@K = sum over ranks r <= K of [rank r is relevant] / log2(r + 1), over the same sum of a perfect ranking
    (of min(K, number of relevant items) ones)

both averaged over the users that have a relevant item (the public LightGCN code measures the same).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from service.kernels._heap import push, replace_root, sort_best_first
from training.interactions import UserItems

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
#: Scores held at a time: 64 MiB.
BLOCK_SCORES = 1 << 24


@njit(cache=True, nogil=True)  # type: ignore[misc]
def _select(scores, users, indptr, items, k, kept, best):  # type: ignore[no-untyped-def]
    worst = np.float32(-np.inf)
    for r in range(users.size):
        row, places = scores[r], best[r]
        for p in range(indptr[users[r]], indptr[users[r] + 1]):
            row[items[p]] = worst
        size = 0
        least = worst
        for i in range(row.size):
            score = row[i]
            if score > least:
                if size < k:
                    push(kept, places, size, score, i)
                    size += 1
                    if size == k:
                        least = kept[0]
                else:
                    replace_root(kept, places, k, score, i)
                    least = kept[0]
        sort_best_first(kept, places, size)
        places[size:] = -1


def top_items(queries: F32, g: F32, beta: F32, users: I64, known: UserItems, k: int) -> I32:
    """The best ``k`` items of each of ``users``, int32 [len(users), k], best first; -1 where there are fewer.

    ``queries`` float32 [len(users), D], ``g`` float32 [items, D], ``beta`` float32 [items] (minus infinity: no
    candidate). The items of ``known`` are left out. Scores that are NaN are never among the best.
    """
    best = np.empty((len(users), k), dtype=np.int32)
    kept = np.empty(k, dtype=np.float32)
    rows = max(1, BLOCK_SCORES // max(1, len(g)))
    scores = torch.empty((min(rows, len(users)), len(g)))
    right, shift = torch.from_numpy(g).T, torch.from_numpy(beta)
    for start in range(0, len(users), rows):
        stop = min(start + rows, len(users))
        block = scores[: stop - start]
        torch.addmm(shift, torch.from_numpy(queries[start:stop]), right, out=block)
        _select(block.numpy(), users[start:stop], known.indptr, known.items, k, kept, best[start:stop])
    return best


def ranking_metrics(
    best: I32, users: I64, relevant: UserItems, missed: NDArray[np.int64], cutoffs: Sequence[int]
) -> dict[str, float]:
    """``recall@K`` and ``ndcg@K`` for each of ``cutoffs``, means over ``users``.

    ``best`` int32 [n, >= max cutoff] of :func:`top_items`; ``relevant``: items by user; ``missed`` int64 [n]: how
    many more relevant items each user has that are no candidates.
    """
    hit, count = hits(best, users, relevant)
    count = count + missed
    gain = 1.0 / np.log2(np.arange(best.shape[1]) + 2.0)
    ideal = np.concatenate([[0.0], np.cumsum(gain)])
    found = {}
    for k in cutoffs:
        found[f"recall@{k}"] = float(np.mean(hit[:, :k].sum(1) / count))
        found[f"ndcg@{k}"] = float(np.mean(hit[:, :k] @ gain[:k] / ideal[np.minimum(count, k)]))
    return found


def hits(best: I32, users: I64, relevant: UserItems) -> tuple[NDArray[np.bool_], I64]:
    """Which of ``best`` are relevant, bool of its shape, and how many relevant items each user has, int64 [n]."""
    n_items = int(max(relevant.items.max(initial=0), best.max(initial=0))) + 1
    owner = np.repeat(np.arange(len(relevant.indptr) - 1, dtype=np.int64), np.diff(relevant.indptr))
    keys = owner * n_items + relevant.items
    asked = users[:, None] * n_items + np.maximum(best, 0)
    place = np.minimum(np.searchsorted(keys, asked), max(0, len(keys) - 1))
    hit = (keys[place] == asked) & (best >= 0) if len(keys) else np.zeros(best.shape, dtype=bool)
    return hit, np.diff(relevant.indptr)[users]
