"""The C loops compile, compute the formulas, and a missing compiler is one clear message."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from models_export.weights import Weights
from service.bench.c_compiler import CompilerError, compile_loops
from service.bench.packed_table import packed_table
from service.bench.ragged_table import RANKS, ragged_table
from service.kernels.rafm import RafmKernel
from service.kernels.side import single
from tests import oracle


def test_the_loop_of_dplr_computes_its_formula() -> None:
    loops = compile_loops()
    rng = np.random.default_rng(0)
    n, m, k, rho = 5, 7, 8, 3
    table = packed_table(rng, 100, k)
    rows = rng.integers(0, 100, (n, m)).astype(np.int32)
    U, e = rng.standard_normal((m, rho), dtype=np.float32), rng.standard_normal(rho, dtype=np.float32)
    state = rng.standard_normal(1 + rho * k, dtype=np.float32)
    out = np.empty(n, np.float32)
    size = (ctypes.c_int64(n), ctypes.c_int64(m))
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (U, e, state, out)]
    loops.library.dplr(ctypes.c_void_p(table.ctypes.data), ctypes.c_void_p(rows.ctypes.data), *size, *pointers)
    for i in range(n):
        expected = float(state[0])
        P = state[1:].reshape(rho, k).astype(np.float64).copy()
        for f in range(m):
            expected += float(table[rows[i, f], k])
            for r in range(rho):
                P[r] += float(U[f, r]) * table[rows[i, f], :k].astype(np.float64)
        for r in range(rho):
            expected += 0.5 * float(e[r]) * float(P[r] @ P[r])
        assert out[i] == pytest.approx(expected, rel=1e-5)


def test_the_loop_of_rafm_computes_its_formula() -> None:
    """Pair by pair, at the lower of the two groups; the context is a state of two features."""
    loops = compile_loops()
    rng = np.random.default_rng(0)
    n, m = 11, 7
    table = ragged_table(rng, 100)
    weights = Weights("rafm", table.shape.unpack(table.rows), table.linear, 0.3, ranks=RANKS, groups=table.shape.groups)
    rows = rng.integers(0, 100, (n, m)).astype(np.int32)
    kernel = RafmKernel(RANKS, table.rows, table.records, table.linear, 0.3)
    context = rng.integers(0, 100, (1, 2))
    state, out = kernel.context_state(single(context)), np.empty(n, np.float32)
    size = (ctypes.c_int64(n), ctypes.c_int64(m))
    arrays = [ctypes.c_void_p(array.ctypes.data) for array in (table.rows, table.records, rows)]
    loops.library.rafm(*arrays, *size, ctypes.c_void_p(state.ctypes.data), ctypes.c_void_p(out.ctypes.data))
    for i in range(n):
        expected = oracle.rafm(weights, [[(int(row), 1.0)] for row in [*context[0], *rows[i]]])
        assert out[i] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_no_compiler_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(
        CompilerError, match="expected 'no-such-compiler' on the PATH, found none; install gcc or clang"
    ):
        compile_loops()


def test_the_command_line_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from service.cli import main

    monkeypatch.setenv("CC", "no-such-compiler")
    assert main(["bench", "kernels", "--quick"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "no-such-compiler" in lines[0]


def test_a_failing_compiler_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(CompilerError, match="no space left"):
        compile_loops()
