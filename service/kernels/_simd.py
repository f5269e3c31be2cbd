"""Explicit LLVM vectors for the kernels' inner loops.

Numba's own loops leave the vector width, the number of accumulators and the prefetches to LLVM's guess: measured,
five times slower than a loop written by hand. Here a kernel's inner loop is emitted as LLVM IR with vectors of a
stated width. LLVM splits a vector wider than the machine's registers, so that the same code runs on AVX-512, AVX2,
SSE and NEON; the width and the number of registers are only used to choose how much work to interleave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils

F32 = ir.FloatType()
I1 = ir.IntType(1)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
PIECE = 8
"""Vectors are padded to a multiple of eight floats; eight lanes always belong to one item."""


def stride_of(kp: int) -> int:
    """Floats of a packed row: vector, folded scalar and linear weight, in whole cache lines of 64 bytes."""
    return 16 * ((kp + 2 + 15) // 16)


@dataclass(frozen=True)
class Machine:
    """Lanes of a float32 register and how many accumulators fit beside the operands."""

    lanes: int
    accumulators: int

    @classmethod
    def of(cls, features: str) -> "Machine":
        """Read LLVM's feature string of the code generator that is compiling."""
        enabled = set(features.split(","))
        if "+avx512f" in enabled:
            return cls(16, 24)
        if "+avx" in enabled:
            return cls(8, 12)
        if "+neon" in enabled:
            return cls(4, 24)
        return cls(4, 12)


class Emitter:
    """An LLVM IR builder that speaks in float32 vectors and functional loops."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context = context
        self.builder = builder
        self.machine = Machine.of(context.codegen().magic_tuple()[2])

    def array(self, array_type: Any, value: Any) -> Any:
        """Pointer to the first element of a Numba array."""
        return self.context.make_array(array_type)(self.context, self.builder, value).data

    def shape(self, array_type: Any, value: Any, axis: int) -> Any:
        """Length of an array along an axis."""
        array = self.context.make_array(array_type)(self.context, self.builder, value)
        return cgutils.unpack_tuple(self.builder, array.shape)[axis]

    def integer(self, value: int) -> Any:
        """A 64-bit constant."""
        return ir.Constant(I64, value)

    def scalar(self, value: float) -> Any:
        """A float32 constant."""
        return ir.Constant(F32, value)

    def zeros(self, lanes: int) -> Any:
        """A vector of zeros."""
        return ir.Constant(ir.VectorType(F32, lanes), None)

    def add(self, *terms: Any) -> Any:
        """Sum of 64-bit integers (0 of none); Python ints are constants."""
        total = None
        for term in terms:
            value = self.integer(term) if isinstance(term, int) else term
            total = value if total is None else self.builder.add(total, value)
        return self.integer(0) if total is None else total

    def mul(self, left: Any, right: Any) -> Any:
        """Product of 64-bit integers; Python ints are constants."""
        left = self.integer(left) if isinstance(left, int) else left
        right = self.integer(right) if isinstance(right, int) else right
        return self.builder.mul(left, right)

    def least(self, left: Any, right: Any) -> Any:
        """The lesser of two 64-bit integers."""
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def at(self, pointer: Any, *offsets: Any) -> Any:
        """The address ``offsets`` elements after ``pointer``."""
        return self.builder.gep(pointer, [self.add(*offsets)])

    def load_float(self, pointer: Any, *offsets: Any) -> Any:
        """One float."""
        return self.builder.load(self.at(pointer, *offsets))

    def load_index(self, pointer: Any, *offsets: Any) -> Any:
        """One int32, widened to 64 bits."""
        return self.builder.sext(self.builder.load(self.at(pointer, *offsets)), I64)

    def load(self, lanes: int, pointer: Any, *offsets: Any) -> Any:
        """``lanes`` floats; only the alignment of a float is assumed."""
        return self.builder.load(self._vector_pointer(lanes, pointer, *offsets), align=4)

    def store(self, vector: Any, pointer: Any, *offsets: Any) -> None:
        """Store a vector; only the alignment of a float is assumed."""
        self.builder.store(vector, self._vector_pointer(vector.type.count, pointer, *offsets), align=4)

    def _vector_pointer(self, lanes: int, pointer: Any, *offsets: Any) -> Any:
        return self.builder.bitcast(self.at(pointer, *offsets), ir.PointerType(ir.VectorType(F32, lanes)))

    def splat(self, value: Any, lanes: int) -> Any:
        """A scalar in every lane."""
        vector = ir.VectorType(F32, lanes)
        single = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, lanes), None)
        return self.builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)

    def concat(self, left: Any, right: Any) -> Any:
        """Two vectors of one length as one of twice the length."""
        lanes = 2 * left.type.count
        mask = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        return self.builder.shuffle_vector(left, right, mask)

    def piece(self, vector: Any, index: int) -> Any:
        """Eight lanes of a vector, from ``8 * index``."""
        if vector.type.count == PIECE:
            return vector
        mask = ir.Constant(ir.VectorType(I32, PIECE), [PIECE * index + lane for lane in range(PIECE)])
        return self.builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

    def fma(self, left: Any, right: Any, addend: Any) -> Any:
        """The sum left * right + addend, fused where the machine can (``fmuladd``: never a library call)."""
        kind = left.type
        name = f"llvm.fmuladd.v{kind.count}f32" if isinstance(kind, ir.VectorType) else "llvm.fmuladd.f32"
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(kind, [kind, kind, kind]), name)
        return self.builder.call(function, [left, right, addend])

    def horizontal_sum(self, vector: Any) -> Any:
        """Sum of the lanes, pairwise (the one place where reordering is allowed)."""
        name = f"llvm.vector.reduce.fadd.v{vector.type.count}f32"
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(F32, [F32, vector.type]), name)
        return self.builder.call(function, [self.scalar(-0.0), vector], fastmath=("reassoc",))

    def prefetch(self, pointer: Any, *offsets: Any) -> None:
        """Ask for the cache line at an address, for reading, into every cache level."""
        address = self.builder.bitcast(self.at(pointer, *offsets), ir.PointerType(ir.IntType(8)))
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(ir.VoidType(), [address.type, I32, I32, I32]),
            "llvm.prefetch.p0",
        )
        self.builder.call(function, [address, ir.Constant(I32, 0), ir.Constant(I32, 3), ir.Constant(I32, 1)])

    def outlined(self, name: str, values: dict[str, Any], emit: Callable[["Emitter", dict[str, Any]], None]) -> None:
        """Emit code into a function of its own and call it with ``values``.

        A hot loop then has the registers to itself: beside the rest of a kernel LLVM keeps its addresses in memory.
        """
        module = self.builder.module
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values.values()])
        function = ir.Function(module, kind, module.get_unique_name(name))
        function.linkage = "internal"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        inner = Emitter(self.context, ir.IRBuilder(function.append_basic_block("entry")))
        emit(inner, dict(zip(values, function.args, strict=True)))
        inner.builder.ret_void()
        self.builder.call(function, list(values.values()))

    def loop(
        self,
        start: Any,
        stop: Any,
        carried: Sequence[Any],
        body: Callable[[Any, list[Any]], Sequence[Any]],
        going: Callable[[list[Any]], Any] | None = None,
    ) -> list[Any]:
        """``for index in range(start, stop): carried = body(index, carried)``; returns the last values. With ``going``
        only as long as ``going(carried)`` is true.

        Carried values live in registers (phi nodes): accumulators never touch memory.
        """
        builder = self.builder
        function = builder.function
        start = self.integer(start) if isinstance(start, int) else start
        stop = self.integer(stop) if isinstance(stop, int) else stop
        before = builder.block
        head = function.append_basic_block("loop.head")
        inside = function.append_basic_block("loop.body")
        after = function.append_basic_block("loop.end")
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        index.add_incoming(start, before)
        values = []
        for value in carried:
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        on = builder.icmp_signed("<", index, stop)
        builder.cbranch(builder.and_(on, going(list(values))) if going else on, inside, after)
        builder.position_at_end(inside)
        updated = body(index, list(values))
        bottom = builder.block
        index.add_incoming(builder.add(index, self.integer(1)), bottom)
        for phi, value in zip(values, updated, strict=True):
            phi.add_incoming(value, bottom)
        builder.branch(head)
        builder.position_at_end(after)
        return list(values)


def host() -> Machine:
    """The machine Numba compiles for in this process (its ``NUMBA_CPU_NAME`` and features included)."""
    from numba.core.registry import cpu_target

    return Machine.of(cpu_target.target_context.codegen().magic_tuple()[2])
