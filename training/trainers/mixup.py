"""Training on mixtures of rows: CopyFM, MixFM, SMFM and MaxUp, for every model.

Wu et al., "Boosting Factorization Machines via Saliency-Guided Mixup", TPAMI 2024 (algorithms 1 and 2). Each epoch
trains on the n rows D and n' = ``mix_ratio`` n rows more: each row serves as first parent floor(n'/n) times, and as
many more as n' asks for are drawn without replacement. The second parent is drawn from all rows, the first one's
share is max(s, 1 - s) with s ~ Beta(a, a). SMFM makes p candidates for each first parent and takes the one of the
largest weighted saliency under the model as it is when the epoch begins.

A log larger than ``WINDOW_ROWS`` is mixed window by window: both parents come from one window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from training.batches import Batch, epoch_windows, take
from training.feature_table import FeatureTable
from training.fm_candidates import FMCandidates
from training.mixing import Mixer, Pairs
from training.models.fm import FactorizationMachine
from training.saliency import losses, weighted_saliency
from training.trainers.plain import Trainer

#: Candidates drawn at a time, and how many of them are made and scored at a time: what fits into the caches.
CANDIDATE_ROWS = 4096
SCORED_ROWS = 512
_STREAM = 0x313C
#: What candidates are compared by: a number for each mixture [n].
Merit = Callable[[Pairs], NDArray[np.float32]]


def first_parents(n: int, extra: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``extra`` of ``n`` rows: all of them floor(extra/n) times, the rest drawn without replacement."""
    return np.concatenate([np.tile(np.arange(n), extra // n), rng.choice(n, extra % n, replace=False)])


def _in_parts(pairs: Pairs, merit: Merit) -> NDArray[np.float32]:
    parts = range(0, len(pairs), SCORED_ROWS)
    return np.concatenate([merit(pairs.take(slice(at, at + SCORED_ROWS))) for at in parts])


class MixupTrainer(Trainer):
    """What the four have in common: windows, the number of additional rows, random candidates."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """See ``Trainer.batches``."""
        rng = np.random.default_rng([self.settings.seed, epoch, _STREAM])
        for window in epoch_windows(self.train, rng):
            first = first_parents(len(window), round(self.settings.mix_ratio * len(window)), rng)
            yield from self._of_window(window, first, rng)

    def _of_window(self, window: Batch, first: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Batch]:
        mixer = Mixer(self.table.layout, window, self.settings.paper_compat)
        pairs = Pairs.joined(Pairs.unmixed(np.arange(len(window))), self._mixtures(mixer, len(window), first, rng))
        for index in self._shuffled(len(pairs), rng):
            yield mixer(pairs.take(index))

    def _mixtures(self, mixer: Mixer, n: int, first: NDArray[np.int64], rng: np.random.Generator) -> Pairs:
        """One mixture for each first parent of a window of ``n`` rows."""
        return self._drawn(first, n, rng)

    def _shuffled(self, n: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        order = rng.permutation(n)
        for at in range(0, n, self.settings.batch_size):
            yield order[at : at + self.settings.batch_size]

    def _drawn(self, first: NDArray[np.int64], n: int, rng: np.random.Generator) -> Pairs:
        """A random mixture for each first parent."""
        second = rng.integers(0, n, len(first))
        share = rng.beta(self.settings.mix_alpha, self.settings.mix_alpha, len(first))
        return Pairs(first, second, np.maximum(share, 1.0 - share).astype(np.float32))

    def _all_best(self, merit: Merit, n: int, first: NDArray[np.int64], rng: np.random.Generator) -> Pairs:
        """``_best`` for many first parents, some candidates at a time."""
        step = max(1, CANDIDATE_ROWS // self.settings.candidates)
        return Pairs.joined(*(self._best(merit, n, first[at : at + step], rng) for at in range(0, len(first), step)))

    def _best(self, merit: Merit, n: int, first: NDArray[np.int64], rng: np.random.Generator) -> Pairs:
        """Of ``candidates`` random mixtures for each first parent the one of the largest ``merit``."""
        p = self.settings.candidates
        candidates = self._drawn(np.repeat(first, p), n, rng)
        best = merit(candidates).reshape(len(first), p).argmax(1)
        return candidates.take(np.arange(len(first)) * p + best)


class CopyTrainer(MixupTrainer):
    """CopyFM: n' rows are simply trained on once more. It tells how much of a gain is due to more steps alone."""

    def _of_window(self, window: Batch, first: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Batch]:
        rows = np.concatenate([np.arange(len(window)), first])
        for index in self._shuffled(len(rows), rng):
            yield take(window, rows[index])


class MixTrainer(MixupTrainer):
    """MixFM: D and n' random mixtures (algorithm 1)."""


class SaliencyMixTrainer(MixupTrainer):
    """SMFM: D and n' mixtures, each the most salient of p (algorithm 2)."""

    def _mixtures(self, mixer: Mixer, n: int, first: NDArray[np.int64], rng: np.random.Generator) -> Pairs:
        return self._all_best(self._saliency(mixer), n, first, rng)

    def _saliency(self, mixer: Mixer) -> Merit:
        """Weighted saliency of mixtures under the present model."""
        if isinstance(self.model, FactorizationMachine) and isinstance(self.table, FeatureTable):
            candidates = FMCandidates(self.table, mixer.window, mixer.twice)
            candidates.refresh()
            bias = float(self.model.parameters["bias"][0])
            return lambda pairs: candidates.merit(pairs, bias, self.settings.loss, by_loss=False)
        return lambda pairs: _in_parts(
            pairs, lambda part: weighted_saliency(self.model, self.table, mixer(part), self.settings.loss)
        )


class MaxUpTrainer(MixupTrainer):
    """MaxUp with mixtures: each first parent is replaced by that of its p mixtures which has the largest loss under the
    model as it is at that step (with ``choose_once``: as it is when the epoch begins); the rows themselves are not
    trained on.

    Gong et al., "MaxUp: Lightweight Adversarial Training with Data Augmentation Improves Neural Network Training",
    CVPR 2021.
    """

    def _of_window(self, window: Batch, first: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Batch]:
        mixer = Mixer(self.table.layout, window, self.settings.paper_compat)
        merit = self._loss(mixer)
        if self.settings.choose_once:
            pairs = self._all_best(merit, len(window), first, rng)
            for index in self._shuffled(len(pairs), rng):
                yield mixer(pairs.take(index))
            return
        for index in self._shuffled(len(first), rng):
            yield mixer(self._best(merit, len(window), first[index], rng))

    def _loss(self, mixer: Mixer) -> Merit:
        """Loss of mixtures under the model as it is when asked."""
        model = self.model
        if isinstance(model, FactorizationMachine) and isinstance(self.table, FeatureTable):
            candidates, bias = FMCandidates(self.table, mixer.window, mixer.twice), model.parameters["bias"]
            return lambda pairs: candidates.merit(pairs, float(bias[0]), self.settings.loss, by_loss=True)
        return lambda pairs: _in_parts(pairs, lambda part: losses(model, self.table, mixer(part), self.settings.loss))
