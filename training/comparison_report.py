"""A comparison on disk: OUT/compare_NAME.json, .md and .png."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.comparison import COSTS, Comparison, Row
from training.comparison_chart import draw_comparison
from training.provenance import commit, in_words, machine
from training.serving_cost import ServingCost
from training.trainers.checkpoint import write_bytes


def write_report(result: Comparison, out: Path) -> str:
    """Write everything; returns the Markdown."""
    name = f"compare_{result.prepared.name}"
    found = document(result)
    write_bytes(out / f"{name}.json", (json.dumps(found, indent=2) + "\n").encode())
    draw_comparison(result, out / f"{name}.png")
    text = markdown(result, found, f"{name}.png")
    write_bytes(out / f"{name}.md", text.encode())
    return text


def publish_command(result: Comparison, row: Row) -> str:
    """The command that publishes a row's chosen run."""
    folder, name = str(result.run_folder(row)), result.prepared.name
    return f"ctrank-train export {shlex.quote(folder)} --registry registry --name {shlex.quote(name)} --activate"


def document(result: Comparison) -> dict[str, Any]:
    """The JSON document."""
    prepared = result.prepared
    return {
        "data": {
            "name": prepared.name,
            "fingerprint": prepared.fingerprint,
            "rows": {split: prepared.rows(split) for split in ("train", "valid", "test")},
            "features": sum(field.size for field in prepared.fields),
            "fields": {side: [f.name for f in prepared.fields if f.side == side] for side in ("context", "item")},
        },
        "metric": result.metric.name,
        "seeds": list(result.seeds),
        "slate": result.slate,
        "machine": machine(),
        "commit": commit(),
        "rows": [
            {
                "label": row.candidate.label,
                "settings": row.candidate.settings.to_json(),
                "valid": {m: row.mean_and_sd(m, "valid") for m in result.metrics},
                "test": {m: row.mean_and_sd(m, "test") for m in result.metrics},
                "parameters": row.figures[0].test["parameters"],
                "cost": asdict(row.cost),
                "fronts": [COSTS[front] for front in row.fronts],
                "publish": publish_command(result, row) if row.fronts else None,
                "runs": [asdict(figure) for figure in row.figures],
            }
            for row in result.rows
        ],
    }


def markdown(result: Comparison, found: dict[str, Any], picture: str) -> str:
    """The report for people."""
    data, slate = found["data"], found["slate"]
    sides = {side: ", ".join(names) for side, names in data["fields"].items()}
    chosen = [row for row in result.rows if row.fronts]
    direction = "lower" if result.metric.lower_is_better else "higher"
    with_ids = result.rows[0].cost.ids_us is not None
    heads = ["model", *(f"{s} {m}" for m in result.metrics for s in ("valid", "test"))]
    heads += ["inline us", *(["ids us"] if with_ids else []), "artefact KB", "weights KB", "front"]
    table = [heads, ["---"] * len(heads), *(_cells(result, row) for row in result.rows)]
    of_ids = " *ids*: items by catalogue id, their side precomputed." if with_ids else ""
    from_where = f"a catalogue of {slate['drawn_from']:,}" if slate["catalogue"] else "the rows' items"
    rows = ", ".join(f"{count:,} {split}" for split, count in data["rows"].items())
    lines = [
        f"# Accuracy against the cost of serving: {data['name']}",
        "",
        f"![{result.metric.name} on validation against latency and size; the lines are Pareto fronts]({picture})",
        "",
        *("| " + " | ".join(cells) + " |" for cells in table),
        "",
        f"**Front**: no other model is at least as good in both validation {result.metric.name} ({direction} is "
        "better) and that cost, and better in one. Choose by validation; test figures are for reporting. "
        f"Figures are {_over(result)}.",
        "",
        f"Latency: microseconds of one core from encoded ids to the best {slate['top_k']} of {slate['items']:,} items "
        f"of {from_where}, context state included, HTTP and JSON left out; median of {slate['repetitions']:,} turns of "
        f"{slate['calls_per_turn']} calls, all models in turn. *inline*: the items' fields are scored.{of_ids} "
        "Artefact: all files of the published folder; vocabulary and catalogue are the same for all models.",
        "",
        "## Publish one",
        "",
        *(f"- {r.candidate.label} ({', '.join(COSTS[f] for f in r.fronts)}): `{publish_command(result, r)}`"
          for r in chosen),
        "",
        "## Where it comes from",
        "",
        f"- Data: {rows} rows; {data['features']:,} features; context {sides['context']}; item {sides['item']}; "
        f"fingerprint {data['fingerprint'][:16]}.",
        "- Settings: the defaults of `ctrank-train fit` for each family.",
        f"- Code: commit {found['commit'] or 'unknown'}. Machine: {in_words(found['machine'])}.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _over(result: Comparison) -> str:
    n = len(result.seeds)
    return "those of one seed" if n == 1 else f"means and standard deviations over {n} seeds"


def _cells(result: Comparison, row: Row) -> list[str]:
    def accuracy(metric: str, split: str) -> str:
        mean, deviation = row.mean_and_sd(metric, split)
        return f"{mean:.4f}" + (f" ± {deviation:.4f}" if len(result.seeds) > 1 else "")

    cost: ServingCost = row.cost
    figures = [accuracy(m, s) for m in result.metrics for s in ("valid", "test")]
    times = [f"{us:.1f}" for us in (cost.inline_us, cost.ids_us) if us is not None]
    sizes = [f"{n / 1e3:,.0f}" for n in (cost.artefact_bytes, cost.weights_bytes)]
    fronts = ", ".join(f"**{COSTS[front]}**" for front in row.fronts)
    return [row.candidate.label, *figures, *times, *sizes, fronts]
