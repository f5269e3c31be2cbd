"""Where the quotes of a JSON text are, 64 bytes at a time.

Reading strings one behind the other is a chain: the next begins where the last has ended. With the places of all quotes
known, the strings of an array do not depend on one another, and the machine works on several at once.
"""

# mypy: disable-error-code="no-any-return"
# (a compiled function is Any to the type checker)

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import int64, types, uint64
from numba.extending import intrinsic

from service.kernels.json_tokens import BACKSLASH, QUOTE
from service.kernels.raw_memory import inner_kernel, load_u8, store_i32, trailing_zeros

BLOCK = 64
SLACK = 8
"""Entries behind the last one that ``find_quotes`` may write over."""


@intrinsic
def _equal_bytes(typingctx: Any, address: Any, byte: Any) -> Any:
    """Bit i of the result: whether the byte at ``address + i`` is ``byte``, for 64 bytes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i8 = ir.IntType(8)
        kind = ir.VectorType(i8, BLOCK)
        block = builder.load(builder.inttoptr(args[0], kind.as_pointer()), typ=kind, align=1)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), builder.trunc(args[1], i8), ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)
        every = builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)
        return builder.bitcast(builder.icmp_unsigned("==", block, every), ir.IntType(64))

    return types.uint64(types.int64, types.int64), codegen


@intrinsic
def _count_bits(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@inner_kernel
def find_quotes(at: int, end: int, out: int) -> tuple[int, bool]:
    """Write the distances from ``at`` of all quotes before ``end`` to ``out`` (an address, int32): (their number,
    whether there is no backslash). Room: one entry per byte, and ``SLACK``."""
    first = out
    slashes = uint64(0)
    base = int64(0)
    while at + base < end:
        quotes = uint64(0)
        here = at + base
        if here + BLOCK <= end:
            quotes = _equal_bytes(here, int64(QUOTE))
            slashes |= _equal_bytes(here, int64(BACKSLASH))
        else:
            for i in range(end - here):
                c = load_u8(here + i)
                quotes |= uint64(c == QUOTE) << uint64(i)
                slashes |= uint64(c == BACKSLASH)
        count = _count_bits(quotes)
        place = out
        # Eight at a time, wanted or not: a loop that ends at the last bit is mispredicted once a block.
        while quotes != uint64(0):
            for i in range(8):
                store_i32(place + 4 * i, base + trailing_zeros(quotes | uint64(1 << 63)))
                quotes &= quotes - uint64(1)
            place += 32
        out += 4 * count
        base += BLOCK
    return (out - first) >> 2, slashes == uint64(0)
