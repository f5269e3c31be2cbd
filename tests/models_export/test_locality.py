"""LLFM's artefact: hostile ones are refused by name, rows hold what the format page says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models_export.errors import ArtefactError
from models_export.locality import Locality, local_stride
from models_export.manifest import Manifest
from models_export.reader import read_artefact

from .conftest import make_model
from .test_artefact import edit_manifest, edit_tensor, put

WEIGHTS = "weights.safetensors"
FACTS = {"scheme": "apl", "anchors": 5, "neighbours": 3, "beta": 1.0, "ratio": 1.0, "squared": False}

HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no locality": (lambda d: edit_manifest(d, locality=None), "locality: expected Locality"),
    "unknown scheme": (lambda d: edit_manifest(d, locality=FACTS | {"scheme": "near"}), "scheme: expected one of do"),
    "no neighbours": (lambda d: edit_manifest(d, locality=FACTS | {"neighbours": 0}), "neighbours: expected 1 to 5"),
    "too many neighbours": (lambda d: edit_manifest(d, locality=FACTS | {"neighbours": 6}), "neighbours: expected 1"),
    "negative beta": (lambda d: edit_manifest(d, locality=FACTS | {"beta": -1.0}), "beta: expected 0 to 1e6"),
    "NaN beta": (lambda d: edit_manifest(d, locality=FACTS | {"beta": float("nan")}), "NaN is not JSON"),
    "number for a flag": (lambda d: edit_manifest(d, locality=FACTS | {"squared": 1}), "squared: expected bool"),
    "unknown fact": (lambda d: edit_manifest(d, locality=FACTS | {"pickle": 1}), r"unknown \['pickle'\]"),
    "other anchors": (lambda d: edit_manifest(d, locality=FACTS | {"anchors": 6}), "expected float32"),
    "million anchors": (lambda d: edit_manifest(d, locality=FACTS | {"anchors": 10**6}), "anchors: expected 1 to 1024"),
    "another family": (lambda d: edit_manifest(d, family="fm"), "locality: expected none for fm"),
    "NaN anchor": (lambda d: edit_tensor(d, WEIGHTS, "local_anchors", put((0, 1), np.nan)), "expected a finite number"),
    "anchor lies": (
        lambda d: edit_tensor(d, WEIGHTS, "local_anchors", put((2, 1), 9.0)),
        r"embedding_rows\[1\]: share of a distance of anchor 2: expected -17",
    ),
    "linear lies": (
        lambda d: edit_tensor(d, WEIGHTS, "local_linear", put((1, 2), 99.0)),
        r"embedding_rows\[1\]: folded scalar of anchor 2",
    ),
    "distances' padding": (
        lambda d: edit_tensor(d, WEIGHTS, "embedding_rows", put((0, 15), 1.0)), "expected zero padding",
    ),
    "slot's padding": (
        lambda d: edit_tensor(d, WEIGHTS, "embedding_rows", put((0, 16 + 7), 1.0)), "expected zero padding",
    ),
    "row's padding": (lambda d: edit_tensor(d, WEIGHTS, "embedding_rows", put((0, -1), 1.0)), "expected zero padding"),
    "missing bias": (lambda d: edit_tensor(d, WEIGHTS, "local_bias", lambda a: a[:-1]), r"expected float32 \(5,\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_llfm_is_refused_by_name(case: str, tmp_path: Path) -> None:
    harm, words = HOSTILE[case]
    make_model("llfm").write(tmp_path / "a")
    read_artefact(tmp_path / "a")
    harm(tmp_path / "a")
    with pytest.raises(ArtefactError, match=words):
        read_artefact(tmp_path / "a")


def test_rows_hold_what_a_feature_of_value_one_adds(tmp_path: Path) -> None:
    model = make_model("llfm")
    model.write(tmp_path / "a")
    artefact = read_artefact(tmp_path / "a")
    rows, w = artefact.embedding_rows, model.weights
    assert rows.shape[1] == local_stride(artefact.manifest) == 64 and rows.ctypes.data % 64 == 0
    for i in (0, 3):
        for a in range(5):
            assert rows[i, a] == pytest.approx(1 - 2 * w.anchors[a, i], rel=1e-6)
            slot = rows[i, 16 + 8 * a : 24 + 8 * a]
            np.testing.assert_array_equal(slot[:6], w.vectors[i, a])
            assert slot[6] == pytest.approx(w.linear[i, a] - 0.5 * np.sum(w.vectors[i, a].astype(float) ** 2), rel=1e-5)
    assert not rows.flags.writeable


@pytest.mark.parametrize("change", ["locality", "anchors", "vectors"])
def test_writer_refuses_wrong_llfm_weights(change: str, tmp_path: Path) -> None:
    model = make_model("llfm")
    wrong = {
        "locality": replace(model.weights, locality=Locality("do", 5, 3, 1.0, 1.0, False)),
        "anchors": replace(model.weights, anchors=model.weights.anchors[:, 1:]),  # type: ignore[index]
        "vectors": replace(model.weights, vectors=model.weights.vectors[:, :, 1:]),
    }
    model.weights = wrong[change]
    with pytest.raises(ArtefactError, match=change):
        model.write(tmp_path / "a")


def test_locality_is_written_for_llfm_alone() -> None:
    assert b"locality" not in make_model("dplr").manifest.to_json()
    manifest = make_model("llfm").manifest
    assert Manifest.from_json(manifest.to_json()).locality == manifest.locality
