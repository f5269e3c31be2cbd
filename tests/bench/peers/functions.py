"""Scorers in one process, one thread, in turns: ``python -m tests.bench.peers.functions REGISTRY`` prints JSON.

Each scorer gets a slice of time in each round, in an order that is shuffled; every call has another slate. From
feature rows (text for Vowpal Wabbit) to the scores of all items.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.peers.scorers import (
    KernelScorer,
    NumpyScorer,
    OnnxScorer,
    PrecomputedScorer,
    SplitOnnxScorer,
    VowpalWabbit,
)
from tests.bench.peers.workload import SIZES, Request, Workload, check_scores, draw_requests

#: Name -> scorer, whether it takes catalogue rows in place of feature rows, the package and the file it needs.
SCORERS: dict[str, tuple[Any, bool, str, str]] = {
    "ctrank kernel, item fields": (KernelScorer, False, "numba", ""),
    "ctrank kernel, items precomputed": (PrecomputedScorer, True, "numba", ""),
    "authors' NumPy": (NumpyScorer, False, "numpy", ""),
    "ONNX Runtime, context tiled": (OnnxScorer, False, "onnxruntime", "score.onnx"),
    "ONNX Runtime, ctrank's two graphs": (SplitOnnxScorer, False, "onnxruntime", "rank.onnx"),
    "Vowpal Wabbit, shared context": (VowpalWabbit, True, "vowpalwabbit", ""),
}
OTHER_MODEL = ("Vowpal Wabbit, shared context",)
REQUESTS = 40


def measure(registry: Path, rounds: int, slice_s: float) -> dict[str, Any]:
    """Times of every scorer that can run here, by slate size; why not of the others."""
    workload = Workload.open(registry)
    scorers, missing = {}, {}
    for name, (kind, by_index, package, file) in SCORERS.items():
        if importlib.util.find_spec(package) is None:
            missing[name] = f"package {package} is not installed"
        elif file and not (workload.artefact.path / file).exists():
            missing[name] = f"the artefact has no {file}"
        else:
            scorers[name] = kind(workload), by_index
    rng = np.random.default_rng(2)
    times: dict[str, dict[str, Any]] = {name: {} for name in scorers}
    for size in SIZES:
        requests = list(draw_requests(size, REQUESTS))
        calls = {name: _calls(workload, scorer, by_index, requests) for name, (scorer, by_index) in scorers.items()}
        for name, call in calls.items():
            for number in (0, 1):
                if name not in OTHER_MODEL:
                    check_scores(f"{name}, {size}", call(number), workload.expected(requests[number]))
        found = take_turns(calls, rounds, slice_s, rng)
        for name, seconds in found.items():
            times[name][str(size)] = summary(seconds)
    return {"scorers": times, "missing": missing}


def _calls(workload: Workload, scorer: Any, by_index: bool, requests: list[Request]) -> Callable[[int], Any]:
    inputs = [
        (workload.context_rows(r), r.index if by_index else np.ascontiguousarray(workload.item_rows(r)))
        for r in requests
    ]
    return lambda number: scorer(*inputs[number % len(inputs)])


def take_turns(
    calls: dict[str, Callable[[int], Any]], rounds: int, slice_s: float, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Seconds of every call: at least one in each round, as many as fit into ``slice_s``."""
    names = list(calls)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in rng.permutation(names).tolist():
            call, seconds, stop = calls[name], found[name], time.perf_counter() + slice_s
            while True:
                began = time.perf_counter()
                call(len(seconds))
                ended = time.perf_counter()
                seconds.append(ended - began)
                if ended >= stop:
                    break
    return found


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and p99 in microseconds, and how many calls they are of."""
    median, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e6
    return {"median_us": round(float(median), 2), "p99_us": round(float(p99), 2), "calls": len(seconds)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("registry", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--slice-s", type=float, default=0.03)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.registry, arguments.rounds, arguments.slice_s)))
