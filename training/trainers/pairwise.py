"""Pairwise training on positives: BPR, APR and SharpCF for factorization machines; of two fields that is matrix
factorization.

A step draws a negative item J for each positive pair (C, I) of the batch and lowers the mean over its triples of

    bpr       -ln sigma(y_CI - y_CJ)                            Rendle et al., BPR, UAI 2009; SharpCF paper, equation 3
    apr       the same + alpha times the same at theta + delta   He et al., APR, SIGIR 2018; SharpCF paper, equation 6
    sharpcf   the same + lambda (y_CI - y_CI of E epochs ago)^2  SharpCF paper, equation 17 and algorithm 1

plus L2. With ``l2_scope`` "touched" it is 1/2 l2 |v|^2 of every vector that occurs in a triple, once per occurrence
(l2_linear: of linear weights); with "all" it is 1/2 l2 |v|^2 of every vector there is, in each step: what a row
owes for the steps that left it alone is added when it is touched again. The first shrinks all alike, the second rare
users and items more.

delta
moves each vector of the batch by ``perturbation`` along its own gradient of the batch's loss (row by row, as APR's
code does; the paper bounds the whole). APR and SharpCF train as BPR up to ``start_epoch``. SharpCF's past scores lie
in a ring of E epochs, one place for each positive pair: 4 E bytes per pair. They are scores that the step computes
anyway, taken when the pair's turn came.

With ``shared_negatives`` a batch draws that many for all its pairs, and the loss of a pair is the mean over those
that its user has not (``_shared_negatives``). Negatives are uniform over the items that training knows, without the
user's own training positives. Same data, settings and seed: same bytes; the draw of an epoch depends on the seed, its
number and the pair alone, so a resumed run sees the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import Layout
from training.errors import UsageError
from training.feature_table import FeatureTable
from training.interactions import Interactions
from training.models.base import copy_arrays, truncated_normal
from training.prepared import Prepared
from training.ranking import RankingSplit, sides
from training.trainers import _pairwise_kernels as kernels
from training.trainers._shared_negatives import SharedNegatives, Side, add_gradients
from training.trainers.plain import EpochReport, RunState, Trainer, build_model, denormals_flushed
from training.trainers.settings import FitSettings

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
_NOTHING = np.zeros(0, dtype=np.float32)
_WORD = (1 << 64) - 1


def trajectory_bytes(settings: FitSettings, pairs: int) -> int:
    """Memory of SharpCF's past scores; 0 for the other methods."""
    return 4 * settings.trajectory_epochs * pairs if settings.method == "sharpcf" else 0


class PairwiseTrainer(Trainer):
    """Trains one factorization machine by ``settings.method``. ``run`` may be called on a fresh trainer or after
    ``restore``; validation is measured every ``eval_every`` epochs, and the best by ``valid_metric`` is the best."""

    table: FeatureTable

    def __init__(self, prepared: Prepared, settings: FitSettings) -> None:
        self.settings = settings
        interactions = Interactions(prepared)
        self.ranking = RankingSplit(interactions, "valid")
        self.pairs = interactions.pairs("train").known()
        if not len(self.pairs) or not len(self.ranking.users):
            what = "users that training knows in the validation split" if len(self.pairs) else "positives to train on"
            raise UsageError(f"{prepared.path}: pairwise training: expected {what}, found none")
        self.own = interactions.user_items("train")
        self.items, self.candidates = interactions.items, interactions.candidates
        layout = Layout.of(prepared.fields)
        torch.set_num_threads(settings.threads)
        rng = np.random.default_rng([settings.seed, 0x1217])
        values = truncated_normal(rng, (layout.n_features, settings.dim + 1), settings.init_std)
        if not settings.linear:
            values[:, -1] = 0.0
        self.table = FeatureTable(layout, values, settings.optimiser)
        self.model = build_model(settings, layout, 0.0, rng)
        ring = (settings.trajectory_epochs, len(self.pairs)) if settings.method == "sharpcf" else (0, 0)
        self.ring = np.zeros(ring, dtype=np.float32)
        self.state = RunState()
        self.shared: SharedNegatives | None = None
        if settings.shared_negatives:
            own = self.own.indptr, self.own.items
            self.shared = SharedNegatives(settings.shared_negatives, self.candidates, len(self.items), *own)
        single = self.items.widest == self.pairs.context.widest == 1 and bool((self.items.x == 1.0).all())
        self._add = kernels.add_gradients_single if single else kernels.add_gradients
        self._occurrences = np.zeros(layout.n_features, dtype=np.float32)
        self._last = np.zeros(layout.n_features if settings.l2_scope == "all" else 0, dtype=np.float32)
        self._widest = self.pairs.context.widest + 2 * self.items.widest
        room = settings.batch_size * self._widest + settings.shared_negatives * self.items.widest
        self._touched = np.empty(room, dtype=np.int32)
        kept = (len(self._touched), settings.dim + 1) if settings.method == "apr" else (0, 0)
        self._kept = np.empty(kept, dtype=np.float32)

    def run(
        self,
        after_epoch: Callable[[Trainer, EpochReport, bool], None],
        tick: Callable[[int], None] = lambda rows: None,
    ) -> RunState:
        """Train until ``epochs``, or until ``patience`` epochs after ``start_epoch`` brought no better validation.

        ``after_epoch(trainer, report, is_best)`` is called where validation is measured, ``tick(rows)`` after each
        batch. FloatingPointError when the loss is not finite.
        """
        s, state = self.settings, self.state
        while state.epoch < s.epochs and state.epoch - max(state.best_epoch, s.start_epoch) < s.patience:
            report = self._stretch(min(s.epochs, (state.epoch // s.eval_every + 1) * s.eval_every), tick)
            best = report.valid_loss < state.best_loss
            if best:
                state.best_loss, state.best_epoch = report.valid_loss, state.epoch
            state.history.append(asdict(report))
            after_epoch(self, report, best)
        return state

    def _stretch(self, last: int, tick: Callable[[int], None]) -> EpochReport:
        """The epochs up to ``last``, then the validation."""
        first = self.state.epoch + 1
        start = time.perf_counter()
        with denormals_flushed():
            for epoch in range(first, last + 1):
                loss = self.train_epoch(epoch, tick)
                self.state.epoch = epoch
        seconds = (time.perf_counter() - start) / (last - first + 1)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"epoch {last}: the training loss is {loss}; try a lower learning rate than "
                f"{self.settings.learning_rate}"
            )
        found = self.ranking.measure(self.table.values)
        missing = 1.0 - found[self.settings.valid_metric]
        return EpochReport(last, loss, missing, None, len(self.pairs) / max(seconds, 1e-9), seconds, found)

    def train_epoch(self, epoch: int, tick: Callable[[int], None]) -> float:
        """One pass over the positives; returns the mean BPR loss."""
        s, n = self.settings, len(self.pairs)
        order = np.random.default_rng([s.seed, epoch]).permutation(n)
        negatives = None if self.shared else self.negatives(order, epoch)
        adversarial = s.method == "apr" and epoch > s.start_epoch
        scores, pulled = self._trajectory(epoch)
        rate = s.learning_rate * s.lr_decay ** (epoch - 1)
        total = 0.0
        for at in range(0, n, s.batch_size):
            batch = slice(at, at + s.batch_size)
            pairs = order[batch]
            negative = self.shared_negatives(epoch, at) if negatives is None else negatives[batch]
            share = 1.0 / len(pairs)
            pull = s.trajectory_weight * share if pulled else 0.0
            past = None if scores is None else scores[pairs]
            count, loss = self._gradients(pairs, negative, share, pull, past)
            if scores is not None:
                scores[pairs] = past
            touched = self._touched[:count]
            if adversarial:
                self._adversary(pairs, negative, share * s.adversarial_weight, touched)
            self.state.step += 1
            self._add_l2(touched, share)
            self.table.step_rows(touched, rate, self.state.step)
            total += loss
            tick(len(pairs))
        return total / n

    def _add_l2(self, touched: I32, share: float) -> None:
        s = self.settings
        if s.l2_scope == "all":
            kernels.steps_waited(touched, self._last, self.state.step, self._occurrences)
            share = 1.0
        l2, l2_linear = np.float32(s.l2 * share), np.float32(s.l2_linear * share)
        kernels.add_l2(self.table.values, self.table.grad, touched, self._occurrences, l2, l2_linear)

    def gradient(self, pairs: NDArray[np.int64], negative: I32) -> F32:
        """Gradient of the mean BPR loss of ``pairs`` (int64), each with its ``negative``, without L2; of the table's
        shape."""
        kept = self._touched, self.shared
        self._touched, self.shared = np.empty(len(pairs) * self._widest, dtype=np.int32), None
        self._gradients(pairs, negative, 1.0 / len(pairs), 0.0, None)
        self._touched, self.shared = kept
        found = self.table.grad.copy()
        self.table.grad[...] = 0.0
        return found

    def loss(self, table: F32, pairs: NDArray[np.int64], negative: I32) -> float:
        """Mean BPR loss of ``pairs``, each with its ``negative``, at another ``table``."""
        context = sides(table, self.pairs.context.take(pairs))[0].astype(np.float64)
        g, beta = sides(table, self.items)
        positive = self.pairs.item[pairs]
        gap = (context * (g[positive] - g[negative])).sum(1) + beta[positive] - beta[negative]
        return float(np.logaddexp(0.0, -gap)[negative >= 0].mean())

    def negatives(self, pairs: NDArray[np.int64], epoch: int) -> I32:
        """The negative of each of ``pairs`` in an epoch, int32; -1 for a user who has every candidate."""
        out = np.empty(len(pairs), dtype=np.int32)
        kernels.draw_negatives(
            self._key(epoch, 0), pairs, self.pairs.user, self.own.indptr, self.own.items, self.candidates, out
        )
        return out

    def shared_negatives(self, epoch: int, at: int) -> I32:
        """The negatives of the batch that begins at place ``at`` of an epoch's order, int32, distinct."""
        assert self.shared is not None
        return self.shared.draw(self._key(epoch, at + 1))

    def _key(self, epoch: int, part: int) -> np.uint64:
        words = ((self.settings.seed, 0xD1342543DE82EF95), (epoch, 0xA0761D6478BD642F), (part, 0xE7037ED1A0B428DB))
        return np.uint64(sum(number * word for number, word in words) & _WORD)

    def _trajectory(self, epoch: int) -> tuple[F32 | None, bool]:
        """SharpCF: the scores of E epochs ago, in the place of this epoch's, and whether they pull."""
        s, window = self.settings, len(self.ring)
        if not window or epoch <= s.start_epoch - window:
            return None, False
        return self.ring[epoch % window], epoch > max(s.start_epoch, window)

    def _gradients(
        self, pairs: NDArray[np.int64], negative: I32, share: float, pull: float, past: F32 | None
    ) -> tuple[int, float]:
        """Adds a batch's gradients to the table's buffer and puts the pairs' scores into ``past``; returns the number
        of rows in ``_touched`` and the sum of the losses."""
        context, items, linear = self.pairs.context, self.items, self.settings.linear
        buffers = self.table.grad, self._occurrences, self.table.stamp, self.table.next_stamp(), self._touched
        if self.shared is not None:
            values, user = self.table.values, self.pairs.user[pairs]
            wanted = ((context, pairs), (items, self.pairs.item[pairs]), (items, negative))
            sides = tuple(Side.of(values, lists, index.astype(np.int64)) for lists, index in wanted)
            return add_gradients(values, sides, self.shared.allowed(user), share, pull, past, linear, buffers)
        found: tuple[int, float] = self._add(
            self.table.values,
            (context.indptr, context.rows, context.x),
            (items.indptr, items.rows, items.x),
            pairs,
            self.pairs.item,
            negative,
            np.float32(share),
            np.float32(pull),
            _NOTHING if past is None else past,
            linear,
            buffers,
        )
        return found

    def _adversary(self, pairs: NDArray[np.int64], negative: I32, share: float, touched: I32) -> None:
        """Adds the gradients of the loss at the perturbed vectors. They touch the same rows, so ``touched`` stays."""
        values, kept = self.table.values, self._kept[: len(touched)]
        kernels.perturb(values, self.table.grad, touched, self.settings.perturbation, kept)
        self._gradients(pairs, negative, share, 0.0, None)
        kernels.put_back(values, touched, kept)

    def arrays(self) -> dict[str, F32]:
        """Parameters, optimiser state and past scores by name, for a checkpoint."""
        named = {"table": self.table.values}
        named |= {f"table_state.{i}": a for i, a in enumerate(self.table.state)}
        named |= {f"dense.{name}": a for name, a in self.model.parameters.items()}
        more = {"trajectory": self.ring, "last_step": self._last}
        return named | {name: array for name, array in more.items() if array.size}

    def restore(self, arrays: dict[str, F32], state: RunState) -> None:
        """Continue from a checkpoint's arrays and state; ValueError when they are another model's."""
        copy_arrays(arrays, self.arrays())
        self.state = state
