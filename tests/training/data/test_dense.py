"""Dense fields from log to encoded rows, and the logs that have them: KEEL, LIBSVM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models_export.errors import ArtefactError, EncodingError
from models_export.fields import FieldEncoder
from models_export.manifest import FieldSpec
from tests.data_folder import data_folder
from training.errors import UsageError
from training.prepare import prepare
from training.prepared import Prepared

KEEL = """@relation r
@attribute At1 real [-3.0, 3.0]
@attribute 'At 2' real[0,1]
@attribute Class {-1.0,1.0}
@inputs At1, At 2

@data
"""
SPEC = """
name = "small"
[source]
format = "keel"
files = ["log.dat"]
max_rejected = 0.5
[label]
column = "Class"
kind = "binary"
[split]
kind = "random"
fractions = [1.0, 0.0, 0.0]
[[fields]]
name = "a"
column = "At1"
side = "context"
kind = "dense"
[[fields]]
name = "b"
column = "At 2"
side = "item"
kind = "dense"
standardise = false
"""


def prepared(folder: Path, lines: str, spec: str = SPEC, **options: object) -> Prepared:
    folder.mkdir(exist_ok=True)
    (folder / "log.dat").write_text(lines)
    (folder / "spec.toml").write_text(spec)
    return prepare(folder / "spec.toml", folder, folder / "prepared", **options).open()  # type: ignore[arg-type]


def numbers(data: Prepared) -> np.ndarray:
    """[n, 2] of (feature row, x) of both fields."""
    side = data.split("train").encoded
    return np.stack([side.multi_rows, side.multi_weights], axis=1).reshape(-1, 2, 2)


def test_a_number_is_the_value_of_one_feature(tmp_path: Path) -> None:
    data = prepared(tmp_path / "d", KEEL + "1.0,0.5,1.0\n 3.0, ?,-1.0\n\n-1.0,-2.5,1.0\n<null>,1e1,1\nx,1,1\n")
    a, b = data.fields
    assert (a.centre, b.centre, b.scale, a.size, b.size) == (1.0, 0.0, 1.0, 3, 3)
    assert a.scale == pytest.approx(np.std([1.0, 3.0, -1.0]))
    expected = [[(2, 0.0), (5, 0.5)], [(2, 2 / a.scale), (3, 1.0)], [(2, -2 / a.scale), (5, -2.5)], [(0, 1), (5, 10)]]
    np.testing.assert_allclose(numbers(data), expected, rtol=1e-6)
    assert data.split("train").label.tolist() == [1, 0, 1, 1]
    rejected = data.info["rejected"]
    assert rejected["'At1' not a finite number"]["count"] == 1 and rejected["blank line"]["count"] == 1
    for row, raw in zip(numbers(data), [(1.0, "0.5"), (3, None), ("-1", -2.5), ("", 10)], strict=True):
        for field, (feature, x), value in zip(data.fields, row, raw, strict=True):
            ids, weights = data.encoder.encode_value(field, value)
            assert ids[0] + data.encoder.offsets[data.encoder.index(field.name)] == feature
            assert np.float32(weights[0]) == np.float32(x)


def test_constants_stay_when_a_later_log_is_prepared(tmp_path: Path) -> None:
    first = prepared(tmp_path / "one", KEEL + "1,0,1\n3,1,-1\n")
    second = prepared(tmp_path / "two", KEEL + "50,0,1\n70,1,-1\n", previous=first.path)
    assert second.fields == first.fields and first.fields[0].centre == 2.0
    np.testing.assert_allclose(numbers(second)[:, 0, 1], [48.0, 68.0])


def test_equal_numbers_have_the_scale_one(tmp_path: Path) -> None:
    assert prepared(tmp_path / "d", KEEL + "4,0,1\n4,1,-1\n").fields[0].scale == 1.0


@pytest.mark.parametrize(
    ("lines", "spec", "message"),
    [
        ("@relation r\n1,2,3\n", SPEC, "expected a KEEL header"),
        (KEEL, SPEC, "expected rows behind @data"),
        (KEEL.replace("'At 2'", "At1"), SPEC, "attributes of distinct names"),
        (KEEL + "1e7,1e8,1\n", SPEC, r"field 'b': expected numbers within 1e\+06 times 1 of 0, found 1e\+08"),
        (KEEL + "?,1,1\n", SPEC, "field 'a': expected numbers in the training split"),
        (KEEL + "1e200,1,1\n-1e200,1,1\n", SPEC, "field 'a': expected numbers that can be standardised"),
        (KEEL, SPEC.replace('kind = "dense"\nstandardise', 'kind = "multi"\nstandardise'), "none for a multi field"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_cannot_be_prepared_is_told(tmp_path: Path, lines: str, spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepared(tmp_path / "d", lines, spec)


def test_an_index_left_out_of_a_libsvm_line_is_zero(tmp_path: Path) -> None:
    ranges = 'format = "libfm"\n[source.ranges]\nAt1 = [1, 1]\n"At 2" = [2, 2]\n'
    spec = SPEC.replace('format = "keel"\nfiles', "files").replace(
        "max_rejected = 0.5\n", "max_rejected = 0.5\n" + ranges
    )
    spec = spec.replace('column = "Class"', 'column = "label"')
    data = prepared(tmp_path / "d", "+1 1:3 2:-0.25\n-1 1:1\n-1\n", spec)
    np.testing.assert_allclose(numbers(data)[:, 1], [(5, -0.25), (5, 0.0), (5, 0.0)])
    assert data.fields[0].centre == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "expected one value|expected a number"),
        ("many", "expected a number, found 'many'"),
        (True, "expected a number, found a boolean"),
        (float("nan"), "expected a finite number"),
        (1e9, "expected a number from -2e\\+06 to 2e\\+06"),
    ],
)
def test_what_is_no_number_of_a_dense_field_is_refused(value: object, message: str) -> None:
    encoder = FieldEncoder.build([FieldSpec("a", "item", "dense", 2, scale=2.0)], {"a": ()})
    with pytest.raises(EncodingError, match=message):
        encoder.encode_value("a", value)


@pytest.mark.parametrize("constants", [{"scale": 0.0}, {"scale": float("inf")}, {"centre": float("nan")}])
def test_impossible_constants_are_refused(constants: dict[str, float]) -> None:
    with pytest.raises(ArtefactError, match="finite centre and a finite scale above 0"):
        FieldSpec("a", "item", "dense", 3, **constants)
    with pytest.raises(ArtefactError, match="scale: expected none for a multi field"):
        FieldSpec("a", "item", "multi", 3, scale=2.0)


def test_the_data_sets_of_llfm(tmp_path: Path) -> None:
    root = data_folder("banana", "ijcnn1")
    banana = prepare("banana", root, tmp_path / "b").open()
    assert banana.info["rows"] == 5300 and sum(c["count"] for c in banana.info["rejected"].values()) == 3
    ijcnn1 = prepare("ijcnn1", root, tmp_path / "i", first_rows=2000).open()
    assert ijcnn1.rows("train") + ijcnn1.rows("valid") == ijcnn1.rows("test") == 2000
    first = ijcnn1.split("test").encoded.multi_weights[:22]
    assert np.count_nonzero(first[:10]) == 1 and first.min() < 0
