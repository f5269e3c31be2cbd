"""Atomic publication of an artefact: a reader sees all of it or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from models_export.errors import ArtefactError
from models_export.fields import FieldEncoder
from models_export.items import Items
from models_export.manifest import Manifest
from models_export.onnx_files import GRAPHS
from models_export.tensor_file import read_bytes_map, sha256, write_tensors
from models_export.weights import Weights, check_weights, weight_tensors


def write_artefact(
    folder: Path,
    manifest: Manifest,
    weights: Weights,
    encoder: FieldEncoder,
    items: Items | None = None,
    graphs: Callable[[Path, Manifest], None] | None = None,
) -> Manifest:
    """Write an artefact to ``folder``, which must not exist; returns the manifest with the files' digests.

    ``graphs`` writes the ONNX graphs beside the weights: ``onnx_writer.write_graphs``, which needs onnx; without it the
    artefact has none. Everything is checked first, written to a hidden sibling, flushed to disk and renamed: a crash
    leaves at most a hidden folder behind. Same inputs, same bytes.
    """
    if encoder.fields != manifest.fields:
        raise ArtefactError("encoder: fields", "those of the manifest", "others")
    check_weights(weights, manifest)
    if items is not None:
        items.verify(encoder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    sibling = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        files = {"vocabulary.safetensors": encoder.arrays()}
        files["weights.safetensors"] = weight_tensors(weights, manifest)
        if items is not None:
            files["items.safetensors"] = items.arrays()
        for name, arrays in files.items():
            write_tensors(sibling / name, arrays)
        names = list(files)
        if graphs is not None:
            graphs(sibling, manifest)
            names += GRAPHS
        digests = {name: sha256(read_bytes_map(sibling / name)) for name in names}
        manifest = manifest.with_files(digests)
        (sibling / "manifest.json").write_bytes(manifest.to_json())
        for name in (*names, "manifest.json"):
            sync(sibling / name)
        sibling.chmod(0o755)
        sync(sibling)
        try:
            os.rename(sibling, folder)  # refuses a folder that is there and not empty
        except OSError as error:
            raise FileExistsError(f"{folder} exists already; an artefact is never overwritten") from error
        sync(folder.parent)
    finally:
        shutil.rmtree(sibling, ignore_errors=True)
    return manifest


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
