"""The pipeline of known ids against the table itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import int64, types

from models_export.string_table import StringTable
from service.kernels._jit import OUT_I32_1, kernel
from service.kernels.scan_fields import RAW, TABLES
from service.kernels.scan_known_ids import REFUSED, scan_known_ids, work_words
from service.ranking.field_tables import catalogue_table

# Shorter than a word, a word, more than one, with a byte beyond ASCII; many, so that some share their first slot.
IDS = [str(i) for i in range(400)] + [f"item-{i}" for i in range(400)] + ["12345678", "é" * 4, "x" * 16, "x" * 41]
TABLE = StringTable.build(IDS, 0)


@kernel(types.UniTuple(int64, 2)(RAW, TABLES, OUT_I32_1))
def scan(raw, table, index):  # type: ignore[no-untyped-def]
    base = int64(raw.ctypes.data)
    count, at = scan_known_ids(base, base + len(raw), table, index, np.empty(work_words(len(raw)), np.int64))
    return count, at - base


def indices(text: str, most: int = 2000) -> tuple[list[int] | None, str]:
    """Indices, and what stands behind the array."""
    data = text.encode()
    index = np.empty(most, np.int32)
    count, behind = scan(np.frombuffer(data, np.uint8), catalogue_table(TABLE), index)
    return (None, "") if count == REFUSED else (index[:count].tolist(), data[behind:].decode())


@given(
    st.lists(st.sampled_from(IDS), max_size=300), st.sampled_from([",", ", "]), st.sampled_from(["", " ", ',"k":"v"}'])
)
def test_strings(ids: list[str], comma: str, behind: str) -> None:
    text = json.dumps(ids, separators=(comma, ":"), ensure_ascii=False)
    assert indices(text + behind) == (TABLE.get_many(ids).tolist(), behind)


@given(st.lists(st.integers(0, 399), max_size=300), st.sampled_from([",", " , "]))
def test_integers(ids: list[int], comma: str) -> None:
    text = json.dumps(ids, separators=(comma, ":"))
    assert indices(text + "x") == (TABLE.get_many([str(i) for i in ids]).tolist(), "x")


@given(st.lists(st.sampled_from(IDS), min_size=1, max_size=100), st.data())
def test_one_unknown_id_is_refused(ids: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(ids) - 1))
    ids[at] = data.draw(st.sampled_from(["new", "", "x" * 17, "0" * 8, "item-1 "]))
    assert indices(json.dumps(ids)) == (None, "")


@pytest.mark.parametrize(
    "text",
    ["", "[", '["1"', '["1",', '["1","2"', '["1"x"2"]', '["1",2]', '[1,"2"]', '["1",,"2"]', '["1"  ,"2"]',
     '["\\u0031"]', '["1""2"]', "[1,]", "[1 2]", "[01]", "[true]", '{"1":1}', '"1"'],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    assert indices(text) == (None, "")


def test_room() -> None:
    assert indices("[1,2,3]", most=3)[0] == [1, 2, 3]
    assert indices("[1,2,3]", most=2) == (None, "")
    assert indices('["1","2","3"]', most=2) == (None, "")
    assert indices(" []")[0] is None and indices("[ ]") == ([], "")
