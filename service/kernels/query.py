"""From an encoded context to the context side of the catalogue form, score = alpha + beta + <a, g>.

Every family with that form has a context state [t_C, s] whose query is linear in s:

    a_i = w_i s_i + u_i s_j(i),   alpha = t_C + h <a, s>

with w = 1, h = 1/2 for FM (s = S_C); w = e_r, h = 1/2 for DPLR (s = P_C); w = 1, h = 0 for FwFM (s = Q); u = 0 for all
of them. RaFM (s = [E, H] per level, h = 1/2) has a = [E + H, E]: its partners j are E's H and H's E.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import float64

from service.kernels._jit import F32_1, I32_1, OUT_F32_1, kernel
from service.kernels.side import F32, I32

_NO_PARTNERS = np.zeros(0, np.float32), np.zeros(0, np.int32)


@kernel(float64(F32_1, F32_1, F32_1, I32_1, float64, OUT_F32_1))
def query_of(state: F32, w: F32, u: F32, j: I32, h: float, a: F32) -> float:
    """Write a, float32 [D], and return alpha (rounded to float32). ``u`` and ``j`` are empty where u = 0."""
    total = 0.0
    for i in range(len(w)):
        a[i] = w[i] * state[1 + i]
        if len(u) > 0:
            a[i] += u[i] * state[1 + j[i]]
        total += float64(a[i]) * float64(state[1 + i])
    return float64(np.float32(float64(state[0]) + h * total))  # type: ignore[no-any-return]


class QueryForm(NamedTuple):
    """w float32 [D] and h; u float32 and j int32 [D], or both empty."""

    w: F32
    h: float
    u: F32 = _NO_PARTNERS[0]
    j: I32 = _NO_PARTNERS[1]

    def __call__(self, state: F32) -> tuple[float, F32]:
        """Alpha and a, float32 [D]."""
        a = np.empty_like(self.w)
        return float(query_of(state, self.w, self.u, self.j, self.h, a)), a


class ContextProgram(NamedTuple):
    """How compiled code computes a context state: ``compute(table, rows, multi_indptr, multi_rows, multi_weights,
    first, second, scratch, state)``, where ``state`` begins with the global ``bias`` and zeros. ``table``, ``first``,
    ``second`` and ``scratch`` are float32 matrices; a kernel is compiled once for all programs of one ``compute``."""

    compute: Any
    bias: float
    table: F32
    first: F32
    second: F32
    scratch: F32
