"""Calls of several threads that become one run."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.scorers.coalescing import Coalescer

pytestmark = pytest.mark.timed


class Runs:
    """Doubles numbers; remembers its batches. Holds until told to go on."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.running, self.go = threading.Event(), threading.Event()
        if not held:
            self.go.set()

    def __call__(self, works: Sequence[int]) -> list[int]:
        self.batches.append(list(works))
        self.running.set()
        assert self.go.wait(20)
        if 13 in works:
            raise ValueError("thirteen")
        return [2 * work for work in works]


def test_calls_within_the_budget_become_one_run() -> None:
    runs = Runs()
    coalescer = Coalescer(runs, 2e5, 1000)
    start = threading.Barrier(5)

    def call(i: int) -> int:
        start.wait()
        return coalescer(i, 1)

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(call, range(5))) == [0, 2, 4, 6, 8]
    assert len(runs.batches) == 1 and sorted(runs.batches[0]) == [0, 1, 2, 3, 4]
    assert (coalescer.batches, coalescer.calls) == (1, 5)


def test_a_lone_call_waits_for_its_budget_and_no_longer() -> None:
    coalescer = Coalescer(Runs(), 5e4, 1000)
    began = time.perf_counter()
    assert coalescer(4, 1) == 8
    assert 0.045 < time.perf_counter() - began < 1.0
    began = time.perf_counter()
    assert Coalescer(Runs(), 0.0, 1000)(4, 1) == 8
    assert time.perf_counter() - began < 0.04


def test_a_full_batch_waits_for_nobody() -> None:
    coalescer = Coalescer(Runs(), 2e7, 3)
    began = time.perf_counter()
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda i: coalescer(i, 1), range(3))) == [0, 2, 4]
    assert coalescer(5, 100) == 10  # larger than a batch by itself
    assert time.perf_counter() - began < 5.0


def test_calls_that_come_during_a_run_share_the_next_one() -> None:
    runs = Runs(held=True)
    coalescer = Coalescer(runs, 0.0, 1000)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(coalescer, 0, 1)
        assert runs.running.wait(20)
        others = [pool.submit(coalescer, i, 1) for i in (1, 2, 3)]
        while coalescer._size < 3:
            time.sleep(0.001)
        runs.go.set()
        assert [first.result(20), *(other.result(20) for other in others)] == [0, 2, 4, 6]
    assert [len(batch) for batch in runs.batches] == [1, 3]


def test_a_batch_holds_no_more_than_it_may() -> None:
    runs = Runs(held=True)
    coalescer = Coalescer(runs, 0.0, 2)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(coalescer, 0, 1)
        assert runs.running.wait(20)
        others = [pool.submit(coalescer, i, 1) for i in range(1, 6)]
        while coalescer._size < 5:
            time.sleep(0.001)
        runs.go.set()
        assert sorted([first.result(20), *(other.result(20) for other in others)]) == [0, 2, 4, 6, 8, 10]
    assert [len(batch) for batch in runs.batches] == [1, 2, 2, 1]


def test_one_call_that_fails_is_not_its_neighbours_failure() -> None:
    runs = Runs(held=True)
    coalescer = Coalescer(runs, 0.0, 1000)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(coalescer, 0, 1)
        assert runs.running.wait(20)
        others = [pool.submit(coalescer, i, 1) for i in (12, 13, 14)]
        while coalescer._size < 3:
            time.sleep(0.001)
        runs.go.set()
        assert first.result(20) == 0
        assert (others[0].result(20), others[2].result(20)) == (24, 28)
        with pytest.raises(ValueError, match="thirteen"):
            others[1].result(20)
    assert coalescer(1, 1) == 2  # and the next one is served


def test_nothing_is_lost_under_load() -> None:
    coalescer = Coalescer(lambda works: [2 * work for work in works], 100.0, 16)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda i: coalescer(i, 1), range(3000))) == [2 * i for i in range(3000)]
    assert coalescer.calls == 3000 and not coalescer._waiting and coalescer._size == 0 and not coalescer._led
