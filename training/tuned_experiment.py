"""The winner of a search as an experiment file, which ``reproduce`` runs with seeds that the search has not seen."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from training.experiment import ROW_DEFAULTS, parse_experiment
from training.measures import find_measure
from training.prepared import Prepared
from training.spec import shipped_specs
from training.trainers.settings import FitSettings
from training.tuning import TuneResult

SEEDS = 3
METRICS = {
    "logistic": ["auc", "log_loss"],
    "squared": ["mse", "rmse"],
    "pairwise": ["recall@10", "ndcg@10", "recall@20", "ndcg@20"],
}


def write_winner(result: TuneResult, prepared: Prepared, out: Path) -> Path:
    """Write OUT/winner.toml, and OUT/spec.toml unless the data are of a shipped spec; returns the file's path."""
    spec = _shipped(prepared)
    if spec is None:
        spec = "spec.toml"
        (out / spec).write_text(prepared.info["spec"], encoding="utf-8")
    text = experiment_text(result, prepared, spec)
    parse_experiment(text, "winner.toml")
    (out / "winner.toml").write_text(text, encoding="utf-8")
    return out / "winner.toml"


def experiment_text(result: TuneResult, prepared: Prepared, spec: str) -> str:
    """The file's text; ``spec``: the name or file of the data's spec."""
    s = result.settings
    own_epoch = find_measure(result.objective).name not in ("log_loss", "mse")
    first = max(result.seeds) + 1
    head = {
        "name": f"tuned_{s.model}_{prepared.name}",
        "title": f"{s.model} tuned on {prepared.name}",
        "paper": "No paper: the winner of ctrank-train tune.",
        "spec": spec,
        "metrics": list(dict.fromkeys([result.objective, *METRICS[s.loss], "parameters", "epoch_s"])),
        "split_seed": prepared.info["split"]["seed"],
        "best_epoch": "each metric" if own_epoch else "loss",
        "seeds": list(range(first, first + SEEDS)),
        "notes": [
            f"Chosen by {result.objective} on validation ({result.value:.5f}, mean over {len(result.seeds)} seed(s)), "
            f"of {result.finished} finished and {result.pruned} shortened trials; the seeds here are others."
        ],
    }
    default = FitSettings().to_json() | ROW_DEFAULTS
    left_out = ("seed", "calibration")  # given by the experiment; uncalibrated, as what was searched
    own = {k: v for k, v in s.to_json().items() if k not in left_out and v is not None and v != default.get(k)}
    rows = {"label": s.model + (f" rank {s.rank}" if s.rank else ""), "model": s.model}
    settings = {k: v for k, v in own.items() if k != "model"}
    parts = [_table(head), "[settings]\n" + _table(settings), "[[rows]]\n" + _table(rows)]
    return "# Written by ctrank-train tune.\n" + "\n".join(parts)


def _shipped(prepared: Prepared) -> str | None:
    """The shipped spec that the data were prepared with, by its text."""
    for name in shipped_specs():
        text = (resources.files("training.specs") / f"{name}.toml").read_text(encoding="utf-8")
        if text == prepared.info["spec"]:
            return name
    return None


def _table(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in values.items())


def _value(value: Any) -> str:
    """TOML of a string, number, boolean or a list of them; JSON writes all of these alike."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
