"""A reproduction in Markdown: the table beside the published one, verdicts, settings, notes, where it comes from."""

from __future__ import annotations

from typing import Any

from training.claims import Verdict
from training.experiment import PUBLISHED
from training.measures import find_measure
from training.provenance import in_words
from training.reproduction import Reproduction
from training.trainers.settings import FitSettings

ALWAYS_TOLD = ("dim", "loss", "optimiser", "learning_rate", "l2", "l2_linear", "batch_size", "epochs", "patience")


def markdown(result: Reproduction, verdicts: list[Verdict], pictures: list[tuple[str, str]]) -> str:
    """The whole page. ``pictures``: file name and caption of each."""
    e = result.experiment
    parts = [f"# {e.title}", e.paper, _figures(result)]
    if result.quick:
        parts.append(
            "**Quick run: one seed, few epochs, the first rows of the log. It shows that all works, no more.**"
        )
    parts.append(_how_to_read(result))
    title = "## Claims (no verdict can be read off a quick run)" if result.quick else "## Claims"
    parts += _titled(title, [f"- {verdict}" for verdict in verdicts])
    parts += _titled("## Notes", [f"- {note}" for note in [*_row_notes(result), *e.notes]])
    parts += ["## Settings", _settings(result), "## Where it comes from", _provenance(result)]
    parts += [f"![{caption}]({name})" for name, caption in pictures]
    return "\n\n".join(parts) + "\n"


def _titled(title: str, lines: list[str]) -> list[str]:
    return [title, "\n".join(lines)] if lines else []


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _figures(result: Reproduction) -> str:
    e = result.experiment
    columns = [
        (metric, column)
        for metric in e.metrics
        for column in e.columns
        if any(result.published(row.label, column, metric) is not None for row in e.rows)
    ]
    head, rows = ["model"], [[row.label] for row in e.rows]
    for metric in e.metrics:
        head.append(f"{metric} here")
        for cells in rows:
            cells.append(_mean(result, cells[0], metric))
        for _, column in (pair for pair in columns if pair[0] == metric):
            head.append(f"{metric} {column}" if column == PUBLISHED else column)
            for cells in rows:
                found = result.published(cells[0], column, metric)
                cells.append("" if found is None else find_measure(metric).write(found))
    head.append("seeds")
    for cells in rows:
        cells.append(str(len(result.of_row(cells[0]))))
    return _table(head, rows)


def _mean(result: Reproduction, label: str, metric: str) -> str:
    measure = find_measure(metric)
    mean, deviation = result.mean_and_sd(label, metric)
    exact = deviation == 0 and measure.of_run is not None
    if exact or len(result.of_row(label)) == 1:
        return measure.write(mean)
    return f"{measure.write(mean)} ± {measure.write(deviation)}"


def _how_to_read(result: Reproduction) -> str:
    e = result.experiment
    directions = []
    for metric in e.metrics:
        lower = find_measure(metric).lower_is_better
        directions.append(metric + ("" if lower is None else " (lower is better)" if lower else " (higher is better)"))
    epoch = "the best validation loss" if e.best_epoch == "loss" else "its own best validation figure"
    most = max(len(result.of_row(row.label)) for row in e.rows)
    single = [row.label for row in e.rows if len(result.of_row(row.label)) == 1]
    text = f"Test split; mean ± standard deviation over the seeds: {', '.join(directions)}. "
    text += f"Each figure is of the epoch with {epoch}."
    if single and most > 1:
        text += f" One seed only, for the time a run takes: {', '.join(single)}."
    return text


def _row_notes(result: Reproduction) -> list[str]:
    return [f"{row.label}: {row.note}" for row in result.experiment.rows if row.note]


def _settings(result: Reproduction) -> str:
    """What all rows share in a line (what is as ``FitSettings`` has it is left out, but for the first few), and what
    differs in a table.
    """
    e = result.experiment
    chosen = [(row.quick if result.quick else row.settings).to_json() for row in e.rows]
    names = [name for name in chosen[0] if name != "seed"]
    differ = [name for name in names if any(settings[name] != chosen[0][name] for settings in chosen)]
    default = FitSettings().to_json()
    told = [n for n in names if n not in differ and (n in ALWAYS_TOLD or chosen[0][n] != default[n])]
    shared = ", ".join(f"{name} {_word(chosen[0][name])}" for name in told)
    head = ["row", *(name for name in differ), "epochs run", "best epochs"]
    rows = []
    for row, settings in zip(e.rows, chosen, strict=True):
        figures = result.of_row(row.label)
        best = {metric: ", ".join(str(f.epochs[metric]) for f in figures) for metric in e.metrics}
        on_split = {m: at for m, at in best.items() if find_measure(m).of_run is None} or best
        same = len(set(on_split.values())) == 1
        shown = next(iter(on_split.values())) if same else "; ".join(f"{m} {at}" for m, at in on_split.items())
        cells = [row.label, *(_word(settings[name]) for name in differ)]
        rows.append([*cells, ", ".join(str(f.epochs_run) for f in figures), shown])
    return f"All: {shared}; else as in training/trainers/settings.py.\n\n{_table(head, rows)}"


def _word(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(_word(part) for part in value) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _provenance(result: Reproduction) -> str:
    data, e = result.data, result.experiment
    rows = ", ".join(f"{count:,} {split}" for split, count in data["rows"].items())
    split = "another split for each seed" if e.split_seed is None else f"split seed {e.split_seed}"
    commits = [c for c in dict.fromkeys(f.commit for f in result.figures) if c]
    at_once = sorted({f.at_once for f in result.figures})
    lines = [
        f"- Command: `ctrank-train reproduce {e.name}{' --quick' if result.quick else ''}`; seeds "
        f"{', '.join(str(s) for s in dict.fromkeys(f.seed for f in result.figures))}; {split}.",
        f"- Data: {', '.join(data['source'])} ({rows} rows; {data['features']:,} features of {len(data['fields'])} "
        f"fields: {', '.join(data['fields'])}); fingerprint {', '.join(f[:16] for f in data['fingerprints'])}.",
        f"- Code: commit {', '.join(commits) or 'unknown'}.",
        f"- Machine: {in_words(result.machine)}; {', '.join(str(n) for n in at_once)} run(s) at once; "
        f"{sum(f.wall_s for f in result.figures) / 60:.1f} minutes of runs in all.",
    ]
    return "\n".join(lines)
