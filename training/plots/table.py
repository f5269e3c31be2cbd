"""The table as a picture: a panel per metric, our mean and deviation beside the published figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.measures import MEASURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.reproduction import Reproduction

MARKERS = "sxd^v*"


def draw(result: Reproduction, figure: Figure) -> str:
    """All metrics that are measured on a split (sizes and times are left to the table)."""
    experiment = result.experiment
    on_split = [m for m in experiment.metrics if m not in MEASURES or MEASURES[m].of_run is None]
    metrics = on_split or list(experiment.metrics)
    labels = [row.label for row in experiment.rows]
    figure.set_size_inches(2.5 + 3.5 * len(metrics), 1.6 + 0.32 * len(labels))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    at = list(range(len(labels)))
    for metric, axes in zip(metrics, panels, strict=True):
        ours = [result.mean_and_sd(label, metric) for label in labels]
        axes.errorbar([m for m, _ in ours], at, xerr=[s for _, s in ours], fmt="o", capsize=4, label="here, mean ± sd")
        for column, marker in zip(experiment.columns, MARKERS, strict=False):
            found = [(result.published(label, column, metric), i) for i, label in enumerate(labels)]
            points = [(value, i) for value, i in found if value is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker, fillstyle="none", label=column)
        axes.set(xlabel=f"test {metric}")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(at, labels)
    panels[0].invert_yaxis()
    panels[0].legend(fontsize=8)
    figure.suptitle(experiment.title)
    return f"test {', '.join(metrics)}: circles are ours"
