"""Stochastic gradient descent on LLFM, one sample at a time (algorithms 1 to 3 of the paper)."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from training.batches import LabelledRows, Layout, epoch_windows
from training.local_table import LocalTable
from training.models import FAMILIES
from training.sparse_rows import SparseRows
from training.trainers.dense import DenseOptimiser
from training.trainers.plain import EpochReport, RunState, Trainer, build_model
from training.trainers.settings import FitSettings

#: Samples between two ticks of the progress bar.
TICK_ROWS = 10_000


class LocalTrainer(Trainer):
    """Trains one LLFM. ``train_loss`` of its reports is the mean loss of the epoch's samples before their own step."""

    table: LocalTable

    def __init__(self, layout: Layout, train: LabelledRows, valid: LabelledRows, settings: FitSettings) -> None:
        self.train, self.valid, self.settings = train, valid, settings
        rng = np.random.default_rng([settings.seed, 0x1217])
        self.model = build_model(settings, layout, self._prior(), rng)
        table = FAMILIES[settings.model].new_table(layout, train, settings, rng)
        assert isinstance(table, LocalTable)
        self.table = table
        self.dense = DenseOptimiser({}, "adagrad", 1.0)  # nothing dense is trained
        self.state = RunState()

    def _epoch(self, number: int, tick: Callable[[int], None]) -> EpochReport:
        start = time.perf_counter()
        s, total = self.settings, 0.0
        rate = s.learning_rate * s.lr_decay ** (number - 1)
        b0 = float(self.model.parameters["bias"][0])
        rng = np.random.default_rng([s.seed, number])
        for window in epoch_windows(self.train, rng):
            rows = SparseRows.of(window, self.table.layout.n_features)
            order = rng.permutation(len(window))
            for at in range(0, len(order), TICK_ROWS):
                part = order[at : at + TICK_ROWS]
                total += self.table.train(rows, window.label, part, b0, rate, self.state.step)
                self.state.step += len(part)
                tick(len(part))
        return self._report(number, total / len(self.train), len(self.train), time.perf_counter() - start)
