"""The report of a run: `summary.json`, `summary.md`, `stages.csv`, `capacity.png`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadtest.plot import PANELS, draw
from loadtest.stage import Stage, loads
from service.bench.machine import summary as machine_line

TITLES = {
    "steps": "Locust, realistic traffic",
    "thousand": "open-loop client, 1,000 candidates",
    "realistic": "open-loop client, realistic traffic",
    "soak": "Locust, soak",
}
_COLUMNS = ("p50_ms", "p90_ms", "p99_ms", "p999_ms")


def write_report(folder: Path, summary: dict[str, Any]) -> str:
    """Write the files; the text of `summary.md`."""
    text = markdown(summary)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / "summary.md").write_text(text)
    with open(folder / "stages.csv", "w", newline="") as file:
        writer = csv.writer(file)
        rows = list(_rows(summary))
        writer.writerow(rows[0])
        writer.writerows(row.values() for row in rows)
    draw(summary, {name: representative(summary, name) for name in PANELS}, folder / "capacity.png")
    return text


def _rows(summary: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, part in summary["parts"].items():
        for stage in part.get("stages", ()):
            yield {"part": name, **{k: v for k, v in stage.items() if k != "faults"}}


def representative(summary: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """The stages to show: of several at one load the one that stands for it; of a soak all."""
    found = summary["parts"][part]["stages"]
    if part == "soak":
        return list(found)
    stages = [Stage.from_dict(stage) for stage in found]
    objective = summary["objective_ms"]
    shown = [*loads(stages, "ctrank", objective), *loads(stages, "floor", objective)]
    return [stage.to_dict() for stage in sorted(shown, key=lambda s: (s.offered_per_s, s.server))]


def markdown(summary: dict[str, Any]) -> str:
    """The figures for people."""
    parts, model = summary["parts"], summary["model"]
    lost = " and ".join(f"{share:.0%}" for share in summary["lost_to_others"].values())
    lines = [
        f"# Load test: {'passed' if summary['passed'] else 'FAILED'}",
        "",
        f"- machine: {machine_line(summary['machine'])}",
        f"- {summary['placement']}; at nice {summary['nice']}; other processes took {lost} of the cores before",
        f"- model `{model['name']}`: {model['items']:,} items, {model['context_fields']} context fields; one worker",
        "- latency: milliseconds from the time a request was due (Poisson arrivals, not slowed down by slow replies)",
        "  to the last byte of its reply; it includes the client, the loopback, HTTP, parsing, ranking and the reply",
        "",
        f"| capacity at p99 <= {summary['objective_ms']:g} ms | requests/s | cores used | requests per core-second |",
        "|---|---:|---:|---:|",
    ]
    for name in ("thousand", "realistic", "steps"):
        found = parts[name]["capacity"]
        bound = "at least " if found["limit"] == "client" else ""
        lines.append(
            f"| {TITLES[name]} | {bound}{found['per_s']:,.0f} | {_number(found['cores_used'], '.2f')} |"
            f" {_number(found['requests_per_core_s'], ',.0f')} |"
        )
    lines += ["", '"At least": the client did not keep up with the floor application at the next load either.', ""]
    for name in ("thousand", "realistic", "steps", "soak"):
        lines += [
            f"## {TITLES[name].capitalize()}",
            "",
            "| | offered/s | answered/s | p50 | p90 | p99 | p99.9 | errors | lost contexts |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for stage in representative(summary, name):
            cells = " | ".join(_number(stage[c], ",.2f") for c in _COLUMNS)
            lines.append(
                f"| {stage['server']} | {stage['offered_per_s']:,.0f} | {stage['achieved_per_s']:,.0f} | {cells} |"
                f" {stage['errors']} | {stage['lost_contexts']} |"
            )
        lines.append("")
    lines += ["## Checks", ""]
    for name, part in parts.items():
        for check in part["checks"]:
            verdict = "pass" if check["passed"] else "**FAIL**"
            lines.append(f"- {verdict}: {name}: {check['name']}: {check['found']} (expected {check['expected']})")
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
