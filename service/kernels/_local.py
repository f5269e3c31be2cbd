# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""The inner loops of LLFM: distances to all anchors, the nearest of them, and one anchor's machine.

Rows are laid out as ``models_export/locality.py`` says: [distances (near floats) | a slot of ``width`` floats per
anchor]. ``near`` and ``width`` are compile-time constants. A feature of value x adds x times its row,
and beside it

    to every distance x^2 - x,        to a machine 1/2 (x - x^2) |v|^2.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from service.kernels._simd import F32, I1, I32, I64, Emitter

F64 = ir.DoubleType()
LANES = 16
_GROUP = 8
"""Accumulators of one pass over an item's features."""


@intrinsic(prefer_literal=True)
def prefetch_line(typingctx, table, at):
    """Ask for the cache line of ``table.flat[at]``."""

    def codegen(context, builder, sig, args):
        s = Emitter(context, builder)
        s.prefetch(s.array(sig.args[0], args[0]), args[1])
        return context.get_dummy_value()

    return types.void(table, types.int64), codegen


@intrinsic(prefer_literal=True)
def distances(typingctx, table, rows, value_rows, value_x, item, begin, end, start, out, near, stride):
    """Writes ``start`` plus the distances' shares of an item's features to ``out``, float32 [near]: of the
    single-valued ones in ``rows[item]`` and of the values ``begin:end``."""
    signature = types.void(table, rows, value_rows, value_x, item, begin, end, start, out, near, stride)

    def codegen(context, builder, sig, args):
        s, t = Emitter(context, builder), sig.args
        source, single, values, weights = (s.array(t[i], args[i]) for i in range(4))
        first, target = s.array(t[7], args[7]), s.array(t[8], args[8])
        n_single = s.shape(t[1], args[1], 1)
        base = s.mul(args[4], n_single)
        size, width = t[9].literal_value, args[10]

        def own(p, carried):
            x = s.load_float(weights, p)
            return [builder.fadd(carried[0], builder.fsub(builder.fmul(x, x), x))]

        extra = s.splat(s.loop(args[5], args[6], [s.scalar(0.0)], own)[0], LANES)
        chunks = list(range(0, size, LANES))
        for number in range(0, len(chunks), _GROUP):
            group = chunks[number : number + _GROUP]

            def plain(f, carried, group=group):
                row = s.mul(s.load_index(single, base, f), width)
                return [builder.fadd(c, s.load(LANES, source, row, at)) for c, at in zip(carried, group, strict=True)]

            def weighted(p, carried, group=group):
                row = s.mul(s.load_index(values, p), width)
                x = s.splat(s.load_float(weights, p), LANES)
                return [s.fma(x, s.load(LANES, source, row, at), c) for c, at in zip(carried, group, strict=True)]

            sums = [s.load(LANES, first, at) for at in group]
            sums = s.loop(0, n_single, sums, plain)
            sums = s.loop(args[5], args[6], sums, weighted)
            for at, vector in zip(group, sums, strict=True):
                s.store(builder.fadd(vector, extra), target, at)
        return context.get_dummy_value()

    return signature, codegen


class _Distances:
    """Distances float32 [near] in registers; the least is taken out again and again. NaN counts as infinite."""

    def __init__(self, s: Emitter, source: Any, near: int) -> None:
        self._s, self._near = s, near
        self._infinity = ir.Constant(ir.VectorType(F32, LANES), [np.inf] * LANES)
        builder, chunks = s.builder, list(range(0, near, LANES))
        kind = ir.FunctionType(F32, [self._infinity.type])
        self._reduce = builder.module.declare_intrinsic(f"llvm.vector.reduce.fmin.v{LANES}f32", (), kind)
        counted = ir.FunctionType(I64, [I64, I1])
        self._trailing = builder.module.declare_intrinsic("llvm.cttz", (I64,), counted)
        self._lanes = [ir.Constant(ir.VectorType(I32, LANES), list(range(at, at + LANES))) for at in chunks]
        self.vectors = []
        for at in chunks:
            vector = s.load(LANES, source, at)
            self.vectors.append(builder.select(builder.fcmp_ordered("uno", vector, vector), self._infinity, vector))

    def take(self, vectors: Sequence[Any]) -> tuple[Any, Any, list[Any]]:
        """The least of ``vectors``, its place (the first of equals; ``near`` if none is finite), and what is left."""
        s, builder = self._s, self._s.builder
        best = vectors[0]
        for vector in vectors[1:]:
            best = builder.select(builder.fcmp_ordered("<", vector, best), vector, best)
        value = builder.call(self._reduce, [best], fastmath=("nnan",))
        spread, place, per_word = s.splat(value, LANES), s.integer(self._near), 64 // LANES
        for word in reversed(range(0, len(vectors), per_word)):
            bits = s.integer(0)
            for shift, vector in enumerate(vectors[word : word + per_word]):
                equal = builder.fcmp_ordered("==", vector, spread)
                mask = builder.zext(builder.bitcast(equal, ir.IntType(LANES)), I64)
                bits = builder.or_(bits, builder.shl(mask, s.integer(shift * LANES)))
            at = s.add(builder.call(self._trailing, [bits, ir.Constant(I1, 0)]), word * LANES)
            place = builder.select(builder.icmp_unsigned("!=", bits, s.integer(0)), at, place)
        found = builder.fcmp_ordered("<", value, s.scalar(np.inf))
        place = builder.select(found, place, s.integer(self._near))
        everywhere = self._everywhere(place)
        left = [
            builder.select(builder.icmp_signed("==", which, everywhere), self._infinity, vector)
            for which, vector in zip(self._lanes, vectors, strict=True)
        ]
        return value, place, left

    def _everywhere(self, value: Any) -> Any:
        builder, kind = self._s.builder, ir.VectorType(I32, LANES)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), builder.trunc(value, I32), ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, LANES), None)
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


@intrinsic(prefer_literal=True)
def nearest(typingctx, far, count, chosen, values, near):
    """Writes the ``count`` least of ``far`` float32 [near] to ``values``, ascending, and their places to ``chosen``
    (int64), ties by place; a place of ``near`` where no finite number is left. NaN counts as infinite."""
    signature = types.void(far, count, chosen, values, near)

    def codegen(context, builder, sig, args):
        s, t = Emitter(context, builder), sig.args
        source, places, least = (s.array(t[i], args[i]) for i in (0, 2, 3))
        found = _Distances(s, source, t[4].literal_value)

        def one(r, vectors):
            value, place, left = found.take(vectors)
            builder.store(place, s.at(places, r))
            builder.store(value, s.at(least, r))
            return left

        s.loop(0, args[1], found.vectors, one)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def nearest_greedy(typingctx, far, anchors, ratio, chosen, u, sums, near):
    """JO: takes the least of ``far`` float32 [near] one by one, as many as the rule has (of ``anchors`` at most), and
    returns how many. Their places go to ``chosen`` (int64) as those of :func:`nearest`, their u, ``ratio`` times their
    distance beyond the first one's, to ``u`` (float64), the first one's, U = sum u and Q = sum u^2 to ``sums`` float64
    [3].

    The next is taken while u < lambda_k = (U + sqrt(k + U^2 - k Q)) / k (``training/local_coding.py``), that is while
    t = k u - U is negative or t^2 < k + U^2 - k Q: no root, no division in the chain from one to the next.
    """
    signature = types.int64(far, anchors, types.float64, chosen, u, sums, near)

    def codegen(context, builder, sig, args):
        s, t = Emitter(context, builder), sig.args
        source, places, relative, out = (s.array(t[i], args[i]) for i in (0, 3, 4, 5))
        found = _Distances(s, source, t[6].literal_value)
        zero = ir.Constant(F64, 0.0)

        def one(r, carried):
            _, count, first, total, squares, *vectors = carried
            value, place, left = found.take(vectors)
            value = builder.fpext(value, F64)
            first = builder.select(builder.icmp_signed("==", r, s.integer(0)), value, first)
            value = builder.fmul(args[2], builder.fsub(value, first))
            k = builder.sitofp(r, F64)
            excess = builder.fsub(builder.fmul(k, value), total)
            room = builder.fsub(builder.fadd(k, builder.fmul(total, total)), builder.fmul(k, squares))
            near_enough = builder.or_(
                builder.fcmp_unordered("<=", excess, zero),
                builder.fcmp_ordered("<", builder.fmul(excess, excess), room),
            )
            builder.store(place, s.at(places, r))  # behind the last one taken nobody reads
            builder.store(value, s.at(relative, r))
            taken = builder.zext(near_enough, I64)
            share = builder.select(near_enough, value, zero)
            total, squares = builder.fadd(total, share), builder.fadd(squares, builder.fmul(share, share))
            return [near_enough, builder.add(count, taken), first, total, squares, *left]

        start = [ir.Constant(I1, 1), s.integer(0), zero, zero, zero, *found.vectors]
        _, count, *results = s.loop(0, args[1], start, one, lambda carried: carried[0])
        for at, value in enumerate(results[:3]):
            builder.store(value, s.at(out, at))
        return count

    return signature, codegen


@intrinsic(prefer_literal=True)
def machine(typingctx, table, rows, value_rows, value_x, item, begin, end, state, halves, slot, width, stride):
    """f_a of an item with the context's slot in ``state``: sum over the lanes of S (h S + e) and of the values'
    corrections, S the slot's sum over features. ``halves`` float32 [2, width]: h, which is 1/2 on the vector's lanes,
    and e, which is 1 on the folded scalar's. ``slot``: the slot's first float in a row."""
    signature = types.float32(table, rows, value_rows, value_x, item, begin, end, state, halves, slot, width, stride)

    def codegen(context, builder, sig, args):
        s, t = Emitter(context, builder), sig.args
        source, single, values, weights = (s.array(t[i], args[i]) for i in range(4))
        first, constants, slot = s.array(t[7], args[7]), s.array(t[8], args[8]), args[9]
        n_single = s.shape(t[1], args[1], 1)
        base = s.mul(args[4], n_single)
        size, row_floats = t[10].literal_value, args[11]
        lanes = LANES if size % LANES == 0 else LANES // 2
        chunks = list(range(0, size, lanes))
        total: Any = s.zeros(lanes)
        for number in range(0, len(chunks), _GROUP):
            group = chunks[number : number + _GROUP]
            half = [s.load(lanes, constants, at) for at in group]

            def plain(f, carried, group=group):
                row = s.add(s.mul(s.load_index(single, base, f), row_floats), slot)
                return [builder.fadd(c, s.load(lanes, source, row, at)) for c, at in zip(carried, group, strict=True)]

            def weighted(p, carried, group=group, half=half):
                row = s.add(s.mul(s.load_index(values, p), row_floats), slot)
                x = s.load_float(weights, p)
                spread, rest = s.splat(x, lanes), s.splat(builder.fsub(x, builder.fmul(x, x)), lanes)
                correction, *sums = carried
                for i, at in enumerate(group):
                    vector = s.load(lanes, source, row, at)
                    sums[i] = s.fma(spread, vector, sums[i])
                    correction = s.fma(builder.fmul(rest, vector), builder.fmul(half[i], vector), correction)
                return [correction, *sums]

            sums = s.loop(0, n_single, [s.load(lanes, first, slot, at) for at in group], plain)
            total, *sums = s.loop(args[5], args[6], [total, *sums], weighted)
            for h, at, vector in zip(half, group, sums, strict=True):
                e = s.load(lanes, constants, size, at)
                total = s.fma(vector, s.fma(vector, h, e), total)
        return s.horizontal_sum(total)

    return signature, codegen
