"""The files of an artefact's ONNX graphs; what reads them needs no onnx."""

from __future__ import annotations

from models_export.errors import ArtefactError
from models_export.manifest import Manifest

GRAPHS = ("context.onnx", "item.onnx", "rank.onnx", "candidates.onnx", "catalogue.onnx", "score.onnx")


def has_graphs(manifest: Manifest) -> bool:
    """Whether the artefact has its graphs: all, or none if written without them; ``ArtefactError`` for some."""
    found = {name for name in manifest.files if name.endswith(".onnx")}
    if found and found != set(GRAPHS):
        raise ArtefactError(
            "manifest: files", f"all of the graphs {', '.join(GRAPHS)}, or none", f"only {', '.join(sorted(found))}"
        )
    return bool(found)
