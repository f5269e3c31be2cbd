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
        crossed = first
        for weight, bias in zip(self.tensors["cross.weight"], self.tensors["cross.bias"], strict=True):
            crossed = first * (crossed @ weight)[:, None] + bias + crossed
        out, width = self.tensors["out.weight"], first.shape[1]
        return crossed @ out[:width] + self.hidden(first, training) @ out[width:]

    def along_x(self, *gathered: torch.Tensor) -> Along:
        """See the base; x_0 is of degree 1."""
        first = side_by_side(gathered[0])
        crossed, along = first, first
        for weight, bias in zip(self.tensors["cross.weight"], self.tensors["cross.bias"], strict=True):
            product = crossed @ weight
            along = first * (product + along @ weight)[:, None] + along
            crossed = first * product[:, None] + bias + crossed
        out, width = self.tensors["out.weight"], first.shape[1]
        hidden, slope = self.hidden_along(first, first)
        return crossed @ out[:width] + hidden @ out[width:], along @ out[:width] + slope @ out[width:]
