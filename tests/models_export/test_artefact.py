"""Round trip, atomicity, and hostile artefacts: each is refused with a message that names the culprit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models_export.errors import ArtefactError
from models_export.manifest import NETWORK_FAMILIES, Manifest
from models_export.ragged_rows import RaggedShape
from models_export.reader import read_artefact
from models_export.tensor_file import read_bytes_map, sha256
from models_export.weights import Weights, folded_scalars
from models_export.writer import write_artefact
from tests.tiny_artefact import random_weights, tiny_encoder, write_tiny

from .conftest import Model, make_model

FAMILIES = ["fm", "fwfm", "pruned_fwfm", "dplr", "rafm", "llfm"]


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip(family: str, tmp_path: Path) -> None:
    model = make_model(family)
    model.write(tmp_path / "a")
    artefact = read_artefact(tmp_path / "a")
    for name in ("vectors", "linear", "field_matrix", "U", "e", "groups", "anchors", "anchor_bias"):
        one, two = getattr(model.weights, name), getattr(artefact.weights(), name)
        assert (one is None and two is None) or np.array_equal(one, two), name
    assert artefact.weights().bias == model.weights.bias and artefact.weights().ranks == model.weights.ranks
    assert artefact.encoder.encode_value("user", "ü2") == ([3], [1.0])
    assert artefact.items is not None
    assert list(artefact.items.ids) == ["m1", "m2", "m3"]
    assert np.array_equal(artefact.items.side.multi_rows, model.items.side.multi_rows)


@pytest.mark.parametrize("family", NETWORK_FAMILIES)
def test_round_trip_of_a_network(family: str, tmp_path: Path) -> None:
    written = write_tiny(tmp_path / "a", family)
    artefact = read_artefact(tmp_path / "a")
    weights = random_weights(family, written.n_features, len(written.fields), written.dim, 2, 0)
    assert set(artefact.weights().network) == set(weights.network)
    for name, array in weights.network.items():
        assert np.array_equal(artefact.weights().network[name], array), name


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("nfm", {"hidden_0.weight": np.zeros((6, 9))}, "tensor 'network.hidden_0.weight': expected float32 (6, 8)"),
        ("nfm", {"hidden_1.weight": np.zeros((5, 7))}, "tensor 'network.hidden_1.weight': expected float32 (5, 6)"),
        ("deepfm", {"hidden_0.bias": np.zeros(5)}, "tensor 'network.hidden_0.bias': expected float32 (6,)"),
        ("dcn", {"out.weight": np.zeros(5)}, "tensor 'network.out.weight': expected float32 (85,)"),
        ("dcn", {"cross.bias": np.zeros((3, 64))}, "tensor 'network.cross.bias': expected float32 (2, 80)"),
        (
            "afm",
            {"attention.out": np.full(4, np.nan)},
            "tensor 'network.attention.out' at [0]: expected a finite",
        ),
        ("afm", {"attention.bias": np.array(0.0)}, "tensor 'network.attention.bias': expected float32 (4,)"),
        ("afm", {"attention.weight": None}, "weights of a afm: expected"),
        ("nfm", {"hidden_0.weight": None}, "weights of a nfm: expected"),
        ("fm", {"out.weight": np.zeros(8)}, "weights of a fm: expected"),
    ],
)
def test_a_network_whose_arrays_do_not_fit_is_refused(
    family: str, change: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    encoder = tiny_encoder(5)
    manifest = Manifest("tiny", family, "logistic", 8, encoder.fields)
    weights = random_weights(family, manifest.n_features, len(manifest.fields), 8, 2, 0)
    network = dict(weights.network)
    for name, array in change.items():
        if array is None:
            del network[name]
        else:
            network[name] = array.astype(np.float32)
    with pytest.raises(ArtefactError) as refusal:
        write_artefact(tmp_path / "a", manifest, replace(weights, network=network), encoder)
    assert message in str(refusal.value)


def test_rows_are_aligned_and_nothing_can_write_to_them(model: Model, tmp_path: Path) -> None:
    model.write(tmp_path / "a")
    rows = read_artefact(tmp_path / "a").embedding_rows
    assert rows.ctypes.data % 64 == 0
    assert rows.strides[0] % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1


def test_folded_scalar_is_the_papers_formula() -> None:
    model = make_model("dplr")
    w, m = model.weights, model.manifest
    assert w.U is not None and w.e is not None
    folded = folded_scalars(w, m)
    for f, spec in enumerate(m.fields):
        d = -sum(float(w.e[r]) * float(w.U[r, f]) ** 2 for r in range(2))
        for row in range(m.offsets[f], m.offsets[f] + spec.size):
            norm = sum(float(v) ** 2 for v in w.vectors[row])
            assert folded[row] == pytest.approx(float(w.linear[row]) + d * norm / 2, rel=1e-6)


def test_same_inputs_same_bytes(model: Model, tmp_path: Path) -> None:
    model.write(tmp_path / "a")
    model.write(tmp_path / "b")
    assert read_artefact(tmp_path / "a").digest == read_artefact(tmp_path / "b").digest
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_public_readers_understand_the_files(model: Model, tmp_path: Path) -> None:
    model.write(tmp_path / "a")
    rows = load_file(tmp_path / "a" / "weights.safetensors")["embedding_rows"]
    assert np.array_equal(rows, read_artefact(tmp_path / "a").embedding_rows)


def test_an_artefact_is_never_overwritten_and_a_failure_leaves_nothing(model: Model, tmp_path: Path) -> None:
    model.write(tmp_path / "a")
    before = read_artefact(tmp_path / "a").digest
    with pytest.raises(FileExistsError):
        model.write(tmp_path / "a")
    model.weights.vectors[0, 0] = np.nan
    with pytest.raises(ArtefactError, match=r"tensor 'vectors' at \[0, 0\]: expected a finite number, found nan"):
        model.write(tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert read_artefact(tmp_path / "a").digest == before


def test_a_crash_before_the_rename_is_invisible(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        model.write(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("change", ["shape", "asymmetric", "family"])
def test_writer_refuses_wrong_weights(change: str, tmp_path: Path) -> None:
    model = make_model("fwfm")
    w = model.weights
    assert w.field_matrix is not None
    if change == "shape":
        w.vectors = w.vectors[:-1]
    elif change == "asymmetric":
        w.field_matrix[0, 1] += 1
    else:
        model.weights = Weights("fm", w.vectors, w.linear, w.bias)
    words = {"shape": "'vectors': expected float32", "asymmetric": "symmetric", "family": "family: expected fwfm"}
    with pytest.raises(ArtefactError, match=words[change]):
        model.write(tmp_path / "a")


# ------------------------------------------------------------------------------------------------- hostile artefacts


def reseal(folder: Path) -> None:
    """Give the manifest the digests of the files as they are, as a clever forger would."""
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes())
    files = {name: sha256(read_bytes_map(folder / name)) for name in manifest.files}
    (folder / "manifest.json").write_bytes(manifest.with_files(files).to_json())


def edit_manifest(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "manifest.json").read_bytes())
    raw.update(changes)
    (folder / "manifest.json").write_text(json.dumps(raw))


def edit_tensor(folder: Path, file: str, name: str, edit: Callable[[np.ndarray], np.ndarray | None]) -> None:
    arrays = {k: a.copy() for k, a in load_file(folder / file).items()}
    changed = edit(arrays[name])
    if changed is not None:
        arrays[name] = np.ascontiguousarray(changed)
    metadata = {"align": ""}
    save_file(arrays, folder / file, metadata)
    start = 8 + int.from_bytes((folder / file).read_bytes()[:8], "little")
    save_file(arrays, folder / file, {"align": " " * (-start % 64)})
    reseal(folder)


def put(index: tuple[int, ...], value: float) -> Callable[[np.ndarray], None]:
    def edit(array: np.ndarray) -> None:
        array[index] = value

    return edit


def swap_files(folder: Path) -> None:
    a, b = folder / "weights.safetensors", folder / "vocabulary.safetensors"
    one, two = a.read_bytes(), b.read_bytes()
    a.write_bytes(two)
    b.write_bytes(one)


def truncate(folder: Path, name: str, size: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:size])


def header(folder: Path, text: bytes) -> None:
    (folder / "weights.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 64)
    reseal(folder)


def link(folder: Path) -> None:
    file = folder / "weights.safetensors"
    shutil.move(file, folder.parent / "elsewhere")
    file.symlink_to(folder.parent / "elsewhere")


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated weights": (lambda d: truncate(d, "weights.safetensors", 300), "file 'weights.safetensors': .*SHA-256"),
    "truncated and resealed": (
        lambda d: (truncate(d, "weights.safetensors", 700), reseal(d)),
        "file 'weights.safetensors': expected a well-formed safetensors header",
    ),
    "empty file": (lambda d: truncate(d, "weights.safetensors", 0), "a regular file that is not empty"),
    "swapped files": (swap_files, "SHA-256"),
    "swapped and resealed": (lambda d: (swap_files(d), reseal(d)), "expected|present"),
    "missing file": (lambda d: (d / "weights.safetensors").unlink(), r"missing \['weights.safetensors'\]"),
    "extra file": (lambda d: (d / "evil.py").write_text("x"), r"extra \['evil.py'\]"),
    "symbolic link": (link, "file 'weights.safetensors': expected a readable regular file"),
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "file 'manifest.json'"),
    "manifest is not JSON": (lambda d: (d / "manifest.json").write_text("{"), "manifest.json: expected a JSON object"),
    "manifest is a list": (lambda d: (d / "manifest.json").write_text("[]"), "manifest: expected an object"),
    "deep JSON": (lambda d: (d / "manifest.json").write_text("[" * 100_000), "manifest.json: expected a JSON object"),
    "future format": (lambda d: edit_manifest(d, format_version=2), "format_version: expected 1, found 2"),
    "unknown key": (lambda d: edit_manifest(d, pickle="x"), r"unknown \['pickle'\]"),
    "unknown family": (lambda d: edit_manifest(d, family="magic"), "family: expected one of fm, fwfm"),
    "rank missing": (lambda d: edit_manifest(d, rank=None), "rank: expected at least 1, found None"),
    "boolean dim": (lambda d: edit_manifest(d, dim=True), "dim: expected int, found bool"),
    "another dim": (lambda d: edit_manifest(d, dim=200), "embedding_rows': expected float32"),
    "path as a name": (lambda d: edit_manifest(d, name="../../etc"), "model name: expected 1 to 128"),
    "path as a file": (lambda d: edit_manifest(d, files={"../x": "0" * 64}), r"expected the files of its manifest"),
    "item id field of the context": (lambda d: edit_manifest(d, item_id_field="user"), "the name of an item field"),
    "metric is NaN": (lambda d: edit_manifest(d, metrics={"auc": float("nan")}), "NaN is not JSON"),
    "NaN weight": (
        lambda d: edit_tensor(d, "weights.safetensors", "embedding_rows", put((3, 1), np.nan)),
        r"tensor 'embedding_rows' at \[3, 1\]: expected a finite number, found nan",
    ),
    "infinite U": (
        lambda d: edit_tensor(d, "weights.safetensors", "low_rank_U", put((0, 1), np.inf)),
        r"tensor 'low_rank_U' at \[0, 1\]: expected a finite number, found inf",
    ),
    "wrong shape": (
        lambda d: edit_tensor(d, "weights.safetensors", "low_rank_U", lambda a: a[:, :-1]),
        r"tensor 'low_rank_U': expected float32 \(2, 4\), found float32 \(2, 3\)",
    ),
    "wrong dtype": (
        lambda d: edit_tensor(d, "weights.safetensors", "low_rank_e", lambda a: a.astype(np.int32)),
        "tensor 'low_rank_e': expected float32",
    ),
    "folded scalar lies": (
        lambda d: edit_tensor(d, "weights.safetensors", "embedding_rows", put((2, 8), 99.0)),
        r"embedding_rows\[2\]: folded scalar",
    ),
    "padding is used": (
        lambda d: edit_tensor(d, "weights.safetensors", "embedding_rows", put((2, 7), 99.0)),
        "expected zero padding",
    ),
    "catalogue id of another field": (
        lambda d: edit_tensor(d, "items.safetensors", "rows", put((1, 0), 0)),
        r"items: rows\[1, 0\]: expected 8 to 12, found 0",
    ),
    "catalogue id out of range": (
        lambda d: edit_tensor(d, "items.safetensors", "multi_rows", put((0,), 10_000)),
        "multi_rows: expected feature rows of their own field",
    ),
    "catalogue indptr descends": (
        lambda d: edit_tensor(d, "items.safetensors", "multi_indptr", put((1,), 99)),
        "multi_indptr: expected ascending",
    ),
    "negative catalogue weight": (
        lambda d: edit_tensor(d, "items.safetensors", "multi_weights", put((0,), -1)),
        "multi_weights: expected finite weights",
    ),
    "vocabulary record out of range": (
        lambda d: edit_tensor(d, "vocabulary.safetensors", "user.offsets", put((1,), 1 << 40)),
        "string table 'user': expected ascending record offsets",
    ),
    "vocabulary slot out of range": (
        lambda d: edit_tensor(d, "vocabulary.safetensors", "movie.slots", put((0, 1), 1 << 40)),
        "string table 'movie': expected slots that agree",
    ),
    "vocabulary string is not UTF-8": (
        lambda d: edit_tensor(d, "vocabulary.safetensors", "genres.records", put((8,), 255)),
        "string table 'genres': expected UTF-8",
    ),
    "header longer than the file": (lambda d: header(d, b"{}" + b" " * 20) or truncate_header(d), "header that fits"),
    "header with a huge shape": (
        lambda d: header(d, b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
        "does not fit",
    ),
    "header with overlap": (
        lambda d: header(
            d,
            b'{"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}',
        ),
        "without holes or overlap",
    ),
    "header with a hole": (
        lambda d: header(d, b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'),
        "truncated or trailing data",
    ),
    "header of another dtype": (
        lambda d: header(d, b'{"a":{"dtype":"O","shape":[3],"data_offsets":[0,3]}}'),
        "well-formed safetensors header",
    ),
}


def truncate_header(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    reseal(folder)


WEIGHTS = "weights.safetensors"


def edit_records(folder: Path, half: int, edit: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Change the row addresses (half 0) or the folded scalars' bits (half 1)."""

    def edited(records: np.ndarray) -> np.ndarray:
        column = records[:, half].copy()
        changed = edit(column)
        records[:, half] = column if changed is None else changed
        return records

    edit_tensor(folder, WEIGHTS, "records", edited)


RAGGED_HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "group out of range": (
        lambda d: edit_records(d, 0, lambda a: a | 15),
        "rank group of feature 0: expected 1 to 2, found 16",
    ),
    "another group": (
        lambda d: edit_records(d, 0, lambda a: a ^ (np.arange(len(a)) == 3)),
        r"row address of feature \d+: expected \d+ by the groups",
    ),
    "row beyond the end": (
        lambda d: edit_records(d, 0, put((2,), 160_000_000)),
        r"row address of feature 2: expected \d+ by the groups, found 160",
    ),
    "row before the start": (
        lambda d: edit_records(d, 0, put((2,), -1600)),
        r"row address of feature 2: expected \d+ by the groups, found -",
    ),
    "all of group 1": (
        lambda d: edit_records(d, 0, lambda a: 16 * np.arange(len(a))),
        r"tensor 'embedding_rows': expected float32 \(\d+,\), found float32",
    ),
    "groups of another dtype": (
        lambda d: edit_tensor(d, WEIGHTS, "records", lambda a: a.astype(np.int64)),
        "tensor 'records': expected int32",
    ),
    "too few groups": (
        lambda d: edit_tensor(d, WEIGHTS, "records", lambda a: a[:-1]),
        "tensor 'records': expected int32",
    ),
    "ranks that fall": (
        lambda d: edit_tensor(d, WEIGHTS, "ranks", lambda a: np.array([9, 6], np.int32)),
        r"tensor 'ranks': expected 1 to 16 strictly increasing numbers, found \[9, 6\]",
    ),
    "rank zero": (
        lambda d: edit_tensor(d, WEIGHTS, "ranks", lambda a: np.array([0, 6], np.int32)),
        "tensor 'ranks': expected 1 to 16 strictly increasing",
    ),
    "no ranks": (
        lambda d: edit_tensor(d, WEIGHTS, "ranks", lambda a: np.zeros(0, np.int32)),
        "tensor 'ranks': expected up to 16 ranks, the last one 6",
    ),
    "ranks of another dim": (
        lambda d: edit_tensor(d, WEIGHTS, "ranks", lambda a: np.array([2, 7], np.int32)),
        "tensor 'ranks': expected up to 16 ranks, the last one 6",
    ),
    "ranks that are not whole": (
        lambda d: edit_tensor(d, WEIGHTS, "ranks", lambda a: a.astype(np.float32)),
        "tensor 'ranks': expected int32",
    ),
    "huge ranks": (
        lambda d: (
            edit_tensor(d, WEIGHTS, "ranks", lambda a: np.array([2, 2**31 - 1], np.int32)),
            edit_manifest(d, dim=2**31 - 1),
        ),
        "dim: expected 1 to 1024",
    ),
    "NaN factor": (
        lambda d: edit_tensor(d, WEIGHTS, "embedding_rows", put((1,), np.nan)),
        r"tensor 'embedding_rows' at \[1\]: expected a finite number, found nan",
    ),
    "padding is used": (
        lambda d: edit_tensor(d, WEIGHTS, "embedding_rows", put((5,), 1.0)),
        "tensor 'embedding_rows': expected zero padding",
    ),
    "folded scalar lies": (
        lambda d: edit_records(d, 1, put((4,), np.float32(99.0).view(np.int32))),
        r"folded scalar of feature 4: expected .*, found 99.0",
    ),
    "factor lies": (
        lambda d: edit_tensor(d, WEIGHTS, "embedding_rows", put((8,), 50.0)),
        r"folded scalar of feature \d+: expected",
    ),
    "NaN folded scalar": (
        lambda d: edit_records(d, 1, put((4,), np.float32(np.nan).view(np.int32))),
        r"tensor 'records: folded' at \[4\]: expected a finite number, found nan",
    ),
    "infinite linear weight": (
        lambda d: edit_tensor(d, WEIGHTS, "linear", put((0,), np.inf)),
        r"tensor 'linear' at \[0\]: expected a finite number",
    ),
    "another family": (lambda d: edit_manifest(d, family="fm"), "the tensors"),
}


@pytest.mark.parametrize("case", RAGGED_HOSTILE)
def test_hostile_ragged_rows_are_refused_by_name(case: str, tmp_path: Path) -> None:
    harm, words = RAGGED_HOSTILE[case]
    make_model("rafm").write(tmp_path / "a")
    read_artefact(tmp_path / "a")
    harm(tmp_path / "a")
    with pytest.raises(ArtefactError, match=words):
        read_artefact(tmp_path / "a")


@pytest.mark.parametrize("ranks", [(64, 256), (2, 6), (1, 3, 8, 9), (16,), (8, 16)])
def test_ragged_rows_hold_the_active_factors_and_nothing_else(ranks: tuple[int, ...], tmp_path: Path) -> None:
    """Exactly sum_p D_p |F_p| factors; rows aligned to 32 bytes, and to lines where they are wider."""
    groups = np.random.default_rng(1).integers(1, len(ranks) + 1, 200).astype(np.int32)
    shape = RaggedShape(ranks, groups)
    factors = sum(rank * int((groups >= p).sum()) for p, rank in enumerate(ranks, start=1))
    assert shape.factors == factors
    vectors = np.arange(1, factors + 1, dtype=np.float32)
    rows = shape.pack(vectors)
    assert np.count_nonzero(rows) == factors and rows.size == shape.packed_floats
    np.testing.assert_array_equal(shape.unpack(rows), vectors)
    if all(rank % 16 == 0 for rank in ranks):
        assert rows.size == factors, "no padding"
    start, taken = 0, np.zeros(rows.size, bool)
    for i, group in enumerate(groups.tolist()):
        at, column = 8 * (int(shape.row_at[i]) >> 4), 0
        width = shape.widths[group - 1]
        assert (shape.row_at[i] & 15) + 1 == group and (width == 8 or at % 16 == 0)
        assert not taken[at : at + width].any(), "rows do not overlap"
        taken[at : at + width] = True
        for rank in ranks[:group]:
            np.testing.assert_array_equal(rows[at + column : at + column + rank], vectors[start : start + rank])
            column, start = column + -(-rank // 8) * 8, start + rank
    assert taken.all()


@pytest.mark.parametrize("change", ["no groups", "groups of an fm", "ranks", "factors", "group", "features"])
def test_writer_refuses_wrong_ragged_weights(change: str, tmp_path: Path) -> None:
    model = make_model("fm" if change == "groups of an fm" else "rafm")
    w, other = model.weights, make_model("rafm").weights
    assert other.groups is not None
    changed = {
        "no groups": lambda: replace(w, groups=None),
        "groups of an fm": lambda: replace(w, groups=other.groups, ranks=other.ranks),
        "ranks": lambda: replace(w, ranks=(2, 9)),
        "factors": lambda: replace(w, vectors=w.vectors[:-1]),
        "group": lambda: replace(w, groups=other.groups + 1),
        "features": lambda: replace(w, groups=other.groups[:-1]),
    }
    model.weights = changed[change]()
    words = {
        "no groups": "groups: expected for rafm", "groups of an fm": "groups: expected for rafm",
        "ranks": "the last one to be dim = 6", "factors": "tensor 'vectors': expected float32",
        "group": "rank group of feature", "features": "weights: groups: expected int32",
    }  # fmt: skip
    with pytest.raises(ArtefactError, match=words[change]):
        model.write(tmp_path / "a")


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_artefact_is_refused_by_name(case: str, model: Model, tmp_path: Path) -> None:
    harm, words = HOSTILE[case]
    model.write(tmp_path / "a")
    read_artefact(tmp_path / "a")
    harm(tmp_path / "a")
    with pytest.raises(ArtefactError, match=words):
        read_artefact(tmp_path / "a")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="expected a folder, found no such folder"):
        read_artefact(tmp_path / "none")


def test_a_catalogue_is_optional(model: Model, tmp_path: Path) -> None:
    write_artefact(tmp_path / "a", model.manifest, model.weights, model.encoder)
    assert read_artefact(tmp_path / "a").items is None
