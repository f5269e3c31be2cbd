"""A comparison as a picture: accuracy against each cost, a panel each, with its Pareto front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.comparison import Comparison

TITLES = {"fm": "FM", "fwfm": "FwFM", "pruned_fwfm": "pruned FwFM", "dplr": "DPLR", "rafm": "RaFM"}
MARKERS = {"fm": "s", "fwfm": "D", "pruned_fwfm": "v", "dplr": "o", "rafm": "^"}
AXES = {
    "inline_us": "1,000 items, inline fields (us)",
    "ids_us": "1,000 items, catalogue ids (us)",
    "artefact_bytes": "artefact (KB)",
}


def draw_comparison(result: Comparison, path: Path) -> None:
    """Write the PNG: validation accuracy upwards, better is higher; latency and size to the right, cheaper is left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    costs = [cost for cost in AXES if getattr(result.rows[0].cost, cost) is not None]
    figure = Figure(figsize=(4.6 * len(costs), 4.6))
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for cost, axes in zip(costs, panels, strict=True):
        _panel(result, cost, axes)
    panels[0].set_ylabel(f"validation {result.metric.name}")
    if result.metric.lower_is_better:
        panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="lower center", ncols=len(labels))
    figure.suptitle(
        f"{result.prepared.name}: accuracy against the cost of serving (ringed: Pareto front; numbers: rank)"
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(result: Comparison, cost: str, axes: Any) -> None:
    scale = 1e-3 if cost == "artefact_bytes" else 1.0
    accuracy = {row.candidate.label: row.mean_and_sd(result.metric.name, "valid") for row in result.rows}
    points = [(getattr(row.cost, cost) * scale, *accuracy[row.candidate.label], row) for row in result.rows]
    front = sorted((x, y) for x, y, _, row in points if cost in row.fronts)
    axes.plot(*zip(*front, strict=True), color="0.6", drawstyle="steps-post", zorder=1)
    for number, (family, marker) in enumerate(MARKERS.items()):
        of_family = [(x, y, sd) for x, y, sd, row in points if row.candidate.settings.model == family]
        if of_family:
            xs, ys, deviations = zip(*of_family, strict=True)
            axes.errorbar(xs, ys, yerr=deviations if any(deviations) else None, fmt=marker, color=f"C{number}",
                          markersize=6, capsize=2, label=TITLES[family])  # fmt: skip
    for x, y, _, row in points:
        if cost in row.fronts:
            axes.plot(x, y, "o", markersize=11, fillstyle="none", color="0.2")
        s = row.candidate.settings
        rank = ",".join(map(str, s.ranks)) or str(s.rank or "")
        axes.annotate(rank, (x, y), xytext=(7, 3), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter("{x:,g}")
    axes.tick_params(axis="x", which="both", labelsize=7)
    axes.set_xlabel(AXES[cost])
    axes.margins(x=0.12, y=0.1)
    axes.grid(alpha=0.3, which="both")
