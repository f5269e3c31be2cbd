"""A reproduction on disk: OUT/NAME.json, NAME.md, NAME.png, and NAME.PLOT.png for each plot that it asks for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.claims import Verdict
from training.experiment import Plot
from training.plots import PLOTS
from training.reproduction import Reproduction
from training.reproduction_table import markdown
from training.trainers.checkpoint import write_bytes


def write_report(result: Reproduction, out: Path) -> str:
    """Write everything; returns the Markdown."""
    name = result.file_name
    out.mkdir(parents=True, exist_ok=True)
    verdicts = check_claims(result)
    write_bytes(out / f"{name}.json", (json.dumps(document(result, verdicts), indent=2) + "\n").encode())
    pictures = []
    plots = [Plot("table", {}), *result.experiment.plots]
    for number, plot in enumerate(plots):
        again = sum(other.kind == plot.kind for other in plots[:number])
        file = f"{name}.png" if not number else f"{name}.{plot.kind}{again + 1 if again else ''}.png"
        pictures.append((file, _draw(result, plot, out / file)))
    text = markdown(result, verdicts, pictures)
    write_bytes(out / f"{name}.md", text.encode())
    return text


def check_claims(result: Reproduction) -> list[Verdict]:
    """The verdict on each claim, in the file's order."""
    return [claim.check(result) for claim in result.experiment.claims]


def document(result: Reproduction, verdicts: list[Verdict]) -> dict[str, Any]:
    """The JSON document."""
    e = result.experiment
    return {
        "experiment": e.name,
        "title": e.title,
        "paper": e.paper,
        "quick": result.quick,
        "metrics": list(e.metrics),
        "best_epoch": e.best_epoch,
        "split_seed": e.split_seed,
        "data": result.data,
        "machine": result.machine,
        "commits": list(dict.fromkeys(f.commit for f in result.figures)),
        "wall_s": round(sum(f.wall_s for f in result.figures), 1),
        "rows": [
            {
                "label": row.label,
                "mean": {m: result.mean_and_sd(row.label, m)[0] for m in e.metrics},
                "sd": {m: result.mean_and_sd(row.label, m)[1] for m in e.metrics},
                "published": row.figures,
                "settings": (row.quick if result.quick else row.settings).to_json(),
                "runs": [asdict(f) for f in result.of_row(row.label)],
            }
            for row in e.rows
        ],
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "notes": list(e.notes),
    }


def _draw(result: Reproduction, plot: Plot, path: Path) -> str:
    """Draw into ``path``; returns the caption."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    FigureCanvasAgg(figure)
    caption = PLOTS[plot.kind](result, figure, **plot.options)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return caption
