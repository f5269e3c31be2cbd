"""An experiment file: which models on which data with which settings, what the paper published, and what it claims.

The format is described in ``training/experiments/README.md``. Parsed strictly; ``load_experiment`` takes a shipped
name or a path.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from training.claims import Claim
from training.errors import UsageError
from training.measures import find_measure
from training.plots import check_plot
from training.trainers.settings import FitSettings

NEEDED = {"name", "title", "paper", "spec", "metrics", "seeds", "notes", "settings", "rows"}
OPTIONAL = {"split_seed", "best_epoch", "claims", "plots", "quick"}
BEST_EPOCHS = ("loss", "each metric")
PUBLISHED = "published"
#: Where a row names nothing: no rank, so that families without one need not say so; no calibration, as in the papers.
ROW_DEFAULTS = {"rank": None, "calibration": "none"}
OF_ROW = {"label", "published", "elsewhere", "seeds", "quick", "note"}


@dataclass(frozen=True)
class ExperimentRow:
    """One line of the table: a model's settings (the seed is filled in), also those of a quick run, how many of the
    experiment's seeds it gets, and the published figures: column -> metric -> figure.
    """

    label: str
    settings: FitSettings
    quick: FitSettings
    seeds: int
    figures: Mapping[str, Mapping[str, float]]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A drawing beside the table: a key of ``training.plots.PLOTS`` and its options."""

    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """A parsed experiment file. ``split_seed`` None: each seed splits the log anew. ``best_epoch`` "loss": every figure
    is that of the epoch with the best validation loss; "each metric": of the epoch where the metric itself was best on
    validation.
    """

    name: str
    title: str
    paper: str
    spec: str
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    notes: tuple[str, ...]
    rows: tuple[ExperimentRow, ...]
    split_seed: int | None = 0
    best_epoch: str = "loss"
    claims: tuple[Claim, ...] = ()
    plots: tuple[Plot, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Columns of published figures, in order of appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row.figures))

    def row(self, label: str) -> ExperimentRow:
        """The row called ``label``; UsageError if there is none."""
        for row in self.rows:
            if row.label == label:
                return row
        raise UsageError(f"experiment {self.name!r}: expected the label of a row, found {label!r}")


def shipped_experiments() -> list[str]:
    """Names of the experiment files in ``training/experiments``."""
    folder = resources.files("training.experiments")
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def load_experiment(name: str) -> Experiment:
    """The shipped experiment ``name``, or the file at that path; UsageError says what is wrong with it."""
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        experiment = parse_experiment(path.read_text(encoding="utf-8"), str(path))
        beside = path.parent / experiment.spec  # a spec file is named relative to the experiment file
        return replace(experiment, spec=str(beside)) if beside.is_file() else experiment
    if name not in shipped_experiments():
        raise UsageError(
            f"experiment {name!r}: expected 'all', a .toml file or one of {', '.join(shipped_experiments())}"
        )
    file = resources.files("training.experiments") / f"{name}.toml"
    return parse_experiment(file.read_text(encoding="utf-8"), f"experiment {name!r}")


def parse_experiment(text: str, where: str) -> Experiment:
    """Parse the text of an experiment file; ``where`` names it in errors."""
    try:
        raw = tomllib.loads(text)
        _check_keys(raw, NEEDED, OPTIONAL, "")
        metrics = tuple(raw["metrics"])
        if not metrics:
            raise UsageError("metrics: expected at least one")
        for metric in metrics:
            find_measure(metric)
        best_epoch = raw.get("best_epoch", "loss")
        if best_epoch not in BEST_EPOCHS:
            raise UsageError(f"best_epoch: expected one of {', '.join(BEST_EPOCHS)}, found {best_epoch!r}")
        seeds = tuple(int(seed) for seed in raw["seeds"])
        if not seeds or len(set(seeds)) != len(seeds):
            raise UsageError(f"seeds: expected distinct numbers, found {list(seeds)}")
        rows = tuple(_row(row, raw["settings"], raw.get("quick", {}), len(seeds), metrics) for row in raw["rows"])
        labels = [row.label for row in rows]
        if not rows or len({slug(label) for label in labels}) != len(labels):
            raise UsageError(f"rows: expected labels that differ in their letters and digits, found {labels}")
        split_seed = raw.get("split_seed", 0)
        if split_seed != "seed" and (not isinstance(split_seed, int) or split_seed < 0):
            raise UsageError(
                f"split_seed: expected a number, or 'seed' for another split per seed, found {split_seed!r}"
            )
        experiment = Experiment(
            name=raw["name"], title=raw["title"], paper=raw["paper"], spec=raw["spec"], metrics=metrics, seeds=seeds,
            notes=tuple(raw["notes"]), rows=rows, split_seed=None if split_seed == "seed" else split_seed,
            best_epoch=best_epoch, claims=tuple(Claim.parse(c, metrics[0]) for c in raw.get("claims", ())),
            plots=tuple(_plot(plot) for plot in raw.get("plots", ())),
        )  # fmt: skip
        for claim in experiment.claims:
            _check_claim(claim, experiment)
        return experiment
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{where}: expected an experiment file, found {error!r}") from None


def slug(label: str) -> str:
    """A label as a folder's name."""
    return "".join(c if c.isalnum() else "-" for c in label.lower())


def _row(
    raw: dict[str, Any], common: dict[str, Any], quick: dict[str, Any], seeds: int, metrics: tuple[str, ...]
) -> ExperimentRow:
    label = str(raw["label"])
    settings = ROW_DEFAULTS | common | {k: v for k, v in raw.items() if k not in OF_ROW}
    fewer = raw.get("seeds", seeds)
    if not isinstance(fewer, int) or not 1 <= fewer <= seeds:
        raise UsageError(f"row {label!r}: seeds: expected 1 to {seeds}, how many of the seeds, found {fewer!r}")
    figures = {PUBLISHED: raw["published"]} if raw.get("published") else {}
    figures |= raw.get("elsewhere", {})
    for column, found in figures.items():
        unknown = sorted(set(found) - set(metrics))
        if unknown:
            raise UsageError(f"row {label!r}: {column}: expected figures of {', '.join(metrics)}, found {unknown[0]!r}")
    shortened = settings | {"epochs": 2} | quick | raw.get("quick", {})
    try:
        full, short = FitSettings.from_json(settings), FitSettings.from_json(shortened)
    except (ValueError, TypeError) as error:
        raise UsageError(f"row {label!r}: {error}") from None
    columns = {column: {m: float(v) for m, v in found.items()} for column, found in figures.items()}
    return ExperimentRow(label, full, short, fewer, columns, raw.get("note", ""))


def _plot(raw: dict[str, Any]) -> Plot:
    options = {k: v for k, v in raw.items() if k != "kind"}
    check_plot(raw["kind"], options)
    return Plot(raw["kind"], options)


def _check_claim(claim: Claim, experiment: Experiment) -> None:
    labels = {row.label for row in experiment.rows}
    unknown = sorted(set(claim.rows) - labels)
    if unknown:
        raise UsageError(f"claim: expected labels of rows, found {unknown[0]!r}")
    if claim.metric not in experiment.metrics:
        raise UsageError(f"claim: expected a metric of the experiment, found {claim.metric!r}")
    if claim.kind == "near" and claim.metric not in experiment.row(claim.rows[0]).figures.get(claim.column, {}):
        raise UsageError(
            f"claim: expected a figure {claim.metric!r} of {claim.rows[0]!r} in the column {claim.column!r}, found none"
        )


def _check_keys(raw: dict[str, Any], needed: set[str], optional: set[str], where: str) -> None:
    missing, unknown = sorted(needed - set(raw)), sorted(set(raw) - needed - optional)
    if missing or unknown:
        raise UsageError(f"{where}expected the keys {sorted(needed)}, found missing {missing}, unknown {unknown}")
