"""Verified, memory-mapped, read-only load of an artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models_export.errors import ArtefactError
from models_export.fields import FieldEncoder
from models_export.items import Items
from models_export.locality import check_derived, local_shapes, local_slots
from models_export.manifest import Manifest
from models_export.network import PREFIX, network_shapes
from models_export.onnx_files import GRAPHS, has_graphs
from models_export.ragged_reader import read_ragged
from models_export.ragged_rows import RaggedRows
from models_export.tensor_file import Array, parse_tensors, read_bytes_map, sha256
from models_export.weights import Weights, check_field_matrix, check_tensor, folded_scalars, small_shapes

F32 = npt.NDArray[np.float32]
_REQUIRED = ("vocabulary.safetensors", "weights.safetensors")
_OPTIONAL = ("items.safetensors",)


@dataclass
class Artefact:
    """A model ready to score. Arrays are read-only views of memory-mapped files, so processes share one copy.

    ``embedding_rows`` float32 [n_features, stride] is 64-byte aligned; ``digest`` is the SHA-256 of the manifest, which
    holds the digests of all other files. RaFM's rows are of several lengths: its ``embedding_rows`` are flat, and
    ``ragged`` says where each one lies. LLFM's are one per feature for all anchors (locality.py); ``local`` are its
    other tensors by name.
    """

    path: Path
    manifest: Manifest
    digest: str
    embedding_rows: F32
    global_bias: F32
    field_matrix: F32 | None
    U: F32 | None
    e: F32 | None
    network: dict[str, F32]
    encoder: FieldEncoder
    items: Items | None
    ragged: RaggedRows | None = None
    local: Mapping[str, F32] = field(default_factory=dict)

    def weights(self) -> Weights:
        """The parameters as trained; ``vectors`` and ``linear`` are strided views of the packed rows (rafm: copies)."""
        m, rows, ragged = self.manifest, self.embedding_rows, self.ragged
        bias = float(self.global_bias[0])
        if ragged is not None:
            shape = ragged.shape
            return Weights(m.family, shape.unpack(rows), ragged.linear, bias, ranks=ragged.ranks, groups=shape.groups)
        if self.local:
            return _local_weights(m, rows, self.local)
        small = bias, self.field_matrix, self.U, self.e, self.network
        return Weights(m.family, rows[:, : m.dim], rows[:, m.kp + 1], *small)


def read_artefact(folder: Path) -> Artefact:
    """Load and verify ``folder``: digests, shapes, dtypes, finiteness, ranges, agreement of derived numbers.

    Any defect is an ``ArtefactError`` that names the culprit, what was expected and what was found.
    """
    if not folder.is_dir():
        raise ArtefactError(f"artefact {folder}", "a folder", "no such folder")
    raw = read_bytes_map(folder / "manifest.json")
    manifest = Manifest.from_json(raw.tobytes())
    present = {p.name for p in folder.iterdir()} - {"manifest.json"}
    allowed = {*_REQUIRED, *_OPTIONAL, *GRAPHS}
    has_graphs(manifest)
    if present != set(manifest.files):
        found = f"extra {sorted(present - set(manifest.files))}, missing {sorted(set(manifest.files) - present)}"
        raise ArtefactError(f"artefact {folder.name!r}", "the files of its manifest", found)
    if not set(_REQUIRED) <= present <= allowed:
        raise ArtefactError("manifest: files", f"{_REQUIRED} and perhaps {_OPTIONAL} or graphs", str(sorted(present)))
    tensors: dict[str, dict[str, Array]] = {}
    for name, digest in manifest.files.items():
        data = read_bytes_map(folder / name)
        if (found := sha256(data)) != digest:
            raise ArtefactError(f"file {name!r}", f"SHA-256 {digest}", found, "Copy or export the artefact again")
        if name.endswith(".safetensors"):
            tensors[name] = parse_tensors(name, data)
    encoder = FieldEncoder.from_arrays(manifest.fields, tensors["vocabulary.safetensors"])
    encoder.verify()
    items = None
    if "items.safetensors" in tensors:
        items = Items.from_arrays(tensors["items.safetensors"])
        items.verify(encoder)
    arrays, ragged = _verified_weights(manifest, tensors["weights.safetensors"])
    return Artefact(
        path=folder,
        manifest=manifest,
        digest=sha256(raw),
        embedding_rows=arrays["embedding_rows"],
        global_bias=arrays["global_bias"],
        field_matrix=arrays.get("field_matrix"),
        U=arrays.get("low_rank_U"),
        e=arrays.get("low_rank_e"),
        network={n.removeprefix(PREFIX): array for n, array in arrays.items() if n.startswith(PREFIX)},
        encoder=encoder,
        items=items,
        ragged=ragged,
        local={n: arrays[n] for n in local_shapes(manifest)} if manifest.family == "llfm" else {},
    )


def _local_weights(manifest: Manifest, rows: F32, arrays: Mapping[str, F32]) -> Weights:
    return Weights(
        manifest.family,
        local_slots(manifest, rows)[:, :, : manifest.dim],
        arrays["local_linear"],
        float(arrays["global_bias"][0]),
        anchor_bias=arrays["local_bias"],
        anchors=arrays["local_anchors"],
        locality=manifest.locality,
    )


def _verified_weights(manifest: Manifest, tensors: dict[str, Array]) -> tuple[dict[str, F32], RaggedRows | None]:
    if manifest.family == "rafm":
        ragged = read_ragged(manifest, tensors)
        bias = check_tensor("global_bias", tensors["global_bias"], (1,))
        return {"embedding_rows": ragged.rows, "global_bias": bias}, ragged
    shapes = {"embedding_rows": (manifest.n_features, manifest.stride), **small_shapes(manifest)}
    shapes |= network_shapes(manifest, tensors)
    if manifest.family == "llfm":
        shapes = local_shapes(manifest)
    if set(tensors) != set(shapes):
        raise ArtefactError("file 'weights.safetensors'", f"the tensors {sorted(shapes)}", str(sorted(tensors)))
    arrays = {name: check_tensor(name, tensors[name], shape) for name, shape in shapes.items()}
    if arrays["embedding_rows"].ctypes.data % 64:
        raise ArtefactError("tensor 'embedding_rows'", "64-byte aligned rows", "another alignment")
    if "field_matrix" in arrays:
        check_field_matrix(arrays["field_matrix"])
    _verify_derived(manifest, arrays)
    return arrays, None


def _verify_derived(manifest: Manifest, arrays: dict[str, F32]) -> None:
    """Padding is zero and each folded scalar is what the vectors say, to float32 rounding."""
    rows, kp, dim = arrays["embedding_rows"], manifest.kp, manifest.dim
    if manifest.family == "llfm":
        check_derived(_local_weights(manifest, rows, arrays), manifest, rows)
        return
    if rows[:, dim:kp].any() or rows[:, kp + 2 :].any():
        raise ArtefactError("tensor 'embedding_rows'", "zero padding", "another number in the padding")
    low_rank = arrays.get("low_rank_U"), arrays.get("low_rank_e")
    weights = Weights(manifest.family, rows[:, :dim], rows[:, kp + 1], 0.0, arrays.get("field_matrix"), *low_rank)
    expected = folded_scalars(weights, manifest)
    bad = ~np.isclose(rows[:, kp], expected, rtol=1e-4, atol=1e-5)
    if bad.any():
        row = int(np.argmax(bad))
        raise ArtefactError(f"embedding_rows[{row}]: folded scalar", str(expected[row]), str(rows[row, kp]))
