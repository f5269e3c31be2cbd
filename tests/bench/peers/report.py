"""The figures as a page and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.bench.machine import summary
from tests.bench.peers.functions import OTHER_MODEL
from tests.bench.peers.workload import SIZES, TOP_K

OURS = "ctrank"


def render(found: dict[str, Any]) -> str:
    """The page."""
    versions = ", ".join(f"{name} {v}" for name, v in found["versions"].items() if v)
    lines = [
        "# ctrank beside other servers",
        "",
        "DPLR rank 3, k = 8, 25 context and 38 item fields, a catalogue of 100,000 items; a request brings its context "
        f"and 100, 1,000 or 10,000 item ids, the reply has the best {TOP_K}; each request is another. Before it is "
        "timed, every scorer and server has returned the scores of the formula in float64 to 1e-5 of the largest, but "
        "for Vowpal Wabbit, whose model is another with weights of its own.",
        "",
        f"{summary(found['machine'])}; {versions}. One run, one server at a time, one worker and "
        "one thread for the model; the load client shares the cores. Each server was started and measured "
        f"{_times(found)}; each figure is the best.",
        "",
        "![medians and requests per second by slate size](peers.png)",
        "",
        "## Servers, over HTTP",
        "",
        "Median and p99 with one connection, requests per second and processor time of all of the server's processes "
        "per request with 16; memory (proportional set size) of these processes afterwards.",
        "",
        *_server_table(found),
        "",
        "## Scorers, in one process",
        "",
        "From feature rows (Vowpal Wabbit: from text) to the scores of all items, gathers and context included, in "
        "turns.",
        "",
        *_function_table(found["functions"]),
        "",
        "## Who wins",
        "",
        *_winners(found),
    ]  # fmt: skip
    for title, reasons in (("Not measured", found["missing"]), ("Failed", found["failed"])):
        if reasons:
            lines += ["", f"## {title}", "", *(f"- {name}: {reason}" for name, reason in reasons.items())]
    return "\n".join(lines) + "\n"


def _times(found: dict[str, Any]) -> str:
    passes = {server["passes"] for server in found["servers"].values()}
    return f"{max(passes, default=1)} times"


def _server_table(found: dict[str, Any]) -> list[str]:
    lines = ["| server | items | median us | p99 us | requests/s | CPU us/request | memory MB | processes |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, server in found["servers"].items():
        memory = server["memory"]
        for size in SIZES:
            one, many = (server["cells"][str(size)][n] for n in ("1", "16"))
            first = size == SIZES[0]
            tail = f"{memory['pss_bytes'] / 1e6:,.0f} | {memory['processes']}" if first else "|"
            lines.append(
                f"| {name if first else ''} | {size:,} | {one['median_us']:,.0f} | {one['p99_us']:,.0f} | "
                f"{many['per_s']:,.0f} | {many['cpu_us']:,.0f} | {tail} |"
            )
    return lines


def _function_table(functions: dict[str, Any]) -> list[str]:
    heads = [f"{size:,} items: {what}" for size in SIZES for what in ("median us", "p99 us")]
    lines = ["| scorer | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for name, times in functions.items():
        cells = [f"{times[str(size)][what]:,.0f}" for size in SIZES for what in ("median_us", "p99_us")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _winners(found: dict[str, Any]) -> list[str]:
    """The best of every column, and by how much ctrank is behind where it is not the best."""
    servers = found["servers"]
    lines = []
    for what, connections, key, lower in (
        ("median", "1", "median_us", True),
        ("p99", "1", "p99_us", True),
        ("requests/s", "16", "per_s", False),
        ("CPU per request", "16", "cpu_us", True),
    ):
        for size in SIZES:
            values = {name: server["cells"][str(size)][connections][key] for name, server in servers.items()}
            lines.append(_best(f"{what}, {size:,} items", values, lower))
    lines.append(_best("memory", {name: server["memory"]["pss_bytes"] for name, server in servers.items()}, True))
    for size in SIZES:
        values = {n: t[str(size)]["median_us"] for n, t in found["functions"].items() if n not in OTHER_MODEL}
        best = min(values, key=values.__getitem__)
        lines.append(f"- scorer, {size:,} items: **{best}**")
    return lines


def _best(title: str, values: dict[str, float], lower: bool) -> str:
    if not values:
        return f"- {title}: nothing measured"
    best = (min if lower else max)(values, key=values.__getitem__)
    text = f"- {title}: **{best}**"
    if OURS in values and best != OURS:
        ratio = values[OURS] / values[best] if lower else values[best] / values[OURS]
        text += f" (ctrank {ratio:.2f} times behind)"
    elif len(values) > 1:
        others = [v for name, v in values.items() if name != best]
        ratio = min(others) / values[best] if lower else values[best] / max(others)
        text += f" ({ratio:.2f} times ahead of the next)"
    return text


def draw(found: dict[str, Any], path: Path) -> None:
    """Median of one connection and throughput of 16 by slate size; medians of the scorers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5.6))
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    for number, (name, server) in enumerate(found["servers"].items()):
        style = dict(marker="o", color=f"C{number}", linewidth=2.5 if name == OURS else 1.2, label=name)
        cells = [server["cells"][str(size)] for size in SIZES]
        left.plot(SIZES, [c["1"]["median_us"] for c in cells], **style)
        middle.plot(SIZES, [c["16"]["per_s"] for c in cells], **style)
    for number, (name, times) in enumerate(found["functions"].items()):
        style = dict(marker="s", color=f"C{number}", linestyle="--" if name in OTHER_MODEL else "-", label=name)
        right.plot(SIZES, [times[str(size)]["median_us"] for size in SIZES], **style)
    titles = (
        (left, "HTTP, one connection: median (us)"),
        (middle, "HTTP, 16 connections: requests/s"),
        (right, "one process: median (us)"),
    )
    for axes, title in titles:
        axes.set(xscale="log", yscale="log", xlabel="items in the slate", title=title)
        axes.grid(alpha=0.3, which="both")
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100, metadata={"Software": None})
