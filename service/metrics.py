"""Counters, gauges and histograms of all workers together, cheap enough for the hot path.

Each worker owns one memory-mapped file of float64 slots and an index file that says, line by line, which slots belong
to which series; an update is one addition to a slot (no lock: only the event loop's thread writes). A scrape, by
whichever worker, reads the files of all workers and adds them up. Files of workers that have died still count, so no
counter ever falls; their gauges do not.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import secrets
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

CAPACITY = 1 << 16  # slots of one worker: 512 KiB, sparse
BUCKETS_S = (
    *(5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3),
    *(1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
# Slots of a histogram: one per bucket, one for +Inf, one for the sum.
HISTOGRAM_SLOTS = len(BUCKETS_S) + 2

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """A metric: its kind, its help text, its label names."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "ctrank_requests": Family("counter", "Requests by route and status.", ("route", "status")),
    "ctrank_request_seconds": Family("histogram", "Time inside the server by route.", ("route",)),
    "ctrank_stage_seconds": Family(
        "histogram",
        "Time of /rank and /score by stage: parse, encode, cache, kernel, reply.",
        ("route", "stage"),
    ),
    "ctrank_candidates": Family("counter", "Candidates ranked.", ("model",)),
    "ctrank_unknown_values": Family("counter", "Values that no vocabulary knows, by field.", ("model", "field")),
    "ctrank_unknown_items": Family("counter", "Item ids that the catalogue does not know.", ("model",)),
    "ctrank_context_source": Family("counter", "Ranked contexts by where their state came from.", ("source",)),
    "ctrank_cache_hits": Family("counter", "Context cache hits by tier.", ("tier",)),
    "ctrank_cache_misses": Family("counter", "Context cache misses by reason.", ("reason",)),
    "ctrank_cache_events": Family("counter", "Other events of the context cache.", ("event",)),
    "ctrank_cache_state": Family("gauge", "Entries, bytes and queued writes of the context cache.", ("what",)),
    "ctrank_breaker_state": Family("gauge", "Circuit breaker: 0 closed, 1 half open, 2 open; sum of workers."),
    "ctrank_model_info": Family("gauge", "Workers that serve this version.", ("model", "version", "family")),
    "ctrank_scorer_info": Family(
        "gauge", "Workers whose active version is scored so.", ("model", "scorer", "provider")
    ),
    "ctrank_model_load_failures": Family("counter", "Versions that did not load.", ("model",)),
    "ctrank_ready_workers": Family("gauge", "Workers that are loaded and warm."),
    "ctrank_process_cpu_seconds": Family("counter", "Processor time of the workers, all threads."),
    "ctrank_process_memory_bytes": Family("gauge", "Resident memory of the workers, mapped files included in each."),
    "ctrank_offloaded": Family("counter", "Requests that left the event loop for a thread.", ("route",)),
}
_INFOS = ("ctrank_model_info", "ctrank_scorer_info")  # what is no longer so is left out


class Histogram:
    """A histogram of seconds in a worker's slots; `observe` costs well under a microsecond."""

    __slots__ = ("_sum", "_values", "slot")

    def __init__(self, values: memoryview[float], slot: int) -> None:
        self._values, self.slot, self._sum = values, slot, slot + HISTOGRAM_SLOTS - 1

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        values = self._values
        values[self.slot + bisect_left(BUCKETS_S, seconds)] += 1.0
        values[self._sum] += seconds


class Counter:
    """One counter or gauge in a worker's slots."""

    __slots__ = ("_values", "slot")

    def __init__(self, values: memoryview[float], slot: int) -> None:
        self._values, self.slot = values, slot

    def add(self, amount: float = 1.0) -> None:
        """Add `amount`."""
        self._values[self.slot] += amount

    def set(self, value: float) -> None:
        """Set a gauge, or a counter whose total is kept elsewhere."""
        self._values[self.slot] = value

    def get(self) -> float:
        """The value in this worker."""
        return float(self._values[self.slot])


class Metrics:
    """The metrics of one worker, and the view of all of them. `folder` is shared by the workers of one server."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        stem = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._values_path = folder / f"{stem}.values"
        self._file = open(self._values_path, "w+b")  # noqa: SIM115 - held for the life of the worker: its lock says "alive"
        self._file.truncate(CAPACITY * 8)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._map = mmap.mmap(self._file.fileno(), CAPACITY * 8)
        self.values = memoryview(self._map).cast("d")
        self._index = open(folder / f"{stem}.index", "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._next = 0
        self._counters: dict[tuple[str, tuple[str, ...]], Counter] = {}
        self._histograms: dict[tuple[str, tuple[str, ...]], Histogram] = {}

    def counter(self, name: str, *labels: str) -> Counter:
        """The counter or gauge `name` with these label values, in the order of its family."""
        key = (name, labels)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = Counter(self.values, self._slots(name, labels, 1))
        return found

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The histogram `name` with these label values."""
        key = (name, labels)
        found = self._histograms.get(key)
        if found is None:
            found = self._histograms[key] = Histogram(self.values, self._slots(name, labels, HISTOGRAM_SLOTS))
        return found

    def _slots(self, name: str, labels: tuple[str, ...], count: int) -> int:
        family = FAMILIES[name]
        if len(labels) != len(family.labels):
            raise ValueError(f"metric {name}: expected labels {family.labels}, found {labels}")
        if self._next + count > CAPACITY:
            raise RuntimeError(f"metric {name}{labels}: all {CAPACITY} slots of this worker are in use")
        slot, self._next = self._next, self._next + count
        self._index.write(json.dumps([slot, name, list(labels)]) + "\n")
        return slot

    def total(self, name: str) -> float:
        """The sum of a counter or gauge over its labels and all workers (gauges: those that live)."""
        return sum(values[0] for values in _totals(self.folder).get(name, {}).values())

    def exposition(self) -> bytes:
        """All workers' metrics in the Prometheus text format."""
        registry = CollectorRegistry()
        registry.register(_Sum(self.folder))  # type: ignore[arg-type]
        return generate_latest(registry)

    def close(self) -> None:
        """Release the files; they stay on disk, and their counters keep counting. The mapping goes with its last user:
        compiled code may count in it."""
        self._file.close()
        self._index.close()


class _Sum:
    """A prometheus_client collector over the files of all workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        totals = _totals(self._folder)
        for name, family in FAMILIES.items():
            yield _metric(name, family, totals.get(name, {}))


def _totals(folder: Path) -> dict[str, dict[tuple[str, ...], list[float]]]:
    """Name -> labels -> values, summed over the workers' files in ``folder``."""
    totals: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for values_path in sorted(folder.glob("*.values")):
        _add_worker(values_path, totals)
    return totals


def _add_worker(values_path: Path, totals: dict[str, dict[tuple[str, ...], list[float]]]) -> None:
    try:
        raw = values_path.read_bytes()
        lines = values_path.with_suffix(".index").read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return
    values = memoryview(raw).cast("d")
    alive = _is_alive(values_path)
    for line in lines:
        slot, name, labels = json.loads(line)
        kind = FAMILIES[name].kind
        if kind == "gauge" and not alive:
            continue
        width = HISTOGRAM_SLOTS if kind == "histogram" else 1
        found = list(values[slot : slot + width])
        known = totals.setdefault(name, {}).setdefault(tuple(labels), [0.0] * width)
        known[:] = [a + b for a, b in zip(known, found, strict=True)]


def _is_alive(values_path: Path) -> bool:
    """Whether a worker still holds the lock on its file."""
    with open(values_path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _metric(name: str, family: Family, series: Mapping[tuple[str, ...], list[float]]) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
        for labels, values in sorted(series.items()):
            counts, total = values[:-1], 0.0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip([*map(repr, BUCKETS_S), "+Inf"], counts, strict=True):
                total += count
                buckets.append((bound, total))
            histogram.add_metric(labels, buckets, values[-1])
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(name, family.help, labels=family.labels)
    for labels, values in sorted(series.items()):
        if name not in _INFOS or values[0]:
            metric.add_metric(labels, values[0])
    return metric
