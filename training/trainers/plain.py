"""Empirical risk minimisation by mini-batches: logistic or squared loss, Adagrad or Adam, early stopping on validation.

A trainer takes encoded splits and returns trained parameters; it knows no files but its checkpoint's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import Batch, LabelledRows, Layout, epoch_batches, ordered_batches
from training.feature_table import FeatureTable
from training.fm_step import fm_gradients
from training.metrics import auc
from training.models import FAMILIES, Model, ModelShape, Table
from training.models.base import copy_arrays
from training.models.fm import FactorizationMachine
from training.ragged_table import RaggedTable
from training.trainers.dense import DenseOptimiser
from training.trainers.settings import FitSettings

#: Rows scored at a time: their field vectors stay in the cache (4 times faster than 16,384 rows at m = 10, k = 64).
EVALUATION_BATCH = 2048
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class EpochReport:
    """One line of a run's history. ``valid_auc`` is None but for logistic loss; ``seconds``: of training alone, per
    epoch.

    Pairwise methods: ``train_loss`` is the BPR loss of the last epoch, ``valid_ranking`` Recall and NDCG,
    ``valid_loss`` 1 minus the one by which the best epoch is chosen.
    """

    epoch: int
    train_loss: float
    valid_loss: float
    valid_auc: float | None
    rows_per_second: float
    seconds: float
    valid_ranking: dict[str, float] | None = None


@dataclass
class RunState:
    """Where a run stands after an epoch; with ``Trainer.arrays`` all that an exact resume needs."""

    epoch: int = 0
    step: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def build_model(settings: FitSettings, layout: Layout, bias: float, rng: np.random.Generator) -> Model:
    """The family's model with freshly drawn dense parameters."""
    cross = settings.field_init == "cross"
    network = settings.hidden, settings.cross_layers, settings.dropout
    shape = ModelShape(layout.n_fields, settings.dim, settings.rank, layout.n_context, cross, *network)
    model = FAMILIES[settings.model](shape, rng, bias, settings.field_init_std)
    if settings.gradual:
        model.gradual = True  # type: ignore[attr-defined]  # refused for other families by the command line
    return model


def predict(model: Model, table: Table, split: LabelledRows) -> F32:
    """Scores float32 [n] in the split's order, as served (pruned families pruned)."""
    with torch.inference_mode():
        parts = [
            model.logits(*table.gather(batch, needs_grad=False)).numpy()
            for batch in ordered_batches(split, EVALUATION_BATCH)
        ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def mean_loss(loss: str, score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Mean log loss of logits, or mean squared error of predictions."""
    if loss == "logistic":
        return torch.nn.functional.binary_cross_entropy_with_logits(score, label)
    return torch.nn.functional.mse_loss(score, label)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Count denormal numbers as zero: tiny gradients of a new field matrix are denormal, and 100 times slower. The mode
    is the whole thread's, so it ends with the block: other arithmetic of the process needs those numbers."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class Trainer:
    """Trains one model. ``run`` may be called on a fresh trainer or after ``restore``."""

    def __init__(self, layout: Layout, train: LabelledRows, valid: LabelledRows, settings: FitSettings) -> None:
        torch.set_num_threads(settings.threads)
        self.train, self.valid, self.settings = train, valid, settings
        rng = np.random.default_rng([settings.seed, 0x1217])
        self.table = FAMILIES[settings.model].new_table(layout, train, settings, rng)
        self.model = build_model(settings, layout, self._prior(), rng)
        self.dense = DenseOptimiser(self.model.parameters, settings.optimiser, settings.field_lr_scale)
        self.state = RunState()

    def _prior(self) -> float:
        """Initial bias: the training mean, as a logit for logistic loss."""
        mean = float(np.mean(self.train.label, dtype=np.float64))
        if self.settings.loss == "squared":
            return mean
        mean = min(max(mean, 1e-6), 1 - 1e-6)
        return float(np.log(mean / (1 - mean)))

    def run(
        self,
        after_epoch: Callable[[Trainer, EpochReport, bool], None],
        tick: Callable[[int], None] = lambda rows: None,
    ) -> RunState:
        """Train until ``epochs`` or until ``FitSettings.stop`` says so.

        ``after_epoch(trainer, report, is_best)`` is called after each epoch (it saves what it needs), ``tick(rows)``
        after each batch. FloatingPointError when the loss is not finite.
        """
        state = self.state
        while state.epoch < self.settings.epochs and not self.settings.stops(state.history, state.best_epoch):
            report = self._epoch(state.epoch + 1, tick)
            state.epoch += 1
            best = report.valid_loss < state.best_loss
            if best:
                state.best_loss, state.best_epoch = report.valid_loss, state.epoch
            state.history.append(asdict(report))
            after_epoch(self, report, best)
        return state

    def _epoch(self, number: int, tick: Callable[[int], None]) -> EpochReport:
        start = time.perf_counter()
        total, rows = 0.0, 0
        rate = self.settings.learning_rate * self.settings.lr_decay ** (number - 1)
        with denormals_flushed():
            for batch in self.batches(number):
                total += self._step(batch, rate) * len(batch)
                rows += len(batch)
                tick(len(batch))
        return self._report(number, total / rows, rows, time.perf_counter() - start)

    def _report(self, number: int, train_loss: float, rows: int, seconds: float) -> EpochReport:
        """What an epoch over ``rows`` rows came to; FloatingPointError where a loss is not finite."""
        score = predict(self.model, self.table, self.valid)
        label = torch.from_numpy(np.array(self.valid.label, dtype=np.float32))
        loss = float(mean_loss(self.settings.loss, torch.from_numpy(score).double(), label.double()))
        if not np.isfinite(train_loss + loss):
            raise FloatingPointError(
                f"epoch {number}: the training loss is {train_loss} and the validation loss {loss}; "
                f"try a lower learning rate than {self.settings.learning_rate}"
            )
        area = auc(self.valid.label, score) if self.settings.loss == "logistic" else None
        return EpochReport(number, train_loss, loss, area, rows / max(seconds, 1e-9), seconds)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """What an epoch trains on; the same for the same settings, epoch and parameters."""
        return epoch_batches(self.train, self.settings.batch_size, self.settings.seed, epoch)

    def _step(self, batch: Batch, learning_rate: float) -> float:
        s = self.settings
        self.state.step += 1
        if isinstance(self.model, FactorizationMachine) and isinstance(self.table, FeatureTable):
            return self._fm_step(self.model, self.table, batch, learning_rate)
        if isinstance(self.table, RaggedTable):
            return self._ragged_step(self.table, batch, learning_rate)
        self.model.before_step(self.state.step)
        gathered = self.table.gather(batch, needs_grad=True)
        loss = mean_loss(s.loss, self.model.logits(*gathered, training=True), torch.from_numpy(batch.label))
        beside = self.model.side_loss(s.loss, *gathered)
        (loss if beside is None else loss + beside).backward()  # type: ignore[no-untyped-call]
        self.table.step(learning_rate, s.l2, s.l2_linear, self.state.step)
        self.dense.step(self.model.tensors, learning_rate, self.state.step)
        return float(loss.detach())

    def _fm_step(self, model: FactorizationMachine, table: FeatureTable, batch: Batch, learning_rate: float) -> float:
        """The same step without torch, which costs more than an FM's arithmetic."""
        s = self.settings
        loss, slope, touched = fm_gradients(table, batch, float(model.parameters["bias"][0]), s.loss)
        table.step_rows(touched, learning_rate, self.state.step, s.l2, s.l2_linear)
        model.tensors["bias"].grad = torch.tensor([slope])
        self.dense.step(model.tensors, learning_rate, self.state.step)
        return loss

    def _ragged_step(self, table: RaggedTable, batch: Batch, learning_rate: float) -> float:
        """The same step without torch."""
        s = self.settings
        loss, slope = table.gradients(batch, float(self.model.parameters["bias"][0]), s.loss)
        table.step(learning_rate, s.l2, s.l2_linear, self.state.step)
        self.model.tensors["bias"].grad = torch.tensor([slope])
        self.dense.step(self.model.tensors, learning_rate, self.state.step)
        return loss

    def arrays(self) -> dict[str, F32]:
        """Parameters and optimiser state by name, for a checkpoint."""
        named = self.table.arrays() | self.table.state_arrays()
        named |= {f"dense.{name}": a for name, a in self.model.parameters.items()}
        named |= {f"dense_state.{name}": a for name, a in self.dense.state().items()}
        return named

    def restore(self, arrays: dict[str, F32], state: RunState) -> None:
        """Continue from a checkpoint's arrays and state; ValueError when they are another model's."""
        copy_arrays(arrays, self.arrays())
        self.state = state
