"""What every family has in common: gathered field vectors -> logits, and plain weights out.

A family holds its dense parameters only (bias, field matrix, U, e); the feature table is separate
(``feature_table.py``), because it is trained row by row.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from models_export.weights import Weights
from training.batches import Batch, LabelledRows, Layout
from training.feature_table import FeatureTable
from training.trainers.settings import FitSettings

F32 = NDArray[np.float32]
Along = tuple[torch.Tensor, torch.Tensor]


class Table(Protocol):
    """The parameters that are trained feature by feature, with their optimiser. A family brings its own kind."""

    @property
    def layout(self) -> Layout:
        """The fields of the rows that it gathers."""

    @property
    def size(self) -> int:
        """Number of parameters."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The parameters, and what else a run's weights must hold, by name (views)."""

    def state_arrays(self) -> dict[str, F32]:
        """The optimiser's state by name (views)."""

    def gather(self, batch: Batch, needs_grad: bool) -> tuple[torch.Tensor, ...]:
        """What the family's ``logits`` takes, the linear part [n] second."""

    def saliency(self, batch: Batch, *gradients: torch.Tensor | None) -> tuple[F32, F32, F32]:
        """From the gradients of each row's loss with respect to what ``gather`` returned: dL/dx of the single-valued
        columns [n, n_single], of the multi-valued values [nnz], and the weighted saliency (dL/dx)^T x [n].
        """

    def step(self, learning_rate: float, l2: float, l2_linear: float, number: int) -> None:
        """Apply the gradients of the last backward pass; ``number`` counts steps from 1."""


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


class Model(abc.ABC):
    """One family. ``tensors`` maps names to float32 leaf tensors with gradients, ``parameters`` to views of the same
    memory. ``componentwise``: the third input is the squares by component [n, k] instead of the norms [n].
    ``quadratic``: the pairwise term is of degree 2 in the features' values x. ``compiled``: there is a compiled kernel.
    ``exported_as``: the artefact's family where that is another one. ``per_sample``: trained sample by sample, by the
    plain method alone.
    """

    family: ClassVar[str]
    citation: ClassVar[str]
    formula: ClassVar[str]
    cost: ClassVar[str]
    ranked: ClassVar[bool] = False
    takes_norms: ClassVar[bool] = False
    componentwise: ClassVar[bool] = False
    quadratic: ClassVar[bool] = False
    compiled: ClassVar[bool] = True
    exported_as: ClassVar[str | None] = None
    per_sample: ClassVar[bool] = False

    def __init__(self, shape: ModelShape, rng: np.random.Generator, bias: float, std: float) -> None:
        self.shape = shape
        start = {"bias": np.array([bias], dtype=np.float32), **self.initial(rng, std)}
        data = {name: torch.tensor(array) for name, array in start.items()}
        self.parameters: dict[str, F32] = {name: tensor.numpy() for name, tensor in data.items()}
        self.tensors = {name: tensor.requires_grad_() for name, tensor in data.items()}

    @abc.abstractmethod
    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """The dense parameters besides the bias, drawn from ``rng``."""

    @classmethod
    def new_table(cls, layout: Layout, train: LabelledRows, settings: FitSettings, rng: np.random.Generator) -> Table:
        """The table with freshly drawn parameters."""
        values = truncated_normal(rng, (layout.n_features, settings.dim + 1), settings.init_std)
        return cls.table_of(layout, {"table": values}, settings)

    @classmethod
    def table_of(cls, layout: Layout, arrays: Mapping[str, NDArray[Any]], settings: FitSettings) -> Table:
        """The table with the parameters of :meth:`Table.arrays`; ValueError where they are another model's."""
        expected = (layout.n_features, settings.dim + 1)
        if "table" not in arrays or arrays["table"].shape != expected:
            found = arrays["table"].shape if "table" in arrays else "none"
            raise ValueError(f"expected a table of shape {expected}, found {found}")
        whole = settings.l2_scope == "all"
        return FeatureTable(layout, arrays["table"], settings.optimiser, cls.componentwise, whole)

    @abc.abstractmethod
    def pairwise(self, *gathered: torch.Tensor, training: bool = False) -> torch.Tensor:
        """Pairwise term [n] of what the table gathered."""

    def logits(self, *gathered: torch.Tensor, training: bool = False) -> torch.Tensor:
        """Scores [n]: bias + linear + pairwise term. The linear part is the second thing that every table gathers."""
        return self.tensors["bias"] + gathered[1] + self.pairwise(*gathered, training=training)

    def along_x(self, *gathered: torch.Tensor) -> Along | None:
        """The pairwise term as served [n], and x^T d pairwise / dx [n]: how fast it grows when all values x grow in
        proportion; None if only a backward pass would tell.
        """
        if not self.quadratic:
            return None
        pairwise = self.pairwise(*gathered)
        return pairwise, 2.0 * pairwise

    def side_loss(self, loss: str, *gathered: torch.Tensor) -> torch.Tensor | None:
        """What is minimised beside the loss of the logits; None for nothing."""
        return None

    @abc.abstractmethod
    def weights(self, table: Any) -> Weights:
        """Plain weights of the family with its table."""

    @property
    def interaction_parameters(self) -> int:
        """How many numbers describe the fields' interaction in the served model."""
        return sum(array.size for name, array in self.parameters.items() if name != "bias")

    def parameter_count(self, table: Table) -> int:
        """How many numbers the served model holds: the features' vectors and linear weights, bias, interaction."""
        return table.size + 1 + self.interaction_parameters

    def load(self, arrays: dict[str, F32]) -> None:
        """Overwrite the dense parameters in place; ValueError names one that is missing or of another shape."""
        copy_arrays(arrays, self.parameters)

    def before_step(self, step: int) -> None:  # noqa: B027 (most families have nothing to do)
        """Called before each training step, counted from 1 (gradual pruning uses it)."""


class FactorModel(Model):
    """A family on a :class:`~training.feature_table.FeatureTable`: each field's values are one vector."""

    @abc.abstractmethod
    def interaction(self, vectors: torch.Tensor, norms: torch.Tensor, training: bool) -> torch.Tensor:
        """Pairwise term [n] of field vectors [m, n, k] and feature norms [n] (sum of x^2 |v|^2)."""

    def pairwise(self, *gathered: torch.Tensor, training: bool = False) -> torch.Tensor:
        """The interaction of the field vectors."""
        vectors, _, norms = gathered
        return self.interaction(vectors, norms, training)

    def weights(self, table: FeatureTable) -> Weights:
        """Plain weights of the family with the feature table."""
        return Weights(
            family=self.family,
            vectors=np.ascontiguousarray(table.values[:, :-1]),
            linear=np.ascontiguousarray(table.values[:, -1]),
            bias=float(self.parameters["bias"][0]),
            **self.small_weights(),
        )

    def small_weights(self) -> dict[str, Any]:
        """The family's own arrays of :class:`Weights`."""
        return {}
