"""A metric against a setting: one line per group of rows (sensitivity to n', p or d, robustness to noise)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.reproduction import Reproduction


def draw(
    result: Reproduction, figure: Figure, *, x: str, lines: dict[str, list[str]], metric: str = "", log_x: bool = False
) -> str:
    """``x``: a setting of the rows; ``lines``: name -> labels of the rows that make the line; ``metric``: default the
    experiment's first; ``log_x``: logarithmic axis.
    """
    metric = metric or result.experiment.metrics[0]
    axes = figure.subplots()
    for name, labels in lines.items():
        points = sorted((_setting(result, label, x), *result.mean_and_sd(label, metric)) for label in labels)
        xs, means, deviations = zip(*points, strict=True)
        axes.errorbar(xs, means, yerr=deviations, marker="o", markersize=4, capsize=3, label=name)
    if log_x:
        axes.set_xscale("log")
    axes.set(xlabel=x, ylabel=f"test {metric}", title=result.experiment.title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return f"test {metric} against {x}"


def _setting(result: Reproduction, label: str, name: str) -> float:
    settings = result.experiment.row(label).settings.to_json()
    if not isinstance(settings.get(name), int | float):
        raise UsageError(f"plot 'curve': x: expected a setting that is a number in row {label!r}, found {name!r}")
    return float(settings[name])
