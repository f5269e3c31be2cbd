"""Arrays that a kernel finds by address: one argument brings all that a request needs and that stays from one request
to the next.

An array argument costs a compiled function's caller 0.1 microseconds, several times that where the caches are cold, and
the kernel that answers a whole request reads thirty.
"""

# mypy: disable-error-code="no-any-return"
# (a compiled function is Any to the type checker)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from service.kernels.raw_memory import inner_kernel


class Plan:
    """``array`` int64 [n, 3]: address, first and second length of each of ``arrays``, in the order of ``names``.

    It keeps the arrays alive: whoever calls a kernel with ``array`` holds the plan.
    """

    def __init__(self, names: Sequence[str], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        if set(names) != set(arrays):
            raise ValueError(f"expected the arrays {sorted(names)}, found {sorted(arrays)}")
        self._arrays = [arrays[name] for name in names]
        self.array = np.zeros((len(names), 3), np.int64)
        for row, name, array in zip(self.array, names, self._arrays, strict=True):
            if not array.flags.c_contiguous or array.ndim > 2:
                raise ValueError(f"array {name!r}: expected rows without gaps, found strides {array.strides}")
            row[0] = array.__array_interface__["data"][0]
            row[1 : 1 + array.ndim] = array.shape


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@inner_kernel
def vector(plan: Any, which: int, dtype: Any) -> Any:
    """The ``which``-th array, of one dimension."""
    return carray(_pointer(plan[which, 0]), (plan[which, 1],), dtype)


@inner_kernel
def matrix(plan: Any, which: int, dtype: Any) -> Any:
    """The ``which``-th array, of two dimensions."""
    return carray(_pointer(plan[which, 0]), (plan[which, 1], plan[which, 2]), dtype)
