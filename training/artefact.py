"""A finished run -> an artefact that the service loads."""

from __future__ import annotations

from pathlib import Path

from models_export.manifest import Manifest
from models_export.onnx_writer import write_graphs
from models_export.registry import Registry
from models_export.writer import write_artefact
from training.batches import Layout
from training.models import FAMILIES
from training.prepared import Prepared
from training.run import Run


def manifest_of(run: Run, prepared: Prepared, name: str) -> Manifest:
    """The manifest of a run's model. Nothing in it depends on time or place: same run, same bytes."""
    s = run.settings
    return Manifest(
        name=name,
        family=FAMILIES[s.model].exported_as or s.model,
        loss=s.loss,
        dim=s.dim,
        rank=s.rank if s.model == "dplr" else None,
        locality=s.local_scheme,
        fields=tuple(prepared.fields),
        item_id_field=prepared.item_id_field,
        training={
            "fingerprint": run.fingerprint,
            "settings": s.to_json(),
            "best_epoch": run.best_epoch,
            "rows": {split: int(found["rows"]) for split, found in run.metrics.items()},
        },
        metrics={
            f"{split}_{metric}": value
            for split, found in run.metrics.items()
            for metric, value in found.items()
            if metric != "rows"
        },
        calibration=run.calibration,
    )


def export_run(run: Run, prepared: Prepared, name: str, folder: Path) -> Manifest:
    """Write the artefact of a run, ONNX graphs included, to ``folder`` (which must not exist)."""
    weights = run.weights(Layout.of(prepared.fields))
    manifest = manifest_of(run, prepared, name)
    return write_artefact(folder, manifest, weights, prepared.encoder, prepared.items, write_graphs)


def publish_run(run: Run, prepared: Prepared, registry: Registry, name: str, activate: bool) -> str:
    """Publish a run as the next version of ``name``; returns the version."""
    version = registry.publish(name, lambda folder: export_run(run, prepared, name, folder))
    if activate:
        registry.activate(name, version)
    return version
