"""What ``tune`` searches: settings with their limits, log-uniform where both are above zero, else uniform.

Learning rate in [1e-4, 0.2] as in the DPLR paper; L2 of vectors and of linear weights in [1e-8, 1e-3] (the paper
searches [0, 1e-4], of a penalty that its code scales otherwise); for the families with a field matrix (R, or U and e)
the spread of the first one in [0.01, 0.5] (the paper fixes 0.01) and its share of the learning rate in [0.001, 1]
(the paper: 1); for mixfm and smfm the parameter of the Beta distribution in [0.1, 2] (the paper: 0.5 or 1), for apr
the adversary's weight in [0.01, 10] and its step in [0.05, 1], for sharpcf the trajectory's weight in [0.01, 10]. llfm
takes steps of its own kind, of a rate in [0.01, 4], and has beta in [0.1, 20] (do, apl) or L/C in [0.02, 10] (jo), and
where anchors learn their share of the rate in [0.01, 1] (the paper's grids: beta 0.1, 1, 10 and L/C 0.1 to 10). Any
other numeric setting can be searched by naming its range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna

from training.errors import UsageError
from training.trainers.settings import FitSettings

Limits = tuple[float, float]
ALWAYS: dict[str, Limits] = {"learning_rate": (1e-4, 0.2), "l2": (1e-8, 1e-3), "l2_linear": (1e-8, 1e-3)}
FIELD_MATRIX: dict[str, Limits] = {"field_init_std": (0.01, 0.5), "field_lr_scale": (0.001, 1.0)}
WITH_FIELD_MATRIX = ("fwfm", "pruned_fwfm", "dplr")
OF_METHOD: dict[str, dict[str, Limits]] = {
    "mixfm": {"mix_alpha": (0.1, 2.0)},
    "smfm": {"mix_alpha": (0.1, 2.0)},
    "apr": {"adversarial_weight": (0.01, 10.0), "perturbation": (0.05, 1.0)},
    "sharpcf": {"trajectory_weight": (0.01, 10.0)},
}
_SPREAD: dict[str, Limits] = {"beta": (0.1, 20.0)}
_ANCHORS: dict[str, Limits] = {"anchor_lr_scale": (0.01, 1.0)}
OF_LOCALITY: dict[str, dict[str, Limits]] = {
    "do": _SPREAD,
    "apl": _SPREAD | _ANCHORS,
    "jo": {"lipschitz": (0.02, 10.0)} | _ANCHORS,
}


def search_space(base: FitSettings, ranges: Mapping[str, Limits]) -> dict[str, Limits]:
    """Setting -> limits for a family, ``ranges`` before the defaults; UsageError for a range that is none."""
    settings = base.to_json()
    for name, (low, high) in ranges.items():
        number = isinstance(settings.get(name), int | float) and not isinstance(settings[name], bool)
        if not number or name in ("seed", "epochs", "patience", "threads"):
            raise UsageError(f"--range {name}: expected a setting that is a number, as learning_rate, l2 or dim")
        if not low < high:
            raise UsageError(f"--range {name}: expected LOW below HIGH, found {low:g} and {high:g}")
        for limit in (low, high):
            try:
                replace(base, **{name: _like(settings[name], limit)})
            except ValueError as error:
                raise UsageError(f"--range {error}") from None
    of_model = FIELD_MATRIX if base.model in WITH_FIELD_MATRIX else {}
    if base.model == "llfm":
        of_model = {"learning_rate": (0.01, 4.0)} | OF_LOCALITY[base.locality]
    space = ALWAYS | of_model | OF_METHOD.get(base.method, {})
    if not base.linear:
        del space["l2_linear"]
    return space | dict(ranges)


def suggest(trial: optuna.Trial, base: FitSettings, space: Mapping[str, Limits]) -> None:
    """Draw a value for each searched setting into the trial's ``params``."""
    settings = base.to_json()
    for name, (low, high) in space.items():
        if isinstance(settings[name], int):
            trial.suggest_int(name, int(low), int(high), log=low >= 1)
        else:
            trial.suggest_float(name, low, high, log=low > 0)


def first_trial(base: FitSettings, space: Mapping[str, Limits]) -> dict[str, float]:
    """The settings that the user starts from, moved into their limits."""
    settings = base.to_json()
    return {name: _like(settings[name], min(max(settings[name], low), high)) for name, (low, high) in space.items()}


def rounded(base: FitSettings, params: Mapping[str, float]) -> FitSettings:
    """A trial's settings, to three significant digits: what is written is what was trained."""
    settings = base.to_json()
    return replace(base, **{name: _like(settings[name], float(f"{value:.3g}")) for name, value in params.items()})


def _like(example: Any, value: float) -> Any:
    """The value as a whole number where the setting is one."""
    return int(value) if isinstance(example, int) else float(value)
