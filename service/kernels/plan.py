"""Arrays that a kernel finds by address: one argument brings all that a request needs and that stays from one request
to the next.

An array argument costs a compiled function's caller 0.1 microseconds, several times that where the caches are cold, and
the kernel that answers a whole request reads thirty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array


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


def _view(ndim: int) -> Any:
    """An intrinsic: compiled in place, where a function would be compiled anew for each array."""

    def view(typingctx: Any, plan: Any, which: Any, dtype: Any) -> Any:
        array_type = types.Array(dtype.instance_type, ndim, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            rows = make_array(signature.args[0])(context, builder, args[0]).data
            first = builder.mul(args[1], args[1].type(3))
            address, *shape = (
                builder.load(builder.gep(rows, [builder.add(first, first.type(i))])) for i in range(1 + ndim)
            )
            view = make_array(array_type)(context, builder)
            size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
            strides = [size] if ndim == 1 else [builder.mul(size, shape[1]), size]
            populate_array(
                view,
                data=builder.inttoptr(address, view.data.type),
                shape=cgutils.pack_array(builder, shape),
                strides=cgutils.pack_array(builder, strides),
                itemsize=size,
                meminfo=None,
            )
            return view._getvalue()

        return array_type(plan, which, dtype), codegen

    return intrinsic(view)


vector = _view(1)
"""``vector(plan, which, dtype)``: the ``which``-th array, of one dimension."""
matrix = _view(2)
"""The same for two dimensions."""
