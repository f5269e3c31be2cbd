"""The RUN folder: what ``ctrank-train fit`` writes and ``evaluate``, ``factorise``, ``export`` read.

    run.json                 settings, where the prepared data lies and its fingerprint; once finished, history,
    calibration, metrics weights.safetensors      parameters of the best epoch (same data, settings and seed: same
    bytes) checkpoint.safetensors   parameters, optimiser state and history after the last finished epoch

Each file is replaced atomically, the weights before the checkpoint, so a run killed at any moment resumes from its last
finished epoch and ends with the bytes of an uninterrupted one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_export.calibration import Calibration
from models_export.weights import Weights
from training.batches import LabelledRows, Layout
from training.calibration import fit_calibration
from training.errors import UsageError
from training.evaluation import evaluate_split
from training.feature_table import FeatureTable
from training.interactions import Interactions
from training.models import FAMILIES, Model, Table
from training.prepared import Prepared
from training.ranking import RankingSplit
from training.trainers.checkpoint import read_arrays, write_arrays, write_bytes
from training.trainers.methods import make_trainer
from training.trainers.pairwise import PairwiseTrainer
from training.trainers.plain import EpochReport, RunState, Trainer, build_model, predict
from training.trainers.settings import PAIRWISE, FitSettings

RUN_FORMAT = 1
#: Settings that may differ between a run and its resumption: they only say when to stop.
STOPPING = ("epochs", "patience")


def labelled(prepared: Prepared, split: str) -> LabelledRows:
    """A split of prepared data as the trainer takes it."""
    part = prepared.split(split)
    return LabelledRows(part.encoded, part.label)


def measure(
    prepared: Prepared,
    split: str,
    settings: FitSettings,
    calibration: Calibration,
    model: Model,
    table: Table,
) -> dict[str, float]:
    """Metrics of a model on a split: the one place that says what is measured, for ``fit``, ``evaluate`` and
    ``reproduce``.
    """
    if settings.loss == "pairwise":
        assert isinstance(table, FeatureTable)  # pairwise models are FMs
        return RankingSplit(Interactions(prepared), split).measure(table.values)
    rows = labelled(prepared, split)
    return evaluate_split(settings.loss, calibration, rows.label, predict(model, table, rows))


@dataclass
class Run:
    """A RUN folder's description; arrays are read on demand."""

    path: Path
    settings: FitSettings
    prepared_path: str
    fingerprint: str
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    calibration: Calibration = field(default_factory=Calibration)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    finished: bool = False
    derived_from: str | None = None

    def save(self) -> None:
        """Write run.json."""
        data = asdict(self) | {"format": RUN_FORMAT, "settings": self.settings.to_json()}
        del data["path"]
        write_bytes(self.path / "run.json", (json.dumps(data, indent=2, sort_keys=True) + "\n").encode())

    @classmethod
    def open(cls, path: Path, must_be_finished: bool = True) -> Run:
        """Read a RUN folder; UsageError says what is wrong with it."""
        try:
            data = json.loads((path / "run.json").read_text(encoding="utf-8"))
            if data.pop("format") != RUN_FORMAT:
                raise ValueError("another format version")
            settings = FitSettings.from_json(data.pop("settings"))
            knots = data.pop("calibration")
            calibration = Calibration(**knots | {"x": tuple(knots["x"]), "y": tuple(knots["y"])})
            run = cls(path=path, settings=settings, calibration=calibration, **data)
        except FileNotFoundError:
            raise UsageError(f"{path}: expected a RUN folder of 'ctrank-train fit', found no run.json there") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path / 'run.json'}: expected a run of this version, found {error!r}; fit again"
            ) from None
        if must_be_finished and not run.finished:
            raise UsageError(f"{path}: the run is not finished; finish it with the same 'fit' command and --resume")
        return run

    def open_prepared(self, moved_to: Path | None = None) -> Prepared:
        """The data it was trained on, where they were or at ``moved_to``; UsageError when they are others."""
        prepared = Prepared.open(moved_to or Path(self.prepared_path))
        if prepared.fingerprint != self.fingerprint:
            raise UsageError(
                f"{prepared.path}: expected the data that {self.path} was trained on (fingerprint "
                f"{self.fingerprint[:12]}), found {prepared.fingerprint[:12]}; prepare it again or fit anew"
            )
        return prepared

    def restore(self, layout: Layout) -> tuple[Model, Table]:
        """Model and table of the best epoch."""
        try:
            arrays, _ = read_arrays(self.path / "weights.safetensors")
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(f"{self.path}: no readable weights.safetensors ({error})") from None
        model = build_model(self.settings, layout, 0.0, np.random.default_rng(0))
        try:
            table = FAMILIES[self.settings.model].table_of(layout, arrays, self.settings)
            model.load({name.removeprefix("dense."): a for name, a in arrays.items() if name.startswith("dense.")})
        except ValueError as error:
            raise UsageError(f"{self.path / 'weights.safetensors'}: {error}") from None
        return model, table

    def restore_features(self, layout: Layout) -> NDArray[np.float32]:
        """Vectors and linear weights of the best epoch, float32 [n_features, k + 1], of a family that has no ranks."""
        weights = self.weights(layout)
        return np.column_stack((weights.vectors, weights.linear))

    def weights(self, layout: Layout) -> Weights:
        """Plain weights of the best epoch."""
        model, table = self.restore(layout)
        return model.weights(table)

    def save_weights(self, table: Mapping[str, Any], dense: Mapping[str, Any]) -> None:
        """Write weights.safetensors: the table's arrays and the dense ones."""
        arrays = dict(table) | {f"dense.{name}": array for name, array in dense.items()}
        s = self.settings
        write_arrays(self.path / "weights.safetensors", arrays, {"family": s.model, "dim": s.dim, "rank": s.rank})

    def finish(self, prepared: Prepared) -> None:
        """Calibrate on the validation split, measure validation and test, write run.json."""
        layout = Layout.of(prepared.fields)
        model, table = self.restore(layout)
        valid = labelled(prepared, "valid")
        if self.settings.loss == "logistic":
            kind = self.settings.calibration
            self.calibration = fit_calibration(kind, predict(model, table, valid), valid.label)
        for name in ("valid", "test"):
            if prepared.rows(name):
                self.metrics[name] = measure(prepared, name, self.settings, self.calibration, model, table)
        self.finished = True
        self.save()


def trainer_of(prepared: Prepared, settings: FitSettings) -> Trainer:
    """The trainer of the settings' method on prepared data, with freshly drawn parameters; UsageError without rows to
    train on or to stop by.
    """
    train, valid = labelled(prepared, "train"), labelled(prepared, "valid")
    if not len(train) or not len(valid):
        empty = "valid" if len(train) else "train"
        raise UsageError(f"{prepared.path}: expected rows in the {empty} split, found none; prepare with another split")
    if settings.method in PAIRWISE:
        return PairwiseTrainer(prepared, settings)
    return make_trainer(Layout.of(prepared.fields), train, valid, settings)


def fit(
    prepared: Prepared,
    settings: FitSettings,
    out: Path,
    resume: bool = False,
    on_epoch: Callable[[EpochReport, bool], None] = lambda report, best: None,
    tick: Callable[[int], None] = lambda rows: None,
    each_epoch: Sequence[str] = (),
) -> Run:
    """Train into the folder ``out``. With ``resume`` continue what is there (or start, if nothing is). The splits
    ``each_epoch`` are measured after every epoch, uncalibrated, into the history (``metrics``: split -> name -> value).
    """
    trainer = trainer_of(prepared, settings)
    run = Run(out, settings, str(prepared.path.resolve()), prepared.fingerprint)
    checkpoint = out / "checkpoint.safetensors"
    if (out / "run.json").exists():
        if not resume:
            raise UsageError(f"{out}: there is a run already; add --resume to continue it, or choose another --out")
        run = _same_run(Run.open(out, must_be_finished=False), run)
    out.mkdir(parents=True, exist_ok=True)
    if resume and checkpoint.exists():
        try:
            arrays, note = read_arrays(checkpoint)
            trainer.restore(arrays, RunState(**note))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{error}; delete {checkpoint} to start anew") from None
    run.finished = False
    run.save()

    def after_epoch(trainer: Trainer, report: EpochReport, best: bool) -> None:
        if each_epoch:
            trainer.state.history[-1]["metrics"] = {
                name: measure(prepared, name, settings, Calibration(), trainer.model, trainer.table)
                for name in each_epoch
            }
        if best:
            run.save_weights(trainer.table.arrays(), trainer.model.parameters)
        write_arrays(checkpoint, trainer.arrays(), asdict(trainer.state))
        on_epoch(report, best)

    state = trainer.run(after_epoch, tick)
    run.history, run.best_epoch = state.history, state.best_epoch
    run.finish(prepared)
    return run


def _same_run(there: Run, wanted: Run) -> Run:
    """The run in the folder, if it is the wanted one up to when it stops; UsageError names what differs."""
    if there.fingerprint != wanted.fingerprint:
        raise UsageError(f"{there.path}: was trained on other data ({there.prepared_path}); choose another --out")
    before, now = there.settings.to_json(), wanted.settings.to_json()
    for key, value in now.items():
        if key not in STOPPING and before[key] != value:
            raise UsageError(
                f"{there.path}: expected the settings it was started with to resume it, found {key} = {value!r} "
                f"instead of {before[key]!r}; choose another --out"
            )
    return replace(there, settings=wanted.settings)
