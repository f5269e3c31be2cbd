"""A trained FwFM run -> a DPLR run by factorising its field matrix; spectra and metrics beside pruning of equal
size.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.batches import Layout
from training.calibration import fit_calibration
from training.errors import UsageError
from training.evaluation import evaluate_split
from training.factorise import Factorisation, factorise
from training.prepared import Prepared
from training.run import Run, labelled
from training.trainers.checkpoint import write_bytes
from training.trainers.plain import predict


def factorise_run(
    run: Run, rank: int, objective: str, out: Path, moved_to: Path | None = None
) -> tuple[Factorisation, Run, dict[str, dict[str, float]]]:
    """Write the DPLR run to ``out``; returns the factorisation, the new run and test metrics of the three models."""
    if run.settings.model != "fwfm":
        raise UsageError(f"{run.path}: expected a run of --model fwfm, found {run.settings.model}")
    prepared = run.open_prepared(moved_to)
    layout = Layout.of(prepared.fields)
    weights = run.weights(layout)
    assert weights.field_matrix is not None  # an FwFM has one
    try:
        found = factorise(weights.field_matrix, rank, objective)
    except ValueError as error:
        raise UsageError(str(error)) from None
    table = np.column_stack([weights.vectors, weights.linear])
    bias = np.array([weights.bias], dtype=np.float32)
    out.mkdir(parents=True)
    written = replace(
        run,
        path=out,
        settings=replace(run.settings, model="dplr", rank=rank),
        metrics={},
        prepared_path=str(prepared.path.resolve()),
        derived_from=str(run.path.resolve()),
    )
    written.save_weights({"table": table}, {"bias": bias, "U": found.U, "e": found.e})
    written.finish(prepared)
    _write_spectra(found, out)
    metrics = {
        "fwfm": run.metrics.get("test", {}),
        f"dplr {rank}": written.metrics.get("test", {}),
        f"pruned {found.kept}": _pruned_metrics(run, rank, layout, prepared),
    }
    return found, written, metrics


def _pruned_metrics(run: Run, rank: int, layout: Layout, prepared: Prepared) -> dict[str, float]:
    """Test metrics of the same FwFM pruned to the size of that rank."""
    pruned = replace(run, settings=replace(run.settings, model="pruned_fwfm", rank=rank))
    model, table = pruned.restore(layout)
    valid, test = labelled(prepared, "valid"), labelled(prepared, "test")
    if not len(test):
        return {}
    calibration = run.calibration
    if run.settings.loss == "logistic":
        calibration = fit_calibration(run.settings.calibration, predict(model, table, valid), valid.label)
    return evaluate_split(run.settings.loss, calibration, test.label, predict(model, table, test))


def _write_spectra(found: Factorisation, out: Path) -> None:
    """spectrum.json and spectrum.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = {
        "field matrix": found.spectrum,
        f"error of DPLR, rank {len(found.e)}": found.error_spectrum,
        f"error of pruning to {found.kept}": found.pruned_error_spectrum,
    }
    document = {name: values.tolist() for name, values in curves.items()}
    write_bytes(out / "spectrum.json", (json.dumps(document, indent=2) + "\n").encode())
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, values in curves.items():
        axes.plot(np.arange(1, len(values) + 1), values, marker="o", markersize=3, label=name)
    axes.set(xlabel="index", ylabel="singular value", title="What approximating the field matrix costs")
    axes.legend()
    figure.tight_layout()
    figure.savefig(out / "spectrum.png", dpi=120, metadata={"Software": None})
    pyplot.close(figure)
