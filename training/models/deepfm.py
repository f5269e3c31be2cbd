"""Factorization machine with a deep network beside it, on the same vectors."""

from __future__ import annotations

import numpy as np
import torch

from training.models.base import F32, Along
from training.models.network import NetworkModel, scaled_normal, side_by_side


class DeepFM(NetworkModel):
    """score = b0 + sum x_i b_i + 1/2 (|sum x_i v_i|^2 - sum x_i^2 |v_i|^2) + p^T h_L: FM over features, and relu layers
    h_1 .. h_L over the field vectors side by side, h_0 in R^(m k). O(m k) and the layers per example; per item the
    layers too, since they need the whole row. Dropout on each layer.

    Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017,
    equations 1 to 4.
    """

    family = "deepfm"
    citation = "Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction, IJCAI 2017"
    formula = "b0 + sum x b + 1/2 (|sum x v|^2 - sum x^2 |v|^2) + p^T layers([v_1; ..; v_m])"
    cost = "|I| k + layers"
    takes_norms = True

    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """The layers over m k inputs, and p (``out.weight``)."""
        n_in = self.shape.n_fields * self.shape.dim
        width = (n_in, *self.shape.hidden)[-1]
        return self.layers(rng, n_in) | {"out.weight": scaled_normal(rng, (width,), 2 * width)}

    def interaction(self, vectors: torch.Tensor, norms: torch.Tensor, training: bool) -> torch.Tensor:
        """FM's pairs and p^T h_L, [n]."""
        total = vectors.sum(0)
        deep = self.hidden(side_by_side(vectors), training) @ self.tensors["out.weight"]
        return 0.5 * ((total * total).sum(1) - norms) + deep

    def along_x(self, *gathered: torch.Tensor) -> Along:
        """See the base; FM's pairs are of degree 2, the network's input is of degree 1."""
        vectors, _, norms = gathered
        total, out, first = vectors.sum(0), self.tensors["out.weight"], side_by_side(vectors)
        pairs = 0.5 * ((total * total).sum(1) - norms)
        hidden, slope = self.hidden_along(first, 1.0)
        return pairs + hidden @ out, 2.0 * pairs + slope @ out
