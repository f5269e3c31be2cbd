"""What serving a trained run costs, measured with the kernels that serve it.

Each run is exported as ``ctrank-train export`` would, and read as the service reads it. Two ways of ranking a slate of
1,000 items for one context are timed, from encoded ids to the best 10:

    inline   context state, every item's fields scored, top 10 (items sent with their fields)
    ids      context state, top 10 of precomputed item sides (items named by catalogue id)

All models and ways take turns in an order that is shuffled at each repetition, so that what disturbs the machine
disturbs all alike; slate and context are others at every call. HTTP and JSON are left out: they cost every model the
same.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_export.encoded import EncodedSide
from models_export.reader import read_artefact
from training.artefact import export_run
from training.interactions import side_of
from training.prepared import Prepared
from training.progress import Progress
from training.run import Run

SLATE, TOP_K = 1000, 10
SLATES, CALLS, WARM = 64, 4, 5
"""Slates and contexts that are drawn; calls per turn; turns of each that are not counted."""

Side = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]


@dataclass(frozen=True)
class ServingCost:
    """Microseconds per slate (median, and the quartiles around it) and bytes. ``ids``: None without a catalogue."""

    inline_us: float
    inline_quartiles_us: tuple[float, float]
    ids_us: float | None
    ids_quartiles_us: tuple[float, float] | None
    artefact_bytes: int
    weights_bytes: int


def measure_serving(
    prepared: Prepared, runs: Mapping[str, Path], repetitions: int, progress: Progress
) -> tuple[dict[str, ServingCost], dict[str, Any]]:
    """The cost of each run by its label, and what the slates were; one export each, in a folder that goes away."""
    slates = _Slates(prepared)
    ways: dict[tuple[str, str], Callable[[int], object]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory(prefix="ctrank-compare-") as name:
        with progress.task("export and compile", len(runs), "models") as bar:
            for number, (label, folder) in enumerate(runs.items()):
                artefact = Path(name) / str(number)
                export_run(Run.open(folder), prepared, "compared", artefact)
                sizes[label] = _bytes(artefact)
                ways |= {(label, way): call for way, call in _ways(artefact, slates).items()}
                bar.advance(1, label)
        progress.line(f"timing {len(ways)} ways in turn, {repetitions:,} times: slates of {slates.size:,} items")
        times = dict(zip(ways, _take_turns(list(ways.values()), repetitions), strict=True))
    costs = {label: _cost(times[label, "inline"], times.get((label, "ids")), sizes[label]) for label in runs}
    return costs, slates.facts() | {"repetitions": repetitions, "calls_per_turn": CALLS}


class _Slates:
    """Contexts of the test split (validation where that is empty), and slates of catalogue items; of items of those
    rows where there is no catalogue."""

    def __init__(self, prepared: Prepared) -> None:
        rng = np.random.default_rng(7)
        split = prepared.split("test" if prepared.rows("test") else "valid")
        rows = rng.integers(0, len(split), SLATES)
        contexts = side_of(split.encoded.take(rows), prepared.fields, "context")
        self.contexts = [_arrays(contexts.take(np.array([i]))) for i in range(SLATES)]
        self.catalogue = prepared.items.side if prepared.items is not None else None
        if self.catalogue is None:
            drawn = split.encoded.take(rng.choice(len(split), min(len(split), 20 * SLATE), replace=False))
            pool = side_of(drawn, prepared.fields, "item")
        else:
            pool = self.catalogue
        self.size = SLATE
        few = len(pool) < SLATE
        self.index = [rng.choice(len(pool), SLATE, replace=few).astype(np.int32) for _ in range(SLATES)]
        self.items = [_arrays(pool.take(index)) for index in self.index]
        self.pool = len(pool)

    def facts(self) -> dict[str, Any]:
        """For the report."""
        from_catalogue = self.catalogue is not None
        return {"items": self.size, "top_k": TOP_K, "drawn_from": self.pool, "catalogue": from_catalogue}


def _ways(artefact: Path, slates: _Slates) -> dict[str, Callable[[int], object]]:
    """The ways to rank a slate with an artefact: name -> call with a number that chooses slate and context."""
    from service.kernels.catalogue import CatalogueKernel
    from service.kernels.of_artefact import KERNELS
    from service.kernels.top_k import top_k

    read = read_artefact(artefact)
    kernel = KERNELS[read.manifest.family](read)

    def inline(number: int) -> object:
        state = kernel.context_state(slates.contexts[number % SLATES])
        return top_k(kernel.score_items(state, slates.items[number % SLATES]), TOP_K)

    if slates.catalogue is None:
        return {"inline": inline}
    g, beta = kernel.item_side(_arrays(slates.catalogue))
    catalogue = CatalogueKernel(kernel.vector_size)

    def ids(number: int) -> object:
        alpha, a = kernel.query(kernel.context_state(slates.contexts[number % SLATES]))
        return catalogue.top_index(g, beta, alpha, a, slates.index[number % SLATES], TOP_K)

    return {"inline": inline, "ids": ids}


def _take_turns(ways: list[Callable[[int], object]], repetitions: int) -> NDArray[np.float64]:
    """Microseconds per call, float64 [ways, repetitions]."""
    rng = np.random.default_rng(11)
    found = np.empty((len(ways), repetitions))
    number = 0
    for repetition in range(-WARM, repetitions):
        for which in rng.permutation(len(ways)):
            way = ways[which]
            number += CALLS
            began = time.perf_counter()
            for call in range(CALLS):
                way(number + call)
            elapsed = time.perf_counter() - began
            if repetition >= 0:
                found[which, repetition] = elapsed / CALLS * 1e6
    return found


def _cost(inline: NDArray[np.float64], ids: NDArray[np.float64] | None, size: tuple[int, int]) -> ServingCost:
    a = _quartiles(inline)
    b = None if ids is None else _quartiles(ids)
    return ServingCost(a[1], (a[0], a[2]), b and b[1], b and (b[0], b[2]), *size)


def _quartiles(times: NDArray[np.float64]) -> tuple[float, float, float]:
    low, middle, high = (round(float(q), 2) for q in np.quantile(times, (0.25, 0.5, 0.75)))
    return low, middle, high


def _bytes(artefact: Path) -> tuple[int, int]:
    return (
        sum(path.stat().st_size for path in artefact.iterdir()),
        (artefact / "weights.safetensors").stat().st_size,
    )


def _arrays(side: EncodedSide) -> Side:
    return side.rows, side.multi_indptr, side.multi_rows, side.multi_weights
