"""Locally linear factorization machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models_export.weights import Weights
from training.batches import LabelledRows, Layout
from training.k_means import k_means
from training.local_table import LocalTable
from training.models.base import F32, Model
from training.sparse_rows import SparseRows
from training.trainers.settings import FitSettings


class LocallyLinearFM(Model):
    """score = b0 + sum_a gamma_a(x) f_a(x), f_a a factorization machine over *features* with a bias of its own
    (equation 6), gamma the local coding of x among the anchors. DO: anchors stay where k-means put them; APL: they
    follow the gradient through gamma; JO: likewise, and each point chooses how many neighbours it has. b0 is the
    training mean, and is not trained. O(m |x| + K |x| k) per example, m anchors, K neighbours; the same per item once
    the context is known.

    Liu, Zhang, Zhao, Zhou, Sun, "Locally Linear Factorization Machines", IJCAI 2017.
    """

    family = "llfm"
    citation = "Liu, Zhang, Zhao, Zhou, Sun, Locally Linear Factorization Machines, IJCAI 2017"
    formula = "b0 + sum_a gamma_a (bias_a + sum x w_a + 1/2 (|sum x v_a|^2 - sum x^2 |v_a|^2))"
    cost = "m |I| + K |I| k"
    quadratic = True
    per_sample = True

    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """None besides the bias."""
        return {}

    @classmethod
    def new_table(
        cls, layout: Layout, train: LabelledRows, settings: FitSettings, rng: np.random.Generator
    ) -> LocalTable:
        """Anchors at the k-means centres of ``train``, vectors drawn from N(0, init_std^2), other weights 0 (algorithm
        1, line 1).
        """
        n, m = layout.n_features, settings.anchors
        vectors = (rng.standard_normal((n, m, settings.dim)) * settings.init_std).astype(np.float32)
        rows = SparseRows.of(train.window(0, len(train)), n)
        anchors = k_means(rows, n, m, rng).astype(np.float32)
        zeros = np.zeros((n, m), np.float32)
        arrays = {"vectors": vectors, "linear": zeros, "anchor_bias": zeros[0], "anchors": anchors}
        return LocalTable(layout, arrays, settings)

    @classmethod
    def table_of(cls, layout: Layout, arrays: Mapping[str, NDArray[Any]], settings: FitSettings) -> LocalTable:
        """The table of the arrays that it is stored as."""
        return LocalTable(layout, arrays, settings)

    def pairwise(self, *gathered: torch.Tensor, training: bool = False) -> torch.Tensor:
        """Nothing beside what the table has summed."""
        return torch.zeros(())

    def weights(self, table: LocalTable) -> Weights:
        """The anchors' machines and places."""
        return Weights(
            self.family,
            table.vectors,
            table.linear,
            float(self.parameters["bias"][0]),
            anchor_bias=table.anchor_bias,
            anchors=np.ascontiguousarray(table.anchors.T),
            locality=table.settings.local_scheme,
        )
