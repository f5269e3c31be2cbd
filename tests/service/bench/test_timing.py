"""Timing in turns, measurements in processes of their own, the machine's description."""

from __future__ import annotations

import json

import pytest

from service.bench import catalogue, kernels, machine
from service.bench.subprocess_run import measure_apart
from service.bench.timing import interleaved, median_ratio, median_us


def test_ways_take_turns_and_never_see_one_number_twice() -> None:
    calls: list[tuple[str, int]] = []
    seconds = interleaved([lambda i: calls.append(("a", i)), lambda i: calls.append(("b", i))], 4, warm=2, calls=3)
    assert [len(times) for times in seconds] == [4, 4]
    assert len({number for _, number in calls}) == len(calls) == 6 * 2 * 3
    order = "".join(way for way, _ in calls[::3])
    assert order in ("ab" + "baab" * 2 + "ba", "ba" + "abba" * 2 + "ab")


def test_medians() -> None:
    assert median_us([1e-6, 3e-6, 100.0]) == 3.0
    assert median_ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == 2.0


def test_a_failing_measurement_shows_its_error() -> None:
    with pytest.raises(RuntimeError, match=r"benchmark service\.bench\.no_such failed: .*No module named"):
        measure_apart("service.bench.no_such")


def test_the_machine_is_described_for_json_and_for_people() -> None:
    found = machine.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"] and found["cores"] >= 1 and found["numba"]
    assert found["cpu"] in machine.summary(found)


def test_the_kernel_figures_render() -> None:
    text = kernels.render(
        {
            "machine": machine.describe(),
            "c": {"compiler": "cc 12", "kind": "AVX2"},
            "shape": "1000 items",
            "against_c": [
                {"kernel": "dplr", "table_rows": 10_000, "ours_us": 25.0, "c_us": 50.0, "ratio": 0.5, "limit": 1.15}
                | {"floor_us": 15.0}
            ],
            "against_authors": [
                {"table_rows": 10_000, "context_fields": 10, "rank": 3, "ours_us": 100.0, "numpy_us": 2000.0}
                | {"speed_up": 20.0, "speed_up_float64": 30.0, "speed_up_tuned": 10.0}
            ],
            "local": [
                {"item_fields": 12, "table_rows": 10_000, "ours_us": 400.0, "c_us": 390.0, "ratio": 1.03, "limit": 1.3}
                | {
                    "jo_us": 500.0,
                    "jo_c_us": 400.0,
                    "jo_ratio": 1.25,
                    "fm_us": 50.0,
                    "over_fm": 8.1,
                    "jo_over_fm": 10.4,
                }
            ],
        }
    )
    assert "dplr" in text and "0.50" in text and "20.0x" in text and "1.03" in text and "8.1" in text
    assert "1.25" in text and "10.4" in text


def test_the_catalogue_figures_render() -> None:
    row = {"threads": 1, "ours_us": 2700.0, "numpy_us": 3500.0, "ratio": 0.77, "limit": 1.1, "gb_per_s": 37.0}
    result = {"machine": machine.describe(), "top": 100, "items": 1_000_000, "vector_size": 24}
    text = catalogue.render({**result, "against_numpy": [row, {**row, "threads": 2, "limit": None}]})
    assert "0.77" in text and "1,000,000" in text
