"""Deep and cross network."""

from __future__ import annotations

import numpy as np
import torch

from training.models.base import F32, Along
from training.models.network import NetworkModel, scaled_normal, side_by_side


class DeepAndCross(NetworkModel):
    """score = b0 + sum x_i b_i + p^T [x_D; h_L] over the field vectors side by side, x_0 in R^(m k): cross layers
    x_{l+1} = x_0 (x_l^T w_l) + c_l + x_l (version 1: w_l is a vector) and relu layers h_1 .. h_L over h_0 = x_0.
    O(D m k) and the layers per example; per item the same, since they need the whole row. (The paper has no linear
    weights; p^T x_0 holds them.) Dropout on each relu layer.

    Wang et al., "Deep & Cross Network for Ad Click Predictions", ADKDD 2017 (equations 3 to 5).
    """

    family = "dcn"
    citation = "Wang et al., Deep & Cross Network for Ad Click Predictions, ADKDD 2017"
    formula = "b0 + sum x b + p^T [x_D; layers(x_0)], x_{l+1} = x_0 (x_l^T w_l) + c_l + x_l"
    cost = "D m k + layers"

    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """``cross.weight`` and ``cross.bias`` [D, m k], the layers over m k inputs, p (``out.weight``)."""
        width, depth = self.shape.n_fields * self.shape.dim, self.shape.cross_layers
        total = width + (width, *self.shape.hidden)[-1]
        return {
            "cross.weight": scaled_normal(rng, (depth, width), 2 * width),
            "cross.bias": np.zeros((depth, width), np.float32),
            **self.layers(rng, width),
            "out.weight": scaled_normal(rng, (total,), 2 * total),
        }

    def interaction(self, vectors: torch.Tensor, norms: torch.Tensor, training: bool) -> torch.Tensor:
        """P^T [x_D; h_L], [n]."""
        first = side_by_side(vectors)
        crossed, _ = self._crossed(first)
        return crossed + self.hidden(first, training) @ self._out[1]

    def along_x(self, *gathered: torch.Tensor) -> Along:
        """See the base; x_0 is of degree 1."""
        first = side_by_side(gathered[0])
        crossed, along = self._crossed(first)
        hidden, slope = self.hidden_along(first, 1.0)
        return crossed + hidden @ self._out[1], along + slope @ self._out[1]

    @property
    def _out(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The parts of p over x_D and over h_L."""
        width = self.shape.n_fields * self.shape.dim
        return self.tensors["out.weight"][:width], self.tensors["out.weight"][width:]

    def _crossed(self, first: torch.Tensor) -> Along:
        """P^T x_D and its derivative along x_0, each [n]. Since x_l = a_l x_0 + c_1 + .. + c_l with a number a_l per
        row, a_{l+1} = a_l (1 + x_0^T w_l) + (c_1 + .. + c_l)^T w_l, all that is needed of x_0 are its products with the
        w_l and p: one pass over it, where the layers as written take two each.
        """
        weights, biases, out = self.tensors["cross.weight"], self.tensors["cross.bias"], self._out[0]
        products = torch.nn.functional.linear(first, torch.cat([weights, out[None]]))
        scale, slope = torch.ones(len(first)), torch.zeros(len(first))
        for depth, (weight, product) in enumerate(zip(weights, products.T, strict=False)):
            scale, slope = (
                scale * (1.0 + product) + biases[:depth].sum(0) @ weight,
                slope * (1.0 + product) + scale * product,
            )
        return scale * products[:, -1] + biases.sum(0) @ out, (scale + slope) * products[:, -1]
