"""One split of interactions as a ranking task: whom to rank for, what is known of them, what they turn out to want."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.interactions import FeatureLists, Interactions, Pairs, UserItems
from training.ranking_metrics import hits, ranking_metrics, top_items
from training.trainers._pairwise_kernels import sum_side

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
CUTOFFS = (10, 20)
#: What is known of a user before the split's rows: their items are not ranked.
BEFORE = {"train": (), "valid": ("train",), "test": ("train", "valid")}


class RankingSplit:
    """``rows``: the split's positives; ``users`` int64 [n]: the known users with a positive in the split, ascending;
    ``relevant``: the items of these positives; ``missed`` int64 [n]: positives whose item training does not know;
    ``context``: that of each user's first row in the split; ``known``: the positives of the splits before."""

    def __init__(self, interactions: Interactions, split: str) -> None:
        pairs = interactions.pairs(split)
        self.interactions, self.rows = interactions, len(pairs)
        of_known = np.flatnonzero(pairs.user >= 0)
        self.users, first = np.unique(pairs.user[of_known].astype(np.int64), return_index=True)
        self.context = pairs.context.take(of_known[first])
        n_users, n_items = interactions.n_users, len(interactions.items)
        self.known = interactions.user_items(*BEFORE[split]) if BEFORE[split] else _none(n_users)
        self.relevant = _without(UserItems.of(n_users, n_items, pairs.user, pairs.item), self.known, n_items)
        self.missed = _unknown(pairs, n_users)[self.users]
        wanted = np.diff(self.relevant.indptr)[self.users] + self.missed > 0
        index = np.flatnonzero(wanted)
        self.users, self.missed, self.context = self.users[index], self.missed[index], self.context.take(index)

    def best(self, table: F32, k: int) -> I32:
        """The best ``k`` items of each user by the factorization machine with that feature table, int32 [n, k]."""
        items = self.interactions.items
        queries, _ = sides(table, self.context)
        g, beta = sides(table, items)
        shift = np.full(len(items), -np.inf, dtype=np.float32)
        shift[self.interactions.candidates] = beta[self.interactions.candidates]
        return top_items(queries, g, shift, self.users, self.known, k)

    def measure(self, table: F32) -> dict[str, float]:
        """Recall and NDCG at ``CUTOFFS`` of that factorization machine; the number of positives, and of the users
        that the means are over."""
        best = self.best(table, max(CUTOFFS))
        found = ranking_metrics(best, self.users, self.relevant, self.missed, CUTOFFS)
        return {"rows": float(self.rows), "users": float(len(self.users))} | found

    def hits(self, best: I32) -> NDArray[np.bool_]:
        """Which of each user's ``best`` items are relevant."""
        return hits(best, self.users, self.relevant)[0]


def sides(table: F32, lists: FeatureLists) -> tuple[F32, F32]:
    """S float32 [n, k] and b + 1/2 (|S|^2 - N) float32 [n] of each list: a pair scores <S_C, S_I> plus both scalars."""
    out, own = np.empty((len(lists), table.shape[1] - 1), dtype=np.float32), np.empty(len(lists), dtype=np.float32)
    _sides(table, lists.indptr, lists.rows, lists.x, out, own)
    return out, own


@njit(cache=True)  # type: ignore[misc]
def _sides(table, indptr, rows, x, out, own):  # type: ignore[no-untyped-def]
    for i in range(own.size):
        own[i] = sum_side(table, rows, x, indptr[i], indptr[i + 1], out[i])


def _none(n_users: int) -> UserItems:
    return UserItems(np.zeros(n_users + 1, dtype=np.int64), np.zeros(0, dtype=np.int32))


def _unknown(pairs: Pairs, n_users: int) -> NDArray[np.int64]:
    missing = pairs.user[(pairs.user >= 0) & (pairs.item < 0)]
    return np.bincount(missing, minlength=n_users).astype(np.int64)


def _without(these: UserItems, others: UserItems, n_items: int) -> UserItems:
    """The items of ``these`` that are not in ``others``: what a user is known to have is not asked for again."""
    keys = [
        np.repeat(np.arange(len(s.indptr) - 1, dtype=np.int64), np.diff(s.indptr)) * n_items + s.items
        for s in (these, others)
    ]
    rest = np.setdiff1d(keys[0], keys[1], assume_unique=True)
    n_users = len(these.indptr) - 1
    return UserItems.of(n_users, n_items, (rest // n_items).astype(np.int32), (rest % n_items).astype(np.int32))
