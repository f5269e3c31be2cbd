"""Search for learning rate, L2 and first field matrix on the validation split (the test split is never read here).

Optuna's TPE with seed 42, as the DPLR paper: learning rate log-uniform in [1e-4, 0.2]; L2 of vectors and of linear
weights log-uniform in [1e-8, 1e-3] (the paper searches [0, 1e-4], of a penalty that its code scales otherwise);
spread of the first field matrix (R, or U and e) log-uniform in [0.01, 0.5] (the paper fixes 0.01), its share of the
learning rate in [0.001, 1] (the paper: 1).
For pruned_fwfm the loss is that of the pruned model. Trials that fall behind the median of the earlier ones at the same
epoch are cut short. The study lives in a SQLite file; running it again continues it.

One training run's validation loss depends on its seed, and the best of many trials is partly the luckiest. So the
``confirm`` best trials are trained again with two more seeds each, and the best mean of the three wins.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from training.batches import Layout
from training.errors import UsageError
from training.prepared import Prepared
from training.run import labelled
from training.trainers.methods import make_trainer
from training.trainers.plain import EpochReport, Trainer
from training.trainers.settings import FitSettings

SAMPLER_SEED = 42
CONFIRM_SEEDS = 3
SPACE = {
    "learning_rate": (1e-4, 0.2),
    "l2": (1e-8, 1e-3),
    "l2_linear": (1e-8, 1e-3),
    "field_init_std": (0.01, 0.5),
    "field_lr_scale": (0.001, 1.0),
}


def space(model: str) -> dict[str, tuple[float, float]]:
    """The searched settings of a family with their limits."""
    return {name: limits for name, limits in SPACE.items() if model != "fm" or not name.startswith("field_")}


@dataclass(frozen=True)
class TuneResult:
    """Best settings of a study, their validation loss (mean over ``seeds``), how many trials were finished and cut
    short.
    """

    settings: FitSettings
    valid_loss: float
    finished: int
    pruned: int
    seeds: tuple[int, ...]


def tune(
    prepared: Prepared,
    base: FitSettings,
    trials: int,
    out: Path,
    on_trial: Callable[[int, float | None, dict[str, float]], None] = lambda number, loss, params: None,
    lr_range: tuple[float, float] | None = None,
    confirm: int = 3,
) -> TuneResult:
    """Run the study in the folder ``out`` up to ``trials`` trials in all; ``base`` fixes everything that is not
    searched.
    """
    out.mkdir(parents=True, exist_ok=True)
    limits_of = space(base.model) | ({"learning_rate": lr_range} if lr_range else {})
    study = _open_study(prepared, base, out)
    layout = Layout.of(prepared.fields)
    train, valid = labelled(prepared, "train"), labelled(prepared, "valid")
    if not len(train) or not len(valid):
        raise UsageError(
            f"{prepared.path}: expected rows in the training and validation splits, found none in one of them"
        )

    def objective(trial: optuna.Trial) -> float:
        chosen = {name: trial.suggest_float(name, *limits, log=True) for name, limits in limits_of.items()}

        def after_epoch(_: Trainer, report: EpochReport, best: bool) -> None:
            trial.report(report.valid_loss, report.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        return _valid_loss(make_trainer(layout, train, valid, replace(base, **rounded(chosen))), after_epoch)

    def announce(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        complete = trial.state == optuna.trial.TrialState.COMPLETE
        on_trial(trial.number, trial.value if complete else None, trial.params)

    done = sum(t.state.is_finished() for t in study.trials)
    if not study.trials:
        start = base.to_json()  # the defaults are the first trial
        study.enqueue_trial({name: min(max(start[name], low), high) for name, (low, high) in limits_of.items()})
    if done < trials:
        study.optimize(objective, n_trials=trials - done, callbacks=[announce])
    candidates = _best_trials(study, out)[:confirm] if confirm > 1 else _best_trials(study, out)[:1]
    seeds = (base.seed,) if confirm <= 1 else tuple(range(base.seed, base.seed + CONFIRM_SEEDS))
    for trial in candidates:
        _confirm(study, trial, seeds[1:], lambda s: make_trainer(layout, train, valid, replace(base, **s)))
    return _result(study, base, candidates, seeds, out)


def _open_study(prepared: Prepared, base: FitSettings, out: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = f"sqlite:///{(out / 'study.db').resolve()}"
    subject = {
        "fingerprint": prepared.fingerprint,
        "settings": {k: v for k, v in base.to_json().items() if k not in SPACE},
    }
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    study = optuna.create_study(storage=storage, study_name="ctrank", load_if_exists=True, pruner=pruner)
    before = study.user_attrs.get("subject")
    if before is not None and before != subject:
        raise UsageError(f"{out}: holds a study of other data or settings; choose another --out")
    study.set_user_attr("subject", subject)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # left by an interrupted search
    study.sampler = optuna.samplers.TPESampler(seed=SAMPLER_SEED + len(study.trials))
    return study


def rounded(params: dict[str, float]) -> dict[str, Any]:
    """Settings to three significant digits: what is printed is what was trained."""
    return {name: float(f"{value:.3g}") for name, value in params.items()}


def _valid_loss(trainer: Trainer, after_epoch: Callable[[Trainer, EpochReport, bool], None]) -> float:
    try:
        return trainer.run(after_epoch).best_loss
    except FloatingPointError:
        return float("inf")  # diverged: a valid answer to "how good is this learning rate"


def _best_trials(study: optuna.Study, out: Path) -> list[optuna.trial.FrozenTrial]:
    complete = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE and t.value != float("inf")]
    if not complete:
        raise UsageError(f"{out}: expected a finished trial, found none of {len(study.trials)}; run more --trials")
    return sorted(complete, key=lambda t: (t.value or 0.0, t.number))


def _confirm(
    study: optuna.Study,
    trial: optuna.trial.FrozenTrial,
    seeds: tuple[int, ...],
    make: Callable[[dict[str, Any]], Trainer],
) -> None:
    """Validation losses of a trial's settings with more seeds, kept in the study so that they are not computed
    again.
    """
    for seed in seeds:
        key = _confirmation(trial, seed)
        if key not in study.user_attrs:
            loss = _valid_loss(make({**rounded(trial.params), "seed": seed}), lambda *_: None)
            study.set_user_attr(key, loss)


def _confirmation(trial: optuna.trial.FrozenTrial, seed: int) -> str:
    return f"trial {trial.number} seed {seed}"


def _result(
    study: optuna.Study,
    base: FitSettings,
    candidates: list[optuna.trial.FrozenTrial],
    seeds: tuple[int, ...],
    out: Path,
) -> TuneResult:
    attributes = study.user_attrs

    def mean(trial: optuna.trial.FrozenTrial) -> float:
        more = [float(attributes[_confirmation(trial, seed)]) for seed in seeds[1:]]
        return (float(trial.value or 0.0) + sum(more)) / len(seeds)

    best = min(candidates, key=mean)
    states = [t.state for t in study.trials]
    settings = replace(base, **rounded(best.params))
    result = TuneResult(
        settings,
        mean(best),
        states.count(optuna.trial.TrialState.COMPLETE),
        states.count(optuna.trial.TrialState.PRUNED),
        seeds,
    )
    document = {"settings": settings.to_json(), "valid_loss": result.valid_loss, "seeds": seeds, "trials": len(states)}
    (out / "best.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return result
