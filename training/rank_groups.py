"""Which ranks a feature gets: k_i of the RaFM paper, from the feature's number of occurrences in the training split.

    by equation 17    k_i = argmin_k |log n_i - log D_k|: the rank closest to n_i in the sense of logarithms, that is
                      one more than the number of geometric means sqrt(D_k D_{k+1}) below n_i
    by thresholds     k_i = 1 + the number of thresholds below n_i (the rule of the paper's published code)

Chen et al., "RaFM: Rank-Aware Factorization Machines", ICML 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from training.batches import LabelledRows

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
#: Rows counted at a time.
COUNTED_ROWS = 1 << 18


def feature_counts(split: LabelledRows, n_features: int) -> I64:
    """How often each feature occurs in a split, int64 [n_features]: once per value of a multi-valued field, whatever
    its weight. ValueError for rows off the table (damaged data).
    """
    counts = np.zeros(n_features, dtype=np.int64)
    for part in (split.encoded.rows, split.encoded.multi_rows):
        for start in range(0, len(part), COUNTED_ROWS):  # the split may be larger than memory
            rows = np.asarray(part[start : start + COUNTED_ROWS]).ravel()
            if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= n_features):
                raise ValueError(f"encoded rows: expected 0 to {n_features - 1}, found others; prepare the log again")
            counts += np.bincount(rows, minlength=n_features)
    return counts


def rank_groups(counts: I64, ranks: Sequence[int], thresholds: Sequence[float] = ()) -> I32:
    """k_i in 1 to len(ranks), int32 [n]. A feature that never occurs has k_i = 1."""
    limits = thresholds or [float(np.sqrt(float(a) * float(b))) for a, b in pairwise(ranks)]
    groups = np.ones(len(counts), dtype=np.int32)
    for limit in limits:
        groups += counts > limit
    return groups
