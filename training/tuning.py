"""Search for settings on the validation split (the test split is never read here).

Optuna's TPE with seed 42, as the DPLR paper; what is searched is in ``search_space.py``. A trial's value is the
objective at its best epoch; for pruned_fwfm that is of the pruned model. Trials that fall behind the median of the
earlier ones at the same epoch are cut short. The study lives in a SQLite file; running it again continues it.

One training run's figures depend on its seed, and the best of many trials is partly the luckiest. So the ``confirm``
best trials are trained again with two more seeds each, and the best mean of the three wins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from models_export.calibration import Calibration
from training.errors import UsageError, listed
from training.measures import Measure, find_measure
from training.prepared import Prepared
from training.run import measure, trainer_of
from training.search_space import Limits, first_trial, rounded, search_space, suggest
from training.trainers.plain import EpochReport, Trainer
from training.trainers.settings import FitSettings

SAMPLER_SEED = 42
CONFIRM_SEEDS = 3
DEFAULT_OBJECTIVE = {"logistic": "log_loss", "squared": "mse"}
ALIASES = {"logloss": "log_loss", "recall": "recall@10", "ndcg": "ndcg@10"}
COMPLETE = optuna.trial.TrialState.COMPLETE


@dataclass(frozen=True)
class TuneResult:
    """Best settings of a study, which of them were searched, the validation figure of its objective (mean over
    ``seeds``), how many trials were finished and cut short.
    """

    settings: FitSettings
    searched: tuple[str, ...]
    objective: str
    value: float
    finished: int
    pruned: int
    seeds: tuple[int, ...]


def find_objective(name: str | None, base: FitSettings) -> Measure:
    """The measure to optimise; None: the loss itself (pairwise: what the best epoch is chosen by)."""
    found = find_measure(ALIASES.get(name, name) if name else DEFAULT_OBJECTIVE.get(base.loss, base.valid_metric))
    if found.of_run is not None:
        raise UsageError(f"--objective {name}: expected a measure of predictions, such as auc, logloss or ndcg")
    return found


def tune(
    prepared: Prepared,
    base: FitSettings,
    trials: int,
    out: Path,
    *,
    objective: str | None = None,
    ranges: Mapping[str, Limits] | None = None,
    confirm: int = 3,
    on_trial: Callable[[int, float | None, dict[str, float]], None] = lambda number, value, params: None,
) -> TuneResult:
    """Run the study in the folder ``out`` up to ``trials`` trials in all; ``base`` fixes everything that is not
    searched. ``on_trial(number, value, params)``: value None for a trial that was cut short.
    """
    search = _Search(prepared, base, find_objective(objective, base), search_space(base, ranges or {}), out)
    search.run(trials, on_trial)
    return search.result(confirm)


class _Search:
    """One study and what it optimises."""

    def __init__(
        self, prepared: Prepared, base: FitSettings, objective: Measure, space: dict[str, Limits], out: Path
    ) -> None:
        self.prepared, self.base, self.objective, self.space, self.out = prepared, base, objective, space, out
        self.worst = float("inf") if objective.lower_is_better else float("-inf")
        out.mkdir(parents=True, exist_ok=True)
        self.study = self._open()

    def _open(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        subject = {
            "fingerprint": self.prepared.fingerprint,
            "settings": {k: v for k, v in json.loads(json.dumps(self.base.to_json())).items() if k not in self.space},
            "objective": self.objective.name,
        }
        study = optuna.create_study(
            storage=f"sqlite:///{(self.out / 'study.db').resolve()}", study_name="ctrank", load_if_exists=True,
            direction="minimize" if self.objective.lower_is_better else "maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        )  # fmt: skip
        if study.user_attrs.get("subject", subject) != subject:
            raise UsageError(f"{self.out}: holds a study of other data, settings or objective; choose another --out")
        study.set_user_attr("subject", subject)
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # left by an interrupted search
        study.sampler = optuna.samplers.TPESampler(seed=SAMPLER_SEED + len(study.trials))
        return study

    def run(self, trials: int, on_trial: Callable[[int, float | None, dict[str, float]], None]) -> None:
        """Trials up to ``trials`` in all, earlier ones included."""

        def objective(trial: optuna.Trial) -> float:
            suggest(trial, self.base, self.space)

            def after_epoch(epoch: int, value: float) -> None:
                trial.report(value, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

            return self._train(rounded(self.base, trial.params), after_epoch)

        def announce(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            on_trial(trial.number, trial.value if trial.state == COMPLETE else None, trial.params)

        done = sum(t.state.is_finished() for t in self.study.trials)
        if not self.study.trials:
            self.study.enqueue_trial(first_trial(self.base, self.space))
        if done < trials:
            self.study.optimize(objective, n_trials=trials - done, callbacks=[announce])

    def _train(self, settings: FitSettings, after_epoch: Callable[[int, float], None]) -> float:
        """The objective at its best epoch; a diverged run has the worst there is."""
        best = self.worst

        def each(trainer: Trainer, report: EpochReport, _: bool) -> None:
            nonlocal best
            value = self._value(settings, trainer, report)
            best = value if self.objective.better(value, best) else best
            after_epoch(report.epoch, value)

        try:
            trainer_of(self.prepared, settings).run(each)
        except FloatingPointError:
            return self.worst
        return best

    def _value(self, settings: FitSettings, trainer: Trainer, report: EpochReport) -> float:
        name = self.objective.name
        if (settings.loss, name) in (("logistic", "log_loss"), ("squared", "mse")):
            return report.valid_loss
        if name == "auc" and report.valid_auc is not None:
            return report.valid_auc
        found = report.valid_ranking or measure(
            self.prepared, "valid", settings, Calibration(), trainer.model, trainer.table
        )
        if name not in found:
            known = listed(sorted(set(found) - {"rows", "users"}))
            raise UsageError(f"--objective {name}: expected one that {settings.loss} loss has here: {known}")
        return found[name]

    def result(self, confirm: int) -> TuneResult:
        """The winner among the ``confirm`` best trials, also written to best.json."""
        complete = [t for t in self.study.trials if t.state == COMPLETE and t.value not in (None, self.worst)]
        if not complete:
            found = len(self.study.trials)
            raise UsageError(f"{self.out}: expected a finished trial, found none of {found}; run more --trials")
        sign = 1.0 if self.objective.lower_is_better else -1.0
        candidates = sorted(complete, key=lambda t: (sign * (t.value or 0.0), t.number))[:confirm]
        first = self.base.seed
        seeds = (first,) if confirm <= 1 else tuple(range(first, first + CONFIRM_SEEDS))
        means = {t.number: self._confirmed(t, seeds) for t in candidates}
        best = min(candidates, key=lambda t: sign * means[t.number])
        states = [t.state for t in self.study.trials]
        result = TuneResult(
            rounded(self.base, best.params), tuple(self.space), self.objective.name, means[best.number],
            states.count(COMPLETE), states.count(optuna.trial.TrialState.PRUNED), seeds,
        )  # fmt: skip
        document = {
            "settings": result.settings.to_json(), "objective": result.objective, "value": result.value,
            "seeds": seeds, "trials": len(states),
        }  # fmt: skip
        (self.out / "best.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return result

    def _confirmed(self, trial: optuna.trial.FrozenTrial, seeds: tuple[int, ...]) -> float:
        """Mean of a trial's value over the seeds; further ones are kept in the study, not computed twice."""
        values = [float(trial.value or 0.0)]
        for seed in seeds[1:]:
            key = f"trial {trial.number} seed {seed}"
            if key not in self.study.user_attrs:
                settings = replace(rounded(self.base, trial.params), seed=seed)
                self.study.set_user_attr(key, self._train(settings, lambda epoch, value: None))
            values.append(float(self.study.user_attrs[key]))
        return sum(values) / len(values)
