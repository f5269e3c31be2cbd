"""Calls of several threads joined into one: the device is given one large batch in place of many small ones.

The first call that finds nobody waiting leads: it waits until its time budget is over or the batch is full, takes all
calls that have come meanwhile, runs them as one, and hands out the results. Calls that come during a run wait for the
next one, which begins at once if their budget is over by then: a busy device fills its batches by itself.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Generic, TypeVar

W = TypeVar("W")
R = TypeVar("R")


class _Call(Generic[W, R]):
    __slots__ = ("arrived", "error", "leads", "result", "size", "wake", "work")

    def __init__(self, work: W, size: int) -> None:
        self.work, self.size = work, size
        self.arrived = perf_counter()
        self.wake = threading.Event()
        self.leads = False
        self.result: R | None = None
        self.error: Exception | None = None


class Coalescer(Generic[W, R]):
    """Joins calls. ``run`` takes the works of a batch, in the order in which they came, and returns a result for each.

    ``wait_us``: how long a call may wait for others, 0 not at all; ``most``: sizes of a batch add up to no more, unless
    one call alone is larger.
    """

    def __init__(self, run: Callable[[Sequence[W]], Sequence[R]], wait_us: float, most: int) -> None:
        self._run, self._wait_s, self._most = run, wait_us / 1e6, most
        self._lock = threading.Condition()
        self._waiting: deque[_Call[W, R]] = deque()
        self._size = 0
        self._led = False
        self.batches = 0
        self.calls = 0

    def __call__(self, work: W, size: int) -> R:
        """The result of ``work``, computed alone or together with others'."""
        call: _Call[W, R] = _Call(work, size)
        with self._lock:
            self._waiting.append(call)
            self._size += size
            call.leads = not self._led
            self._led = True
            if self._size >= self._most:
                self._lock.notify_all()
        if not call.leads:
            call.wake.wait()
        if call.leads:
            self._lead(call)
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]

    def _lead(self, first: _Call[W, R]) -> None:
        batch = self._gathered(first)
        try:
            self._answer(batch)
        finally:
            with self._lock:
                follower = self._waiting[0] if self._waiting else None
                if follower is None:
                    self._led = False
                else:
                    follower.leads = True
            if follower is not None:
                follower.wake.set()
            for call in batch:
                if call is not first:
                    call.wake.set()

    def _gathered(self, first: _Call[W, R]) -> list[_Call[W, R]]:
        """The calls of the next batch, once its time has come; ``first`` is the one that has waited longest."""
        with self._lock:
            while self._size < self._most:
                left = first.arrived + self._wait_s - perf_counter()
                if left <= 0 or not self._lock.wait(left):
                    break
            batch = [self._waiting.popleft()]
            size = batch[0].size
            while self._waiting and size + self._waiting[0].size <= self._most:
                size += self._waiting[0].size
                batch.append(self._waiting.popleft())
            self._size -= size
            self.batches += 1
            self.calls += len(batch)
        return batch

    def _answer(self, batch: list[_Call[W, R]]) -> None:
        """Run a batch; if it fails, each call by itself, so that one request's failure is not its neighbour's."""
        try:
            for call, result in zip(batch, self._run([call.work for call in batch]), strict=True):
                call.result = result
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for call in batch:
                self._answer([call])
