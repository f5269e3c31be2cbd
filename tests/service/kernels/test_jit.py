"""The jit policy: nothing compiles on a request, the cache is never stale, and its absence is no failure."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import float32, int64, njit

from service.kernels import _jit

ROOT = Path(__file__).parents[3]


def test_a_kernel_refuses_to_compile_for_other_types() -> None:
    @_jit.kernel(int64(int64))
    def double(x):  # type: ignore[no-untyped-def]
        return 2 * x

    assert double(21) == 42
    with pytest.raises(TypeError, match="No matching definition"):
        double("21")


def test_kernels_release_the_interpreter_lock_and_keep_strict_floats() -> None:
    from service.kernels._projection_kernels import items_kernel
    from service.kernels.top_k import _select

    for compiled in (items_kernel(8, 2, 0, 4), _select):
        assert compiled.targetoptions["nogil"]
        assert not compiled.targetoptions["fastmath"]
        assert len(compiled.signatures) == 1


def test_no_folder_to_cache_in_is_logged_and_compiles(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(function: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(_jit, "_PackageCache", refuse)
    with caplog.at_level(logging.WARNING):

        @_jit.kernel(float32(float32))
        def half(x):  # type: ignore[no-untyped-def]
            return x / 2

    assert half(np.float32(3)) == 1.5
    assert "NUMBA_CACHE_DIR" in caplog.text


def test_the_cache_key_changes_with_the_inlined_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    @njit
    def one(x):  # type: ignore[no-untyped-def]
        return x

    from numba.core.registry import cpu_target

    cache = _jit._PackageCache(one.py_func)
    codegen = cpu_target.target_context.codegen()
    before = cache._index_key((int64,), codegen)
    assert before == cache._index_key((int64,), codegen)
    monkeypatch.setattr(_jit, "SOURCE_DIGEST", "another")
    assert before != cache._index_key((int64,), codegen)


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    script = (
        "from tests.service.kernels.cases import arrays, make_case\n"
        "case = make_case('dplr', dim=8)\n"
        "case.kernel.score_items(case.kernel.context_state(arrays(case.context)), arrays(case.items))\n"
        "from service.kernels._heap import push\nimport service.kernels.top_k\n"
        "from service.kernels._projection_kernels import items_kernel\n"
        "print([sum(k.stats.cache_hits.values()) for k in (push, items_kernel(8, 2, 0, 4))])\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    outputs = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.strip())
    assert outputs == ["[0, 0]", "[1, 1]"]


@pytest.mark.parametrize("shape", [(3,), (5, 16), (0, 8), (2**19, 2)])
def test_aligned_memory_starts_on_a_cache_line_and_is_zero(shape: tuple[int, ...]) -> None:
    array = _jit.aligned(shape)
    assert array.shape == shape and array.dtype == np.float32
    assert array.size == 0 or array.ctypes.data % 64 == 0
    assert not array.any()
    array[...] = 1
