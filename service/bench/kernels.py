"""Kernels against hand-written C loops of the same shapes, and DPLR against its authors' NumPy formulation.

Shapes: 1,000 items x 38 single-valued item fields, 25 context fields, k = 8, rank 3, tables of 10 thousand, 100
thousand and a million rows of 64 bytes (RaFM: ranks 8 and 32, a quarter of the rows with both, 32 and 192 bytes and a
record of 8); slates drawn uniformly, a fresh one at each call. Both sides are called from
Python and read item ids, gathers included; before timing, their scores must agree. The *floor* is a loop that reads
one float of every row and does nothing with it: what memory alone costs.
"""

import argparse
import ctypes
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models_export.ragged_rows import RaggedRows
from service.bench.authors import against_authors
from service.bench.c_compiler import CLoops, compile_loops, find_compiler
from service.bench.local import against_fm_and_c
from service.bench.local import render as render_local
from service.bench.machine import describe, summary
from service.bench.packed_table import packed_table
from service.bench.ragged_table import LONG_SHARE, RANKS, ragged_table
from service.bench.subprocess_run import keep_to_one_core, measure_apart
from service.bench.timing import interleaved, median_ratio, median_us

LINE = 64
N_ITEMS, N_ITEM_FIELDS, N_CONTEXT_FIELDS, K, RHO = 1000, 38, 25, 8, 3
TABLES = (10_000, 100_000, 1_000_000)
LIMITS = {"dplr": 1.15, "fm": 1.15, "fwfm": 1.3, "pruned_fwfm": 1.3, "rafm": 1.3}
"""Our time over the C loop's: what the project promises at most."""
SEED = 20

Floats = npt.NDArray[np.float32]


def run(quick: bool = False) -> dict[str, Any]:
    """Measure in a process of its own on one core, BLAS on one thread; JSON-ready. ``CompilerError`` without one."""
    find_compiler()
    return measure_apart("service.bench.kernels", *(["--quick"] if quick else []))


def render(result: dict[str, Any]) -> str:
    """The measurements as a table for people."""
    lines = [summary(result["machine"]), f"C loops: {result['c']['compiler']}; {result['c']['kind']}", ""]
    lines.append(f"{result['shape']}; microseconds per slate, median")
    lines.append(f"{'kernel':<12} {'rows':>9} {'ours':>8} {'C loop':>8} {'ratio':>6} {'limit':>6} {'floor':>8}")
    for row in result["against_c"]:
        lines.append(
            f"{row['kernel']:<12} {row['table_rows']:>9,} {row['ours_us']:>8.1f} {row['c_us']:>8.1f} "
            f"{row['ratio']:>6.2f} {row['limit']:>6.2f} {row['floor_us']:>8.1f}"
        )
    lines += ["", "DPLR, gathers included, against its authors' NumPy formulation on vectors already gathered"]
    lines.append("(5,000 items, 40 fields, k = 16; microseconds; speed-ups over NumPy in float32, float64, and tuned)")
    lines.append(
        f"{'rows':>9} {'context':>7} {'rank':>4} {'ours':>7} {'NumPy':>8} {'float32':>8} {'float64':>8} {'tuned':>7}"
    )
    for row in result["against_authors"]:
        lines.append(
            f"{row['table_rows']:>9,} {row['context_fields']:>7} {row['rank']:>4} {row['ours_us']:>7.0f} "
            f"{row['numpy_us']:>8.0f} {row['speed_up']:>7.1f}x {row['speed_up_float64']:>7.1f}x "
            f"{row['speed_up_tuned']:>6.1f}x"
        )
    return "\n".join([*lines, *render_local(result["local"])])


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _pruned(rng: np.random.Generator, m: int) -> tuple[Floats, Floats]:
    """A random field matrix, and it with the rho (m + 1) largest pairs kept."""
    upper = np.triu(rng.standard_normal((m, m)).astype(np.float32), 1)
    kept = upper.copy()
    least = np.sort(np.abs(upper[np.triu_indices(m, 1)]))[-RHO * (m + 1)]
    kept[np.abs(kept) < least] = 0
    return upper + upper.T, kept + kept.T


def _against_c(loops: CLoops, quick: bool) -> list[dict[str, Any]]:
    from service.kernels.dplr import DplrKernel
    from service.kernels.fm import FmKernel
    from service.kernels.fwfm import FwfmKernel, sparse_rows
    from service.kernels.rafm import RafmKernel
    from service.kernels.side import Side, single

    c = loops.library
    rng = np.random.default_rng(SEED)
    m_c, m_i = N_CONTEXT_FIELDS, N_ITEM_FIELDS
    U = rng.standard_normal((RHO, m_c + m_i), dtype=np.float32)
    e = rng.standard_normal(RHO, dtype=np.float32)
    dense, pruned = _pruned(rng, m_c + m_i)
    results = []
    for n_rows in TABLES:
        table = packed_table(rng, n_rows, K)
        context = single(rng.integers(0, n_rows, (1, m_c)))
        slates = [single(rng.integers(0, n_rows, (N_ITEMS, m_i))) for _ in range(16 if quick else 64)]
        out = np.empty(N_ITEMS, np.float32)
        size = (ctypes.c_int64(N_ITEMS), ctypes.c_int64(m_i))
        ids = [_pointer(slate[0]) for slate in slates]
        table_at, out_at = _pointer(table), _pointer(out)
        item_U = np.ascontiguousarray(U[:, m_c:].T)
        item_R = np.ascontiguousarray(dense[m_c:, m_c:])
        sparse = sparse_rows(pruned[m_c:, m_c:])
        blocks = [(R[:m_c, :m_c], R[:m_c, m_c:], R[m_c:, m_c:]) for R in (dense, pruned)]
        kernels: dict[str, tuple[Any, Callable[..., Any], Sequence[npt.NDArray[Any]]]] = {
            "dplr": (DplrKernel(table, K, 0.1, U[:, :m_c], U[:, m_c:], e), c.dplr, (item_U, e)),
            "fm": (FmKernel(table, K, 0.1), c.fm, ()),
            "fwfm": (FwfmKernel(table, K, 0.1, *blocks[0]), c.fwfm, (item_R,)),
            "pruned_fwfm": (FwfmKernel(table, K, 0.1, *blocks[1], sparse=True), c.pruned_fwfm, sparse),
        }
        ragged = ragged_table(rng, n_rows)
        of_rafm = ragged.rows, ragged.records, ragged.linear
        kernels["rafm"] = (RafmKernel(ragged.ranks, *of_rafm, 0.1), c.rafm, ())
        for name, (kernel, function, extra) in kernels.items():
            state = kernel.context_state(context)
            state_at, extra_at = _pointer(state), [_pointer(array) for array in extra]
            tables = of_rafm[:2] if name == "rafm" else (table,)
            bytes_per_row = LINE if name != "rafm" else _ragged_bytes(ragged)

            def ours(number: int, kernel: Any = kernel, state: Floats = state, slates: list[Side] = slates) -> Floats:
                scores: Floats = kernel.score_items(state, slates[number % len(slates)])
                return scores

            def theirs(
                number: int,
                function: Any = function,
                ids: list[Any] = ids,
                head: tuple[Any, ...] = tuple(_pointer(array) for array in tables),
                tail: tuple[Any, ...] = (*size, *extra_at, state_at, out_at),
            ) -> None:
                function(*head, ids[number % len(ids)], *tail)

            def floor(
                number: int,
                ids: list[Any] = ids,
                head: tuple[Any, ...] = (table_at,),
                tail: tuple[Any, ...] = (*size, out_at),
            ) -> None:
                c.touch(*head, ids[number % len(ids)], *tail)

            theirs(0)
            np.testing.assert_allclose(ours(0), out, rtol=1e-4, atol=1e-4, err_msg=f"{name}: ours and the C loop")
            times = interleaved([ours, theirs, floor], 100 if quick else 600)
            ratio = median_ratio(times[0], times[1])
            results.append(
                {
                    "kernel": name,
                    "table_rows": n_rows,
                    "ours_us": median_us(times[0]),
                    "c_us": median_us(times[1]),
                    "floor_us": median_us(times[2]),
                    "ratio": ratio,
                    "limit": LIMITS[name],
                    "within_limit": ratio <= LIMITS[name],
                    "bytes_per_item": round(m_i * (bytes_per_row + 4) + 4),
                    "fused_multiply_adds_per_item": _operations(name, len(sparse[1])),
                    "gathered_gb_per_s": round(N_ITEMS * m_i * bytes_per_row / median_us(times[0]) / 1e3, 1),
                }
            )
    return results


def _ragged_bytes(table: RaggedRows) -> float:
    """Mean bytes of a row and its record."""
    return 4 * table.rows.size / len(table.records) + 8


def _operations(name: str, kept_pairs: int) -> int:
    m = N_ITEM_FIELDS
    if name == "rafm":  # additions: a row's floats
        return round(m * (RANKS[0] + LONG_SHARE * RANKS[1]))
    per_lane = {"fm": m, "dplr": RHO * m, "fwfm": m + m * (m - 1) // 2, "pruned_fwfm": m + kept_pairs}
    return per_lane[name] * K


def measure(quick: bool) -> dict[str, Any]:
    """Measure in this process."""
    loops = compile_loops()
    return {
        "benchmark": "kernels",
        "machine": describe(),
        "threads": 1,
        "seed": SEED,
        "shape": f"{N_ITEMS} items x {N_ITEM_FIELDS} item fields, k = {K}, rank {RHO}",
        "c": {"compiler": loops.compiler, "kind": loops.kind},
        "against_c": _against_c(loops, quick),
        "local": against_fm_and_c(loops.library, SEED + 2, quick),
        "against_authors": against_authors(SEED + 1, TABLES, quick),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    machine_wide = describe()
    keep_to_one_core()
    print(json.dumps({**measure(parser.parse_args().quick), "machine": machine_wide}))
