"""How much AUC a trained model loses when its inputs are disturbed.

Every active feature's value x becomes x + size z with z standard normal, on the test split; the draws are the same for
all rows and seeds. It asks what section 6.6 of the mixup paper asks of MixFM (its text does not say where its noise
goes).
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.reproduction import Reproduction


def draw(result: Reproduction, figure: Figure, *, rows: list[str], sizes: list[float]) -> str:
    """``rows``: labels; ``sizes``: of the noise. One line per row, the mean over its seeds."""
    axes = figure.subplots()
    told = []
    for label in rows:
        by_seed = [_areas(result, label, found.seed, sizes) for found in result.of_row(label)]
        lost = [[area - areas[0] for area in areas[1:]] for areas in by_seed]
        means = [statistics.fmean(column) for column in zip(*lost, strict=True)]
        deviations = [statistics.stdev(c) if len(c) > 1 else 0.0 for c in zip(*lost, strict=True)]
        axes.errorbar(sizes, means, yerr=deviations, marker="o", markersize=4, capsize=3, label=label)
        told.append(f"{label} {', '.join(f'{mean:+.4f}' for mean in means)}")
    axes.set(xlabel="standard deviation of the noise on x", ylabel="change of test AUC", title=result.experiment.title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    shown = ", ".join(f"{size:g}" for size in sizes)
    return f"change of test AUC with noise of {shown} on every x, best validation loss: {'; '.join(told)}"


def _areas(result: Reproduction, label: str, seed: int, sizes: list[float]) -> list[float]:
    """Test AUC of a run without noise, then with noise of each size."""
    import torch

    from training.batches import Layout, ordered_batches
    from training.metrics import auc
    from training.mixing import Mixer, Pairs
    from training.run import Run, labelled
    from training.trainers.plain import EVALUATION_BATCH

    run = Run.open(result.run_folder(label, seed))
    prepared = run.open_prepared()
    layout, test = Layout.of(prepared.fields), labelled(prepared, "test")
    model, table = run.restore(layout)
    areas = []
    for size in [0.0, *sizes]:
        rng = np.random.default_rng(0)
        scores = []
        for window in ordered_batches(test, EVALUATION_BATCH):
            batch = Mixer(layout, window)(Pairs.unmixed(np.arange(len(window))))
            noise = rng.standard_normal(len(batch.multi_weights)).astype(np.float32)
            disturbed = replace(batch, multi_weights=batch.multi_weights + np.float32(size) * noise)
            with torch.inference_mode():
                scores.append(model.logits(*table.gather(disturbed, needs_grad=False)).numpy())
        areas.append(auc(test.label, np.concatenate(scores)))
    return areas
