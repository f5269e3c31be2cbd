"""The ranks that features may have, as a user names them."""

from __future__ import annotations

from collections.abc import Sequence

from models_export.manifest import MAX_RANKS


def default_ranks(dim: int) -> tuple[int, ...]:
    """Where no ranks are named: a quarter of ``dim`` and ``dim``, as the paper's {64, 256}."""
    return (dim // 4, dim) if dim >= 4 else (1, dim) if dim > 1 else (1,)


def check_ranks(ranks: Sequence[int], thresholds: Sequence[float]) -> None:
    """ValueError unless there are 1 to 16 strictly increasing ranks, and no threshold or one fewer, likewise."""
    whole = all(type(rank) is int for rank in ranks)
    if not whole or not 1 <= len(ranks) <= MAX_RANKS or ranks[0] < 1 or list(ranks) != sorted(set(ranks)):
        raise ValueError(f"ranks: expected 1 to {MAX_RANKS} strictly increasing numbers from 1, found {list(ranks)}")
    if thresholds and (len(thresholds) != len(ranks) - 1 or list(thresholds) != sorted(set(thresholds))):
        raise ValueError(
            f"thresholds: expected {len(ranks) - 1} strictly increasing numbers (one fewer than ranks), "
            f"found {list(thresholds)}"
        )
