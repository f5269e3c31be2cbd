"""Latency percentiles against throughput."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PANELS = {
    "thousand": "1,000 candidates (open-loop client)",
    "realistic": "realistic traffic (open-loop client)",
    "steps": "realistic traffic (Locust)",
}
_COLOURS = {"ctrank": "tab:blue", "floor": "tab:gray"}
_STYLES = {"p50_ms": ":", "p99_ms": "-", "p999_ms": "--"}
_MOST = 20.0  # times the objective: beyond it the line only says "overloaded"


def draw(summary: dict[str, Any], shown: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One panel per client and traffic: p50, p99 and p99.9 of the service and of the floor against the load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    objective = summary["objective_ms"]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 4.5), sharey=True, layout="constrained")
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        part = summary["parts"][name]
        for server, colour in _COLOURS.items():
            stages = sorted((s for s in shown[name] if s["server"] == server), key=lambda s: s["offered_per_s"])
            for column, style in _STYLES.items():
                points = [(s["offered_per_s"], s[column]) for s in stages if s[column] is not None]
                points = [(x, y) for x, y in points if y <= _MOST * objective]
                label = f"{server} {column.removesuffix('_ms').replace('p999', 'p99.9')}"
                axis.plot([x for x, _ in points], [y for _, y in points], style, color=colour, marker=".", label=label)
        axis.axhline(objective, color="tab:red", linewidth=0.8)
        found = part["capacity"]
        bound = "at least " if found["limit"] == "client" else ""
        axis.axvline(found["per_s"], color="tab:red", linewidth=0.8, linestyle=":")
        axis.set_title(f"{title}\n{bound}{found['per_s']:,.0f} requests/s at p99 <= {objective:g} ms", fontsize=10)
        axis.set_xlabel("requests per second")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("latency from when due, ms")
    axes[0].legend(fontsize=8)
    figure.suptitle(f"one worker on one core of {summary['machine']['cpu']}", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
