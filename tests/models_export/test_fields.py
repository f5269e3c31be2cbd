from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_export.encoded import EncodedSide
from models_export.errors import ArtefactError, EncodingError
from models_export.fields import FieldEncoder, bin_key
from models_export.manifest import FieldSpec

from .conftest import Model, make_model

LN2 = FieldSpec("x", "item", "numeric", 2, binning="ln2")


def test_missing_rare_and_known_are_three_things(model: Model) -> None:
    encode = model.encoder.encode_value
    assert encode("user", None) == encode("user", "") == encode("genres", []) == encode("genres", {}) == ([0], [1.0])
    assert encode("user", "never seen") == ([1], [1.0])
    assert encode("user", "ü2") == ([3], [1.0])


def test_integers_are_their_digits() -> None:
    encoder = FieldEncoder.build([FieldSpec("hour", "context", "categorical", 2)], {"hour": ["17"]})
    assert encoder.encode_value("hour", 17) == encoder.encode_value("hour", "17") == ([2], [1.0])


def test_multi_values_weigh_one_nth_each_unless_given(model: Model) -> None:
    encode = model.encoder.encode_value
    assert encode("genres", ["War", "Drama", "War", "?"]) == ([2, 3, 2, 1], [0.25] * 4)
    assert encode("genres", {"War": 3, "Drama": 0.5}) == ([2, 3], [3.0, 0.5])
    assert encode("genres", "War") == ([2], [1.0])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_ln2_bins_are_the_papers(x: float) -> None:
    key = bin_key(LN2, x)
    if x > 2:
        n = int(key.removeprefix("ln2:"))
        assert n <= math.log(x) ** 2 < n + 1
    else:
        assert int(key) <= x < int(key) + 1


def test_quantile_bins_count_the_edges_at_or_below() -> None:
    spec = FieldSpec("x", "item", "numeric", 2, binning="quantile", edges=(0.0, 1.5))
    assert [bin_key(spec, x) for x in (-1, 0, 1, 1.5, 9)] == ["0", "1", "1", "2", "2"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("user", True, "found a boolean"),
        ("user", 1.5, "found a fraction"),
        ("user", ["u1"], "found a list"),
        ("user", {"u1": 1}, "found an object"),
        ("user", [], "expected one value, found a list without any"),
        ("user", 10**40, "write a longer one as a string"),
        ("age", "ten", "expected a number, found 'ten'"),
        ("age", "1_0", "expected a number"),
        ("age", math.nan, "finite"),
        ("age", math.inf, "finite"),
        ("age", "1e999", "finite"),
        ("age", False, "found a boolean"),
        ("genres", {"War": -1}, "expected a weight from 0 to 1e+06 for 'War', found -1"),
        ("genres", {"War": math.nan}, "found nan"),
        ("genres", {"War": 1e7}, "expected a weight"),
        ("genres", {"War": "2"}, "expected a weight"),
        ("genres", [["War"]], "found a list"),
        ("speed", 1, "not a field of this model; its fields are age, genres, movie, user"),
    ],
)
def test_what_a_field_cannot_take_is_named(model: Model, field: str, value: Any, words: str) -> None:
    with pytest.raises(EncodingError) as caught:
        model.encoder.encode_value(field, value)
    assert caught.value.field == field
    assert words in caught.value.detail


def test_a_field_of_the_other_side_is_refused(model: Model) -> None:
    with pytest.raises(EncodingError, match="'movie': a field of the item, found in the context"):
        model.encoder.encode_side("context", [{"movie": "m1"}])


values = st.none() | st.sampled_from(["u1", "ü2", "", "other"]) | st.integers(-5, 5)


@given(st.lists(st.fixed_dictionaries({}, optional={"user": values, "age": st.integers(-5, 100)}), max_size=6))
def test_batch_is_single_and_bulk_is_value(rows: list[dict[str, Any]]) -> None:
    encoder = make_model().encoder
    batch = encoder.encode_side("context", rows)
    for i, row in enumerate(rows):
        assert np.array_equal(batch.rows[i], encoder.encode_side("context", [row]).rows[0])
    users = [row.get("user") for row in rows]
    assert encoder.encode_strings("user", users).tolist() == [encoder.encode_value("user", u)[0][0] for u in users]


def test_retraining_only_appends(model: Model) -> None:
    wider = model.encoder.extend({"user": ["new", "u1", "new"], "genres": ["Film-Noir"]})
    assert [wider.encode_value("user", u)[0][0] for u in ("u1", "ü2", "new")] == [2, 3, 4]
    assert wider.encode_value("genres", ["Film-Noir"])[0] == [4]
    assert wider.encode_value("movie", "m3") == model.encoder.encode_value("movie", "m3")


def test_a_table_of_another_size_is_refused(model: Model) -> None:
    fields = [FieldSpec("user", "context", "categorical", 9)]
    with pytest.raises(ArtefactError, match="vocabulary of 'user': expected 7 values, found 2 values"):
        FieldEncoder(fields, model.encoder.tables)


def test_take_is_row_by_row(model: Model) -> None:
    side = model.items.side
    index = np.array([2, 0, 2, 1])
    taken = side.take(index)
    for position, row in enumerate(index):
        start, end = taken.multi_indptr[position : position + 2]
        first, last = side.multi_indptr[row : row + 2]
        assert np.array_equal(taken.rows[position], side.rows[row])
        assert np.array_equal(taken.multi_rows[start:end], side.multi_rows[first:last])
        assert np.array_equal(taken.multi_weights[start:end], side.multi_weights[first:last])


def test_between_is_take_of_a_range(model: Model) -> None:
    side = model.items.side
    for start in range(len(side) + 1):
        for stop in range(start, len(side) + 1):
            found, expected = side.between(start, stop), side.take(np.arange(start, stop))
            for name in ("rows", "multi_indptr", "multi_rows", "multi_weights"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    single = EncodedSide.without_multi(side.rows)
    np.testing.assert_array_equal(single.between(1, 3).rows, side.rows[1:3])
