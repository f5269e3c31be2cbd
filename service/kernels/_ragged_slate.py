# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""The inner loop of RaFM: sort an item's rows by rank group, add up each group's rows, take the squares.

    score = t + sum_q <E_q, 1/2 E_q + H_q>,     a row of group p holds [v^(1), ..., v^(p)] for [H_1, ..., H_{p-1}, E_p]

A branch on each row's group would be guessed wrong every other time. Instead an item's row addresses are first written
to one list per group, some items ahead of their use, which is also when the rows are prefetched; then each list is
added up by a loop of fixed shape, whose accumulators stay in registers. Lists end in addresses of a row of zeros, so
that rows of few floats can be added four at a time, into independent sums.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from service.kernels._simd import I64, PIECE, Emitter

UNROLL = 4
"""Rows of a list added side by side, where they are short."""
PREFETCHED_LINES = 6
"""Cache lines of a row that are asked for; behind these the machine's own prefetcher has seen the stream."""


def list_size(n_single: int) -> int:
    """Places of one group's list: an item's rows and the zeros behind them."""
    return n_single + UNROLL - 1


def slot_size(n_single: int, n_groups: int) -> int:
    """Places of one item in the ring: per group a list and its length, then the sum of the folded scalars."""
    return n_groups * (list_size(n_single) + 1) + 1


class _Slate:
    """Emits the code for a slate: ``fill`` writes an item's lists, ``score`` adds them up."""

    def __init__(self, s: Emitter, widths: tuple[int, ...], a: dict[str, Any]) -> None:
        self.s, self.kps, self.a = s, widths, a
        self.groups = range(len(widths))
        self.capacity = s.add(a["n_single"], UNROLL - 1)

    def lanes(self, kp: int, start: int) -> int:
        """Lanes of the vector at a multiple of eight floats: sixteen where the machine and what is left allow."""
        return 2 * PIECE if self.s.machine.lanes >= 2 * PIECE and kp - start >= 2 * PIECE else PIECE

    def chunks(self, level: int) -> list[tuple[int, int]]:
        """(start, lanes) of a level's vectors."""
        out, start = [], 0
        while start < self.kps[level]:
            out.append((start, self.lanes(self.kps[level], start)))
            start += out[-1][1]
        return out

    def own(self, level: int) -> int:
        """Where E_level starts in the sums."""
        return 2 * sum(self.kps[:level])

    def high(self, level: int) -> int:
        """Where H_level starts in the sums."""
        return self.own(level) + self.kps[level]

    def fill(self, slot: Any, item: Any) -> None:
        """Write the item's lists to ``slot`` and ask for its rows."""
        s, a, builder = self.s, self.a, self.s.builder
        first_id = s.mul(item, a["n_single"])
        later = s.least(s.add(item, a["distance"]), s.add(a["stop"], -1))
        later_id = s.mul(later, a["n_single"])

        def one(f: Any, carried: list[Any]) -> list[Any]:
            counts, sums = carried[: len(self.kps)], carried[len(self.kps) :]
            ahead = s.load_index(a["singles"], later_id, f)
            s.prefetch(a["row_at"], s.mul(ahead, 2))
            feature = s.load_index(a["singles"], first_id, f)
            record = s.mul(feature, 2)
            at = s.load_index(a["row_at"], record)
            group = builder.and_(at, s.integer(15))
            offset = builder.shl(builder.and_(at, s.integer(~15)), s.integer(1))
            address = s.add(a["rows"], offset)
            self.prefetch(address, group)
            place, updated = s.integer(0), []
            for g in self.groups:
                its = builder.icmp_signed("==", group, s.integer(g))
                there = s.add(s.mul(self.capacity, g), counts[g])
                place = there if g == 0 else builder.select(its, there, place)
                updated.append(s.add(counts[g], builder.zext(its, I64)))
            builder.store(address, s.at(slot, place))
            total = builder.fadd(sums[0], s.load_float(a["folded"], record, 1))
            return [*updated, *sums[1:], total]

        zeros = [s.integer(0) for _ in self.groups]
        carried = s.loop(0, a["n_single"], [*zeros, *[s.scalar(0.0)] * UNROLL], one)
        counts, sums = carried[: len(self.kps)], carried[len(self.kps) :]
        end = s.mul(self.capacity, len(self.kps))
        for g in self.groups:
            for extra in range(UNROLL - 1):
                builder.store(a["zeros"], s.at(slot, s.mul(self.capacity, g), counts[g], extra))
            builder.store(counts[g], s.at(slot, end, g))
        total = sums[0]
        for other in sums[1:]:
            total = builder.fadd(total, other)
        tail = builder.bitcast(s.at(slot, end, len(self.kps)), ir.PointerType(ir.FloatType()))
        builder.store(total, tail)

    def prefetch(self, address: Any, group: Any) -> None:
        """Ask for the row's lines; the lines of longer rows only where the group has them."""
        s, builder = self.s, self.s.builder
        byte = ir.PointerType(ir.IntType(8))
        s.prefetch(builder.inttoptr(address, byte))
        packed = [sum(self.kps[: g + 1]) for g in self.groups]
        for line in range(1, min(-(-packed[-1] // 16), PREFETCHED_LINES)):
            least = min(g for g in self.groups if packed[g] > 16 * line)
            has = builder.icmp_signed(">=", group, s.integer(least))
            s.prefetch(builder.inttoptr(builder.select(has, s.add(address, 64 * line), address), byte))

    def score(self, slot: Any, item: Any) -> None:
        """Add up the lists onto the item's start ``[t, sums]``, and write its score."""
        s, a, builder = self.s, self.a, self.s.builder
        start = s.at(a["starts"], s.mul(builder.sub(item, a["first"]), a["stride"]))
        end = s.mul(self.capacity, len(self.kps))
        for g in self.groups:
            count = builder.load(s.at(slot, end, g))
            self.add_list(g, s.at(slot, s.mul(self.capacity, g)), count, start)
        folded = builder.load(builder.bitcast(s.at(slot, end, len(self.kps)), ir.PointerType(ir.FloatType())))
        total = builder.fadd(builder.fadd(s.load_float(start, 0), folded), self.interaction(item))
        builder.store(total, s.at(a["out"], item))

    def add_list(self, g: int, pointers: Any, count: Any, start: Any) -> None:
        """Sums of one group's rows, chunk by chunk: as many at once as have their accumulators in registers."""
        machine = self.s.machine
        every = []  # (offset in the row, offset in the sums, lanes, first writer of that sum)
        for level in range(g + 1):
            target = self.own(level) if level == g else self.high(level)
            for at, lanes in self.chunks(level):
                every.append((sum(self.kps[:level]) + at, target + at, lanes, level >= g - 1))
        registers = sum(max(lanes // machine.lanes, 1) for *_, lanes, _ in every)
        unroll = next((u for u in (UNROLL, 2) if u * registers <= machine.accumulators), 1)
        passes = -(-registers // machine.accumulators)
        size = -(-len(every) // passes)
        for begin in range(0, len(every), size):
            self.add_chunks(every[begin : begin + size], unroll, pointers, count, start)

    def add_chunks(self, chunks: list[Any], unroll: int, pointers: Any, count: Any, start: Any) -> None:
        """One pass over a list."""
        s, builder = self.s, self.s.builder
        sums = self.a["sums"]
        carried = [s.load(n, start, 1 + to) if first else s.load(n, sums, to) for _, to, n, first in chunks]
        carried += [s.zeros(n) for _ in range(unroll - 1) for _, _, n, _ in chunks]
        kind = ir.PointerType(ir.FloatType())

        def some(number: Any, accumulators: list[Any]) -> list[Any]:
            updated = []
            for u in range(unroll):
                row = builder.inttoptr(builder.load(s.at(pointers, s.mul(number, unroll), u)), kind)
                for i, (at, _, n, _) in enumerate(chunks):
                    updated.append(builder.fadd(accumulators[u * len(chunks) + i], s.load(n, row, at)))
            return updated

        times = count if unroll == 1 else builder.sdiv(s.add(count, unroll - 1), s.integer(unroll))
        added = s.loop(0, times, carried, some)
        for i, (_, to, _, _) in enumerate(chunks):
            total = added[i]
            for u in range(1, unroll):
                total = builder.fadd(total, added[u * len(chunks) + i])
            s.store(total, sums, to)

    def interaction(self, item: Any) -> Any:
        """sum_q <E_q, 1/2 E_q + H_q>; keeps the sums where they are wanted."""
        s, a, builder = self.s, self.a, self.s.builder
        parts: dict[tuple[int, int], Any] = {}
        size = self.own(len(self.kps) - 1) + self.kps[-1]
        with builder.if_then(a["keep"], likely=False):
            for at in range(0, size, PIECE):
                s.store(s.load(PIECE, a["sums"], at), s.at(a["kept"], s.mul(item, size), at))
        number = 0
        for level in self.groups:
            for at, lanes in self.chunks(level):
                own = s.load(lanes, a["sums"], self.own(level) + at)
                half = s.splat(s.scalar(0.5), lanes)
                if level < len(self.kps) - 1:
                    other = s.fma(half, own, s.load(lanes, a["sums"], self.high(level) + at))
                else:
                    other = builder.fmul(half, own)
                key = lanes, number % UNROLL
                parts[key] = s.fma(own, other, parts[key]) if key in parts else builder.fmul(own, other)
                number += 1
        total: Any = None
        for lanes in {lanes for lanes, _ in parts}:
            vectors = [vector for (n, _), vector in sorted(parts.items(), key=lambda kv: kv[0]) if n == lanes]
            vector = vectors[0]
            for another in vectors[1:]:
                vector = builder.fadd(vector, another)
            found = s.horizontal_sum(vector)
            total = found if total is None else builder.fadd(total, found)
        return total


def ragged_slate(widths: tuple[int, ...]) -> Any:
    """The intrinsic that scores a slate, for levels of ``widths`` floats (multiples of eight).

    Scores items ``first:stop`` of ``singles`` into ``out``, filling the ring ``distance`` items ahead. Item i starts
    from row ``(i - first) stride`` floats into ``starts``, [t, sums]. ``ring`` int64 has a power of two of slots, more
    than ``distance``; ``zeros`` float32 holds as many as the longest row, aligned as rows are; ``sums`` is scratch.
    ``kept`` float32 [n, size] receives each item's sums, unless it has no rows.
    """

    @intrinsic
    def score_slate(
        typingctx, rows, row_at, folded, singles, first, stop, distance, starts, stride, zeros, ring, slots, sums,
        out, kept,
    ):  # fmt: skip
        signature = types.void(
            *(rows, row_at, folded, singles, first, stop, distance, starts, stride, zeros, ring, slots, sums, out, kept)
        )

        def codegen(context, builder, sig, args):
            s, t = Emitter(context, builder), sig.args
            n_groups = len(widths)
            values = {
                "rows": builder.ptrtoint(s.array(t[0], args[0]), I64),
                "row_at": s.array(t[1], args[1]),
                "folded": s.array(t[2], args[2]),
                "singles": s.array(t[3], args[3]),
                "n_single": s.shape(t[3], args[3], 1),
                "first": args[4],
                "stop": args[5],
                "distance": args[6],
                "starts": s.array(t[7], args[7]),
                "stride": args[8],
                "zeros": builder.ptrtoint(s.array(t[9], args[9]), I64),
                "ring": s.array(t[10], args[10]),
                "last_slot": s.add(args[11], -1),
                "sums": s.array(t[12], args[12]),
                "out": s.array(t[13], args[13]),
                "kept": s.array(t[14], args[14]),
                "keep": builder.icmp_signed(">", s.shape(t[14], args[14], 0), s.integer(0)),
            }

            def emit(inner, a):
                slate = _Slate(inner, widths, a)
                build = inner.builder
                slot = inner.add(inner.mul(inner.add(slate.capacity, 1), n_groups), 1)

                def place(item: Any) -> Any:
                    number = build.and_(build.sub(item, a["first"]), a["last_slot"])
                    return inner.at(a["ring"], inner.mul(number, slot))

                def early(item, carried):
                    slate.fill(place(item), item)
                    return carried

                def one(item, carried):
                    later = inner.add(item, a["distance"])
                    with build.if_then(build.icmp_signed("<", later, a["stop"]), likely=True):
                        slate.fill(place(later), later)
                    slate.score(place(item), item)
                    return carried

                inner.loop(a["first"], inner.least(inner.add(a["first"], a["distance"]), a["stop"]), [], early)
                inner.loop(a["first"], a["stop"], [], one)

            s.outlined("score_ragged", values, emit)
            return context.get_dummy_value()

        return signature, codegen

    return score_slate
