"""The jit policy of every kernel, in one place.

- ``nogil``: a kernel touches no Python object, so slates of other requests run beside it.
- ``fastmath`` is off. The vector code asks for fused multiply-adds by itself, and reordering is allowed only in the
  horizontal sums that ``_simd`` marks; plain loops keep their order, so that a score does not depend on the slate
  around it by more than rounding, and infinities keep their meaning in comparisons.
- ``error_model="numpy"``: no division checks inside loops.
- ``boundscheck`` is off: ids are verified where an artefact is read and where a request is encoded.
- ``cache``: compiled once per machine. Numba's own key covers only the file of the function itself and would keep a
  kernel whose intrinsics have changed since, so the key also holds a digest of all kernel modules.
- Every kernel has one explicit signature, compiled when it is made, never on a request. Inputs are typed read-only, so
  that memory-mapped weights and ordinary arrays share one compiled version.
"""

import contextlib
import hashlib
import itertools
import logging
import math
import mmap
import secrets
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import FunctionCache, IndexDataCacheFile

_log = logging.getLogger(__name__)


def _source_digest() -> str:
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


SOURCE_DIGEST = _source_digest()


# Numba tells functions of one name apart by a number, counted in each process, which is part of their symbols. Two
# processes give one number to two specialisations, and a third that loads both from the cache would call one for the
# other. Counts that begin at random do not meet.
FunctionIdentity._unique_ids = itertools.count(secrets.randbits(48))


class _PackageCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache, keyed by the sources of all kernels and by what a kernel closes over, with files of their own for
    each such key. What the sources say counts, not when their files were written: copied, as into a container image,
    the cache stays good.

    Numba's own key for the latter holds a random number for each compiled function among them, so that a kernel which
    calls others would be found by no later process; and specialisations share an index, in which two processes that
    save at the same time can enter each other's file.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        digest = hashlib.sha256(repr((SOURCE_DIGEST, _identity(function))).encode()).hexdigest()[:16]
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=f"{self._impl.filename_base}-{digest}",
            source_stamp=SOURCE_DIGEST,
        )

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return sig, codegen.magic_tuple(), SOURCE_DIGEST, _identity(self._py_func)


def _identity(value: Any) -> Any:
    """What tells a function of these sources from another, with the values it closes over; of other values, itself."""
    function = getattr(value, "py_func", value)
    if not isinstance(function, FunctionType):
        return value
    cells = function.__closure__ or ()
    return function.__module__, function.__qualname__, tuple(_identity(cell.cell_contents) for cell in cells)


def _input(dtype: Any, ndim: int) -> Any:
    return types.Array(dtype, ndim, "C", readonly=True)


def _output(dtype: Any, ndim: int) -> Any:
    return types.Array(dtype, ndim, "C")


VOID = types.void
INT64 = types.int64
FLOAT32 = types.float32
F32_1 = _input(types.float32, 1)
F32_2 = _input(types.float32, 2)
F32_3 = _input(types.float32, 3)
I32_1 = _input(types.int32, 1)
I32_2 = _input(types.int32, 2)
I64_1 = _input(types.int64, 1)
OUT_F32_1 = _output(types.float32, 1)
OUT_F32_2 = _output(types.float32, 2)
OUT_I32_1 = _output(types.int32, 1)


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for one signature, now, from the cache where it is there.

    A place to cache in is looked for as Numba does: ``NUMBA_CACHE_DIR``, the package's own folder, the user's cache
    folder. With none writable the kernel is compiled anew in each process, and the log says so.
    """

    def compile_now(function: Callable[..., Any]) -> Any:
        dispatcher = njit(nogil=True, error_model="numpy", fastmath=False, boundscheck=False)(function)
        try:
            dispatcher._cache = _PackageCache(dispatcher.py_func)
        except RuntimeError:
            _log.warning(
                "kernel %s cannot be cached: no writable folder; set NUMBA_CACHE_DIR to one for a faster start",
                function.__qualname__,
            )
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return compile_now


_HUGE_PAGE = 2**21


def aligned(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Zeros, float32, whose first byte lies on a cache line (64 bytes), so that no vector load spans two lines.

    Memory of a megabyte and more is asked for in huge pages where the system has them: a gather from pages of 4 KiB
    also misses the address cache.
    """
    size = 4 * math.prod(shape)
    if size >= _HUGE_PAGE // 2 and hasattr(mmap, "MADV_HUGEPAGE"):
        whole_pages = -(-size // _HUGE_PAGE) * _HUGE_PAGE
        memory = mmap.mmap(-1, whole_pages + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        raw, boundary = np.frombuffer(memory, np.uint8), _HUGE_PAGE
    else:
        raw, boundary = np.zeros(size + 64, np.uint8), 64
    start = -raw.__array_interface__["data"][0] % boundary
    return raw[start : start + size].view(np.float32).reshape(shape)
