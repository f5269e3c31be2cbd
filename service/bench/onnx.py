"""ONNX Runtime against the compiled kernels: 1,000 to 1,000,000 candidates, and where one overtakes the other.

A DPLR model of rank 3, k = 8 with 25 context and 38 item fields. Three paths: candidates with their fields (gathers
included), candidates by catalogue index with the best 100 of them, and the exact best 100 of a whole catalogue. On the
CPU each has one thread on one core; on a GPU the time holds the way there and back. Scores are equal to 1e-5 and the
best are the same items, which is checked first.

Beside them: what a DeepFM of the same fields costs, and whether requests that share a run are answered faster.
"""

import argparse
import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models_export.encoded import EncodedSide
from service.bench.errors import BenchmarkError
from service.bench.machine import describe, summary
from service.bench.subprocess_run import keep_to_one_core, measure_apart
from service.bench.synthetic_model import random_items, write_model
from service.bench.timing import interleaved, median_ratio, median_us
from service.scorers.onnx_provider import CPU, OnnxUnavailable, Provider, find_provider

if TYPE_CHECKING:
    from models_export.reader import Artefact
    from service.scorers.protocol import Scorer

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SMALL = 10_000
"""Up to so many candidates a way is called twice in turn: the other's temporaries have emptied its caches."""
PATHS = ("items", "candidates", "catalogue")
TOP = 100
HIDDEN = (64, 32)
NETWORK_SIZES = (1_000, 10_000)
SHARED_SIZES = (10, 100, 1_000)
CLIENTS, SHARE_US = 8, 200.0
SEED = 22


def run(quick: bool = False) -> dict[str, Any]:
    """Measure in a process of its own; JSON-ready. ``BenchmarkError`` without onnx or ONNX Runtime."""
    try:
        import models_export.onnx_writer  # noqa: F401

        found = providers()
    except (ImportError, OnnxUnavailable) as error:
        raise BenchmarkError(
            f"bench onnx needs onnx and onnxruntime: pip install 'ctrank[train,onnx]' ({error})"
        ) from error
    measured = measure_apart("service.bench.onnx", *(["--quick"] if quick else []))
    return {"benchmark": "onnx", "machine": describe(), "seed": SEED, "top": TOP, "providers": list(found), **measured}


def providers() -> dict[str, Provider]:
    """What this machine has."""
    found = find_provider("auto")
    return {"cpu": CPU} if found.name == "cpu" else {"cpu": CPU, found.name: found}


def render(result: dict[str, Any]) -> str:
    """The measurements as tables for people."""
    lines = [summary(result["machine"]), f"ONNX Runtime {result['onnxruntime']}; {', '.join(result['providers'])}", ""]
    lines.append("DPLR, 38 item fields, k = 8, rank 3; microseconds (times the compiled kernel's)")
    lines.append(f"{'path':>10} {'candidates':>10} {'compiled':>10}" + "".join(f"{p:>20}" for p in result["providers"]))
    for row in result["against_compiled"]:
        cells = [f"{row[p]['us']:>11,.0f} ({row[p]['ratio']:>5.2f})" for p in result["providers"]]
        lines.append(f"{row['path']:>10} {row['candidates']:>10,} {row['compiled_us']:>10,.0f} {' '.join(cells)}")
    for path, by_provider in result["crossover"].items():
        said = [f"{p} {'never' if n is None else f'from {n:,} on'}" for p, n in by_provider.items()]
        lines.append(f"{path}: faster than compiled on {', '.join(said)}")
    lines += ["", f"DeepFM, layers of {' and '.join(map(str, HIDDEN))}; microseconds"]
    for row in result["network"]:
        cells = [f"{p} {row[p]:,.0f}" for p in result["providers"]]
        lines.append(f"{row['path']:>10} {row['candidates']:>10,}  {', '.join(cells)}")
    lines += ["", f"{CLIENTS} clients at a time, requests/s alone and sharing runs within {SHARE_US:.0f} us"]
    for row in result["shared"]:
        cells = [f"{p} {row[p]['alone']:,.0f} and {row[p]['shared']:,.0f}" for p in result["providers"]]
        lines.append(f"{'candidates':>10} {row['candidates']:>10,}  {', '.join(cells)}")
    return "\n".join(lines)


def measure(quick: bool) -> dict[str, Any]:
    """Measure in this process."""
    import onnxruntime

    from models_export.onnx_writer import write_graphs
    from models_export.reader import read_artefact

    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder, "dplr"), "dplr", 0, write_graphs)
        write_model(Path(folder, "deepfm"), "deepfm", 0, write_graphs, hidden=HIDDEN)
        artefact, network = (read_artefact(Path(folder, name)) for name in ("dplr", "deepfm"))
        rows = _against_compiled(artefact, SIZES[:-1] if quick else SIZES, quick)
        return {
            "onnxruntime": onnxruntime.__version__,
            "against_compiled": rows,
            "crossover": _crossover(rows),
            "network": _network(network, quick),
            "shared": _shared(artefact, quick),
        }


def _slates(artefact: "Artefact", n: int) -> EncodedSide:
    return EncodedSide.without_multi(random_items(np.random.default_rng([SEED, n]), artefact.encoder, n))


def _context(artefact: "Artefact", scorer: "Scorer") -> Any:
    return scorer.context_state(artefact.encoder.encode_side("context", [{}]))


def _against_compiled(artefact: "Artefact", sizes: tuple[int, ...], quick: bool) -> list[dict[str, Any]]:
    from service.scorers.numba_scorer import make_scorer
    from service.scorers.onnx_scorer import OnnxScorer

    compiled = make_scorer(artefact)
    others = {name: OnnxScorer(artefact, provider, 1, 0.0) for name, provider in providers().items()}
    scorers: dict[str, Scorer] = {"compiled": compiled, **others}
    state = _context(artefact, compiled)
    rows: list[dict[str, Any]] = []
    for n in sizes:
        items = _slates(artefact, n)
        g, beta = compiled.item_side(items)
        index = np.random.default_rng(SEED).permutation(n).astype(np.int32)
        expected = compiled.score_items(state, items)
        best = compiled.top_catalogue(state, g, beta, TOP)[0]
        for scorer in others.values():
            np.testing.assert_allclose(scorer.score_items(state, items), expected, rtol=1e-5, atol=1e-5)
            for found in (scorer.top_index(state, g, beta, index, TOP), scorer.top_catalogue(state, g, beta, TOP)):
                np.testing.assert_allclose(found[1], expected[best], rtol=1e-5, atol=1e-5)
        ways = {
            "items": lambda scorer: lambda _: scorer.score_items(state, items),  # noqa: B023
            "candidates": lambda scorer: lambda _: scorer.top_index(state, g, beta, index, TOP),  # noqa: B023
            "catalogue": lambda scorer: lambda _: scorer.top_catalogue(state, g, beta, TOP),  # noqa: B023
        }
        for path in PATHS:
            repetitions = min(max((100_000 if quick else 1_000_000) // n, 3 if quick else 5), 200)
            calls, warm = (2, 3) if n <= SMALL else (1, 1)
            times = interleaved([ways[path](scorer) for scorer in scorers.values()], repetitions, warm, calls)
            row: dict[str, Any] = {"path": path, "candidates": n, "compiled_us": median_us(times[0])}
            for name, taken in zip(others, times[1:], strict=True):
                row[name] = {"us": median_us(taken), "ratio": median_ratio(taken, times[0])}
            rows.append(row)
    return rows


def _crossover(rows: list[dict[str, Any]]) -> dict[str, dict[str, int | None]]:
    """The fewest candidates from which on a provider is faster than the compiled kernel."""
    found: dict[str, dict[str, int | None]] = {}
    for path in PATHS:
        found[path] = {}
        of_path = [row for row in rows if row["path"] == path]
        for name in providers():
            faster = [row["candidates"] for row in of_path if row[name]["ratio"] < 1.0]
            slower = [row["candidates"] for row in of_path if row[name]["ratio"] >= 1.0]
            above = [n for n in faster if n > max(slower, default=0)]
            found[path][name] = min(above, default=None)
    return found


def _network(artefact: "Artefact", quick: bool) -> list[dict[str, Any]]:
    from service.scorers.onnx_scorer import OnnxScorer

    rows: list[dict[str, Any]] = []
    for n in NETWORK_SIZES:
        items, index = _slates(artefact, n), np.arange(n, dtype=np.int32)
        by_path: dict[str, dict[str, Any]] = {p: {"path": p, "candidates": n} for p in PATHS[:2]}
        for name, provider in providers().items():
            scorer = OnnxScorer(artefact, provider, 1, 0.0)
            state, (g, beta) = _context(artefact, scorer), scorer.item_side(items)
            ways = [
                lambda _: scorer.score_items(state, items),  # noqa: B023
                lambda _: scorer.top_index(state, g, beta, index, TOP),  # noqa: B023
            ]
            for path, taken in zip(PATHS, interleaved(ways, 10 if quick else 60), strict=False):
                by_path[path][name] = median_us(taken)
        rows += by_path.values()
    return rows


def _shared(artefact: "Artefact", quick: bool) -> list[dict[str, Any]]:
    """Requests per second of ``CLIENTS`` threads, each with a slate and a context of its own, alone and sharing runs;
    the two take turns."""
    from service.scorers.onnx_scorer import OnnxScorer

    rows = []
    for n in SHARED_SIZES:
        row: dict[str, Any] = {"candidates": n}
        for name, provider in providers().items():
            alone, shared = (OnnxScorer(artefact, provider, 1, wait) for wait in (0.0, SHARE_US))
            state, items = _context(artefact, alone), _slates(artefact, n)
            speeds: dict[str, list[float]] = {"alone": [], "shared": []}
            for _ in range(2 if quick else 3):
                speeds["alone"].append(_per_second(alone, state, items, 0.2 if quick else 1.0))
                speeds["shared"].append(_per_second(shared, state, items, 0.2 if quick else 1.0))
            row[name] = {how: round(float(np.median(values))) for how, values in speeds.items()}
            row[name]["joined"] = round(shared._rank.calls / shared._rank.batches, 2)
        rows.append(row)
    return rows


def _per_second(scorer: "Scorer", state: Any, items: EncodedSide, seconds: float) -> float:
    start = threading.Barrier(CLIENTS)

    def client(_: int) -> int:
        start.wait()
        end, done = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            scorer.score_items(state, items)
            done += 1
        return done

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, range(CLIENTS))) / seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    keep_to_one_core()
    print(json.dumps(measure(options.quick)))
