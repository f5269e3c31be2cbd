"""What every family has in common: gathered field vectors -> logits, and plain weights out.

A family holds its dense parameters only (bias, field matrix, U, e); the feature table is separate
(``feature_table.py``), because it is trained row by row.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from models_export.weights import Weights

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model: m fields, the first ``n_context`` of them context; k floats per vector; rank rho (dplr; for
    pruned_fwfm the rank whose size it matches). ``cross``: start with the field matrix that pairs context with item.
    Networks: widths of the ``hidden`` layers, number of ``cross_layers`` (dcn), share of units in ``dropout``.
    """

    n_fields: int
    dim: int
    rank: int | None = None
    n_context: int = 0
    cross: bool = False
    hidden: tuple[int, ...] = ()
    cross_layers: int = 3
    dropout: float = 0.0

    @property
    def two_sided(self) -> bool:
        """Whether there are fields on both sides."""
        return 0 < self.n_context < self.n_fields


def truncated_normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> F32:
    """Normal draws with standard deviation ``std``, redrawn outside +-2 (as torch's trunc_normal_ with a = -2, b =
    2).
    """
    draws = rng.standard_normal(shape) * std
    while (outside := np.abs(draws) > 2.0).any():
        draws[outside] = rng.standard_normal(int(outside.sum())) * std
    return draws.astype(np.float32)


def copy_arrays(source: Mapping[str, F32], target: Mapping[str, F32]) -> None:
    """Copy each array of ``target`` from ``source``; ValueError names one that is missing or of another shape."""
    for name, array in target.items():
        if name not in source or source[name].shape != array.shape:
            found = source[name].shape if name in source else "none"
            raise ValueError(f"array {name!r}: expected shape {array.shape}, found {found}")
    for name, array in target.items():
        array[...] = source[name]


class FactorModel(abc.ABC):
    """One family. ``tensors`` maps names to float32 leaf tensors with gradients, ``parameters`` to views of the same
    memory. ``componentwise``: the third input is the squares by component [n, k] instead of the norms [n].
    ``quadratic``: the pairwise term is of degree 2 in the features' values x. ``served``: there is a compiled kernel.
    """

    family: ClassVar[str]
    citation: ClassVar[str]
    formula: ClassVar[str]
    cost: ClassVar[str]
    ranked: ClassVar[bool] = False
    takes_norms: ClassVar[bool] = False
    componentwise: ClassVar[bool] = False
    quadratic: ClassVar[bool] = False
    served: ClassVar[bool] = True

    def __init__(self, shape: ModelShape, rng: np.random.Generator, bias: float, std: float) -> None:
        self.shape = shape
        start = {"bias": np.array([bias], dtype=np.float32), **self.initial(rng, std)}
        data = {name: torch.tensor(array) for name, array in start.items()}
        self.parameters: dict[str, F32] = {name: tensor.numpy() for name, tensor in data.items()}
        self.tensors = {name: tensor.requires_grad_() for name, tensor in data.items()}

    @abc.abstractmethod
    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """The dense parameters besides the bias, drawn from ``rng``."""

    @abc.abstractmethod
    def interaction(self, vectors: torch.Tensor, norms: torch.Tensor, training: bool) -> torch.Tensor:
        """Pairwise term [n] of field vectors [m, n, k] and feature norms [n] (sum of x^2 |v|^2)."""

    def logits(
        self, vectors: torch.Tensor, linear: torch.Tensor, norms: torch.Tensor, training: bool = False
    ) -> torch.Tensor:
        """Scores [n]: bias + linear + pairwise term."""
        return self.tensors["bias"] + linear + self.interaction(vectors, norms, training)

    def weights(self, table: F32) -> Weights:
        """Plain weights of the family with the feature table float32 [n_features, k + 1]."""
        return Weights(
            family=self.family,
            vectors=np.ascontiguousarray(table[:, :-1]),
            linear=np.ascontiguousarray(table[:, -1]),
            bias=float(self.parameters["bias"][0]),
            **self.small_weights(),
        )

    @property
    def interaction_parameters(self) -> int:
        """How many numbers describe the fields' interaction in the served model."""
        return sum(array.size for name, array in self.parameters.items() if name != "bias")

    def parameter_count(self, n_features: int) -> int:
        """How many numbers the served model holds: a vector and a linear weight per feature, bias, interaction."""
        return n_features * (self.shape.dim + 1) + 1 + self.interaction_parameters

    def small_weights(self) -> dict[str, Any]:
        """The family's own arrays of :class:`Weights`."""
        return {}

    def load(self, arrays: dict[str, F32]) -> None:
        """Overwrite the dense parameters in place; ValueError names one that is missing or of another shape."""
        copy_arrays(arrays, self.parameters)

    def before_step(self, step: int) -> None:  # noqa: B027 (most families have nothing to do)
        """Called before each training step, counted from 1 (gradual pruning uses it)."""
