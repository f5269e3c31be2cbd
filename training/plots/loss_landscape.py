"""How fast the training loss rises around the trained vectors, along one direction (SharpCF paper, figure 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.reproduction import Reproduction
    from training.trainers.pairwise import PairwiseTrainer

F32 = NDArray[np.float32]
POINTS = 41
DIRECTION_SEED = 0x51A9


def draw(
    result: Reproduction, figure: Figure, *, rows: list[str], seed: int, pairs: int = 20_000, reach: float = 2.0
) -> str:
    """``rows``: labels of pairwise rows, whose run with ``seed`` is taken; ``pairs``: training positives, the same for
    all rows, each with the same negative; ``reach``: t goes from -reach to reach.

    Random panel: theta + t d with d normal, each vector of d as long as theta's own (Li et al. 2018, "filter
    normalisation"). Adversarial panel: d is the gradient of these pairs' loss, each vector of it again as long as
    theta's own.
    """
    random, adversarial = figure.subplots(1, 2)
    figure.set_size_inches(10, 4)
    steps = np.linspace(-reach, reach, POINTS)
    for label in rows:
        trainer, table = _restored(result, label, seed)
        index = np.sort(np.random.default_rng(DIRECTION_SEED).permutation(len(trainer.pairs))[:pairs])
        negatives = trainer.negatives(index, 0)
        noise = np.random.default_rng(DIRECTION_SEED + 1).standard_normal(table.shape).astype(np.float32)
        gradient = trainer.gradient(index, negatives)
        for axes, direction in ((random, noise), (adversarial, gradient)):
            along = as_long_as(direction, table)
            losses = [trainer.loss(table + np.float32(t) * along, index, negatives) for t in steps]
            axes.plot(steps, losses, label=label)
    for axes, name in ((random, "random direction"), (adversarial, "gradient's direction")):
        axes.set(xlabel="t", ylabel="mean BPR loss of training pairs", title=name)
        axes.grid(alpha=0.3)
    random.legend(fontsize=8)
    return (
        f"BPR loss of {pairs:,} training pairs at theta + t d, seed {seed}; every vector of d is as long as theta's own"
    )


def as_long_as(direction: F32, table: F32) -> F32:
    """``direction`` with each vector scaled to the length of the table's, and no linear part."""
    out = direction.copy()
    out[:, -1] = 0.0
    length = np.linalg.norm(out, axis=1, keepdims=True)
    wanted = np.linalg.norm(table[:, :-1], axis=1, keepdims=True)
    scaled: F32 = (out * np.where(length > 0, wanted / np.maximum(length, 1e-30), 0.0)).astype(np.float32)
    return scaled


def _restored(result: Reproduction, label: str, seed: int) -> tuple[PairwiseTrainer, F32]:
    """A row's trainer with its trained table, and a copy of that."""
    from training.run import Run, trainer_of
    from training.trainers.pairwise import PairwiseTrainer

    folder = result.run_folder(label, seed)
    if not (folder / "run.json").exists():
        raise UsageError(f"plot 'loss_landscape': expected a run of row {label!r} with seed {seed}, found none")
    run = Run.open(folder)
    trainer = trainer_of(run.open_prepared(), run.settings)
    if not isinstance(trainer, PairwiseTrainer):
        raise UsageError(f"plot 'loss_landscape': expected pairwise rows, found {label!r} ({run.settings.method})")
    values = run.restore_features(trainer.table.layout)
    trainer.table.values[...] = values
    return trainer, values
