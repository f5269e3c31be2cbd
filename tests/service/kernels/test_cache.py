"""The kernel cache of several processes: what one has compiled another loads, and never in the place of another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
NESTED = """
from service.kernels._jit import F32_1, F32_2, FLOAT32, I32_1, OUT_F32_1, OUT_I32_1, VOID, kernel
from service.kernels.catalogue import gather_top_kernel

def nested(size):
    top_index = gather_top_kernel(size)

    @kernel(VOID(F32_2, F32_1, F32_1, I32_1, OUT_F32_1, OUT_F32_1, OUT_I32_1, OUT_I32_1))
    def best(g, beta, a, index, group, scores, places, rows):
        top_index(g, beta, FLOAT32(0.0), a, index, len(index), len(scores), group, scores, places, rows)

    return best
"""
COMPILE = """
import sys
from nested import nested
for compiled in nested(int(sys.argv[1])).overloads.values():
    print(compiled.fndesc.unique_name)
"""
LOAD = """
import sys
import numpy as np
from nested import nested
rng = np.random.default_rng(0)
for size in map(int, sys.argv[1:]):
    kernel = nested(size)
    g, a, beta = (rng.standard_normal(shape).astype(np.float32) for shape in ((24, size), size, 24))
    group, scores = np.empty(8, np.float32), np.empty(3, np.float32)
    places, rows = np.empty(3, np.int32), np.empty(3, np.int32)
    kernel(g, beta, a, np.arange(24, dtype=np.int32), group, scores, places, rows)
    assert rows.tolist() == np.argsort(-(beta + g @ a))[:3].tolist()
    print(sum(kernel.stats.cache_hits.values()))
"""


def run(code: str, folder: Path, *sizes: int) -> subprocess.Popen[str]:
    environ = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", code, *map(str, sizes)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def test_specialisations_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    """Processes that compile alike count their functions alike, and at the same time they see no other's files; a
    third one loads from all of them, though the source file is another copy by then."""
    (tmp_path / "nested.py").write_text(NESTED)
    sizes = (8, 16, 24, 32)
    names = [process.communicate(timeout=120)[0] for process in [run(COMPILE, tmp_path, size) for size in sizes]]
    assert len(set(names)) == len(sizes)  # or their symbols would be one
    os.utime(tmp_path / "nested.py", (0, 0))
    loader = run(LOAD, tmp_path, *sizes)
    out, _ = loader.communicate(timeout=120)
    assert loader.returncode == 0
    assert out.split() == ["1"] * len(sizes)  # each from the cache
