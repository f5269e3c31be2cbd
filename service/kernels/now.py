"""The clock in compiled code."""

# mypy: disable-error-code="no-any-return"
# (a compiled function is Any to the type checker)

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import float64, int32, int64, types

from service.kernels._jit import kernel
from service.kernels.raw_memory import inner_kernel
from service.kernels.scan_fields import OUT_I64_1

_MONOTONIC = np.int32(1)
_clock_gettime = types.ExternalFunction("clock_gettime", int32(int32, int64))


@inner_kernel
def now(room: npt.NDArray[np.int64]) -> float:
    """Seconds of the clock behind ``time.perf_counter``. ``room``: int64 [2], the caller's."""
    _clock_gettime(_MONOTONIC, room.ctypes.data)
    return float64(room[0]) + 1e-9 * float64(room[1])


@kernel(float64(OUT_I64_1))
def compiled_now(room: npt.NDArray[np.int64]) -> float:
    """``now``, from Python."""
    return now(room)
