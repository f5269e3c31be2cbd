"""Neural factorization machine."""

from __future__ import annotations

import numpy as np
import torch

from training.models.base import F32, Along
from training.models.network import NetworkModel, scaled_normal


class NeuralFM(NetworkModel):
    """score = b0 + sum x_i b_i + p^T h_L, where h_1 .. h_L are relu layers over the pooled pairs
    h_0 = sum_{i<j} x_i v_i * x_j v_j (component by component), over *features* as in FM. O(m k) and the layers per
    example; per item the layers too, since they need the whole row. No batch normalisation; dropout on h_0 and
    each layer.

    He and Chua, "Neural Factorization Machines for Sparse Predictive Analytics", SIGIR 2017 (equations 3, 4, 7).
    """

    family = "nfm"
    citation = "He and Chua, Neural Factorization Machines for Sparse Predictive Analytics, SIGIR 2017"
    formula = "b0 + sum x b + p^T layers(sum_{i<j} x_i v_i * x_j v_j)"
    cost = "|I| k + layers"
    componentwise = True

    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """The layers over k inputs, and p (``out.weight``)."""
        width = (self.shape.dim, *self.shape.hidden)[-1]
        return self.layers(rng, self.shape.dim) | {"out.weight": scaled_normal(rng, (width,), 2 * width)}

    def interaction(self, vectors: torch.Tensor, norms: torch.Tensor, training: bool) -> torch.Tensor:
        """P^T h_L, [n]; ``norms`` are the squares by component, [n, k]."""
        total = vectors.sum(0)
        pooled = self.dropped(0.5 * (total * total - norms), training)
        return self.hidden(pooled, training) @ self.tensors["out.weight"]

    def along_x(self, *gathered: torch.Tensor) -> Along:
        """See the base; the pooled pairs are of degree 2."""
        vectors, _, norms = gathered
        total, out = vectors.sum(0), self.tensors["out.weight"]
        pooled = 0.5 * (total * total - norms)
        hidden, slope = self.hidden_along(pooled, 2.0)
        return hidden @ out, slope @ out
