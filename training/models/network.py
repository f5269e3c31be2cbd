"""What the bases with a neural network share: fully connected layers, seeded dropout, export of the arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from training.models.base import F32, FactorModel, ModelShape


def scaled_normal(rng: np.random.Generator, shape: tuple[int, ...], n_in: int) -> F32:
    """Normal draws of variance 2 / n_in, which keeps the scale of a layer with rectified inputs (He et al. 2015)."""
    draws: F32 = (rng.standard_normal(shape) * np.sqrt(2.0 / n_in)).astype(np.float32)
    return draws


class NetworkModel(FactorModel):
    """A family whose pairwise term is a network. Its hidden layers are h_i = relu(W_i h_{i-1} + c_i), of the widths
    ``shape.hidden``; while training, ``shape.dropout`` of each layer's inputs are zeroed and the rest scaled up.

    The dropped units depend on the seed and the step's number alone, so that a resumed run drops the same ones.
    """

    compiled = False

    def __init__(self, shape: ModelShape, rng: np.random.Generator, bias: float, std: float) -> None:
        self._noise = torch.Generator()
        self._seed = int(rng.integers(2**31))
        super().__init__(shape, rng, bias, std)

    def before_step(self, step: int) -> None:
        """Seed the step's dropout."""
        self._noise.manual_seed(self._seed * 2**31 + step)

    def layers(self, rng: np.random.Generator, n_in: int) -> dict[str, F32]:
        """``hidden_i.weight`` [h_i, h_{i-1}] and ``hidden_i.bias`` [h_i] over an input of width ``n_in``."""
        arrays = {}
        for i, width in enumerate(self.shape.hidden):
            arrays[f"hidden_{i}.weight"] = scaled_normal(rng, (width, n_in), n_in)
            arrays[f"hidden_{i}.bias"] = np.zeros(width, np.float32)
            n_in = width
        return arrays

    def hidden(self, x: torch.Tensor, training: bool) -> torch.Tensor:
        """The last hidden layer [n, h] of inputs [n, n_in] (the inputs, if there is none)."""
        for i in range(len(self.shape.hidden)):
            weight, bias = self.tensors[f"hidden_{i}.weight"], self.tensors[f"hidden_{i}.bias"]
            x = self.dropped(torch.relu(torch.nn.functional.linear(x, weight, bias)), training)
        return x

    def hidden_along(self, x: torch.Tensor, degree: float) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`hidden` without dropout, and how fast it changes as ``x``, of that ``degree``, does."""
        dx = degree * x
        for i in range(len(self.shape.hidden)):
            weight = self.tensors[f"hidden_{i}.weight"]
            inner = torch.nn.functional.linear(x, weight)
            slope = degree * inner if i == 0 else torch.nn.functional.linear(dx, weight)
            x = torch.relu(inner + self.tensors[f"hidden_{i}.bias"])
            dx = slope * (x > 0.0)
        return x, dx

    def dropped(self, x: torch.Tensor, training: bool) -> torch.Tensor:
        """``x`` with dropout."""
        rate = self.shape.dropout
        if not training or rate == 0.0:
            return x
        kept = torch.rand(x.shape, generator=self._noise) >= rate
        return x * (kept / (1.0 - rate))

    def small_weights(self) -> dict[str, Any]:
        """``network``: every dense array but the bias."""
        return {"network": {name: array.copy() for name, array in self.parameters.items() if name != "bias"}}


def side_by_side(vectors: torch.Tensor) -> torch.Tensor:
    """Field vectors [m, n, k] as one input row per example, x_0 [n, m k]."""
    m, n, k = vectors.shape
    return vectors.transpose(0, 1).reshape(n, m * k)
