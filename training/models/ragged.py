"""What RaFM and DiFacto have in common: features of several ranks, chosen from their training counts."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import LabelledRows, Layout
from training.models.base import F32, Model, truncated_normal
from training.ragged_table import RaggedTable, row_starts
from training.rank_groups import feature_counts, rank_groups
from training.trainers.settings import FitSettings


class RaggedModel(Model):
    """A family on a :class:`~training.ragged_table.RaggedTable`; its only dense parameter is the bias."""

    nested: bool
    quadratic = True

    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """None besides the bias."""
        return {}

    @classmethod
    @abc.abstractmethod
    def level_sizes(cls, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Floats of each level of a row."""

    @classmethod
    def new_table(
        cls, layout: Layout, train: LabelledRows, settings: FitSettings, rng: np.random.Generator
    ) -> RaggedTable:
        """Groups from the counts of ``train``, factors and linear weights drawn from ``rng``."""
        counts = feature_counts(train, layout.n_features)
        groups = rank_groups(counts, settings.rank_list, settings.thresholds)
        total = int(row_starts(groups, cls.level_sizes(settings.rank_list))[-1])
        values = truncated_normal(rng, (total,), settings.init_std)
        return cls.table_of(layout, {"factors": values, "groups": groups}, settings)

    @classmethod
    def table_of(cls, layout: Layout, arrays: Mapping[str, NDArray[Any]], settings: FitSettings) -> RaggedTable:
        """The table of ``factors`` and ``groups``."""
        ranks, groups = settings.rank_list, arrays.get("groups")
        if groups is None or "factors" not in arrays:
            raise ValueError(f"expected factors and groups, found {sorted(arrays)}")
        if groups.shape != (layout.n_features,) or (groups < 1).any() or (groups > len(ranks)).any():
            raise ValueError(f"groups: expected {layout.n_features} numbers from 1 to {len(ranks)}, found others")
        sizes, whole = cls.level_sizes(ranks), settings.l2_scope == "all"
        return RaggedTable(layout, arrays["factors"], groups, sizes, cls.nested, settings.optimiser, whole)

    def pairwise(self, *gathered: torch.Tensor, training: bool = False) -> torch.Tensor:
        """The last level, [n]."""
        return gathered[0][:, -1]
