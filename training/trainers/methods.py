"""Training methods, one class each: ``TRAINERS`` is the registry, name -> class."""

from __future__ import annotations

from training.batches import LabelledRows, Layout
from training.trainers.local import LocalTrainer
from training.trainers.mixup import CopyTrainer, MaxUpTrainer, MixTrainer, SaliencyMixTrainer
from training.trainers.plain import Trainer
from training.trainers.settings import FitSettings

TRAINERS: dict[str, type[Trainer]] = {
    "plain": Trainer,
    "copy": CopyTrainer,
    "mixfm": MixTrainer,
    "smfm": SaliencyMixTrainer,
    "maxup": MaxUpTrainer,
}


def make_trainer(layout: Layout, train: LabelledRows, valid: LabelledRows, settings: FitSettings) -> Trainer:
    """The trainer of ``settings.method`` (plain llfm: its own), with freshly drawn parameters."""
    if settings.model == "llfm":
        return LocalTrainer(layout, train, valid, settings)
    return TRAINERS[settings.method](layout, train, valid, settings)
