# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""The inner loop of FM and DPLR: project the item's rows, add the context's projection, take weighted squares.

    score = t_C + sum_f folded_f + 1/2 sum_r e_r |P_C,r + sum_f U_rf v_f|^2

FM is the case of one projection whose coefficients are all 1 (``unit``): no multiplications. One call scores a block
of items side by side: their accumulators are independent chains that hide the latency of the additions, and each
coefficient is broadcast once for all of them.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic

from service.kernels._gather import folded_pointers, prefetch_row
from service.kernels._simd import PIECE, Emitter, Machine, stride_of

_CACHED_BYTES = 32 << 20


def block_size(machine: Machine, kp: int, rho: int, table_bytes: int = 0) -> int:
    """Items scored side by side: as many as have their accumulators in registers, at most 4.

    One where there is arithmetic between gathers (rho > 1) and the rows come from memory: four prefetches in a row then
    wait for one another, and an item's arithmetic spaces them (DPLR from a million rows: 149 us, not 171).
    """
    if rho > 1 and table_bytes > _CACHED_BYTES:
        return 1
    for block in (4, 2):
        if block * rho * max(kp // machine.lanes, 1) <= machine.accumulators:
            return block
    return 1


class _Block:
    """Emits the code for one block of items."""

    def __init__(self, s: Emitter, kp: int, rho: int, unit: bool, block: int) -> None:
        self.s, self.kp, self.rho, self.unit, self.block = s, kp, rho, unit, block
        self.stride = stride_of(kp)
        wide = s.machine.lanes >= 2 * PIECE
        odd = kp % (2 * PIECE) != 0
        # On 16 lanes, with an odd number of pieces, two items of DPLR share a register: half the multiplications.
        self.pairs = not unit and wide and odd and block % 2 == 0
        lanes = 2 * PIECE if wide and not odd else PIECE
        self.chunks = [(c, lanes) for c in range(0, kp, lanes)]
        self.slots = [(i, i + 1) for i in range(0, block, 2)] if self.pairs else [(i,) for i in range(block)]

    def row_vector(self, pointers: list[Any], chunk: tuple[int, int], slot: tuple[int, ...]) -> Any:
        """One chunk of the rows of the items that share a slot."""
        start, lanes = chunk
        parts = [self.s.load(lanes, pointers[i], start) for i in slot]
        return parts[0] if len(parts) == 1 else self.s.concat(*parts)

    def context_vector(self, state: Any, r: int, chunk: tuple[int, int], slot: tuple[int, ...]) -> Any:
        """The context's projection r, the accumulators' first value."""
        start, lanes = chunk
        offset = 1 + r * self.kp + start
        part = self.s.load(lanes, state, offset)
        return part if len(slot) == 1 else self.s.concat(part, part)

    def groups(self) -> list[list[tuple[int, tuple[int, int]]]]:
        """(projection, chunk) pairs in groups whose accumulators fit in registers; one group in the usual shapes."""
        every = [(r, chunk) for r in range(self.rho) for chunk in self.chunks]
        registers = sum(
            max(chunk[1] * len(slot) // self.s.machine.lanes, 1) for _, chunk in every for slot in self.slots
        )
        n_groups = -(-registers // self.s.machine.accumulators)
        size = -(-len(every) // n_groups)
        return [every[start : start + size] for start in range(0, len(every), size)]

    def accumulate(
        self, sums: list[Any], group: Any, pointers: list[Any], scalars: list[Any], coefficients: Any, f: Any
    ) -> list[Any]:
        """Add one field's rows: ``sums`` is one vector per (projection, chunk) and slot, then folded scalars."""
        s, updated, loaded, broadcast = self.s, [], {}, {}
        for place, ((r, chunk), slot) in enumerate([(g, slot) for g in group for slot in self.slots]):
            if (chunk, slot) not in loaded:
                loaded[chunk, slot] = self.row_vector(pointers, chunk, slot)
            vector = loaded[chunk, slot]
            if self.unit:
                updated.append(s.builder.fadd(sums[place], vector))
                continue
            if r not in broadcast:
                broadcast[r] = s.load_float(coefficients, s.mul(f, self.rho), r)
            updated.append(s.fma(s.splat(broadcast[r], vector.type.count), vector, sums[place]))
        for item, folded in enumerate(sums[len(updated) :]):
            updated.append(s.builder.fadd(folded, s.load_float(scalars[item])))
        return updated

    def emit(self, a: dict[str, Any]) -> None:
        """The whole block: sums over single-valued fields (gathered), over composite rows, then the scores."""
        s, block = self.s, range(self.block)
        totals: list[Any] = [None] * self.block
        squares: list[Any] = [None] * self.block
        for number, group in enumerate(self.groups()):
            first_group = number == 0
            sums = [self.context_vector(a["state"], r, chunk, slot) for r, chunk in group for slot in self.slots]
            n_vectors = len(sums)
            if first_group:
                sums += [s.scalar(0.0)] * self.block
            index_at = [s.mul(s.add(a["first"], i), a["n_single"]) for i in block]
            next_at = [s.mul(s.add(a["next"], i), a["n_single"]) for i in block]

            def gathered(f: Any, carried: list[Any], group=group, now=index_at, later=next_at, ask=first_group) -> Any:
                if ask:
                    for at in later:
                        prefetch_row(s, a, self.kp, s.load_index(a["rows"], at, f))
                rows = [s.load_index(a["rows"], at, f) for at in now]
                pointers = [s.at(a["table"], s.mul(row, self.stride)) for row in rows]
                scalars = folded_pointers(s, a, self.kp, rows, pointers)
                return self.accumulate(carried, group, pointers, scalars, a["coefficients"], f)

            def composite(j: Any, carried: list[Any], group=group) -> Any:
                pointers = [s.at(a["composites"], s.mul(s.add(s.mul(a["n_multi"], i), j), self.stride)) for i in block]
                scalars = [s.at(pointer, self.kp) for pointer in pointers]
                return self.accumulate(carried, group, pointers, scalars, a["coefficients"], s.add(a["n_single"], j))

            sums = s.loop(0, a["n_single"], sums, gathered)
            sums = s.loop(0, a["n_multi"], sums, composite)
            if first_group:
                totals = sums[n_vectors:]
            self.square(group, sums[:n_vectors], squares, a)
        for i in block:
            half = s.builder.fmul(s.horizontal_sum(squares[i]), s.scalar(0.5))
            score = s.builder.fadd(s.builder.fadd(s.load_float(a["state"], 0), totals[i]), half)
            s.builder.store(score, s.at(a["out"], a["first"], i))

    def square(self, group: Any, sums: list[Any], squares: list[Any], a: dict[str, Any]) -> None:
        """Add e_r |sum|^2 to each item's ``squares`` (eight lanes), and store the sums where they are wanted."""
        s = self.s
        places = [(g, slot) for g in group for slot in self.slots]
        pieces = []
        for ((r, (start, lanes)), slot), vector in zip(places, sums, strict=True):
            per_item = lanes // PIECE
            for which, item in enumerate(slot):
                for p in range(per_item):
                    pieces.append((item, r, start + p * PIECE, s.piece(vector, which * per_item + p)))
        with s.builder.if_then(a["keep_sums"], likely=False):
            for item, r, start, piece in pieces:
                at = s.add(s.mul(s.add(a["first"], item), self.rho * self.kp), r * self.kp + start)
                s.store(piece, a["sums"], at)
        for item, r, _, piece in pieces:
            weighted = piece
            if not self.unit:
                weighted = s.builder.fmul(piece, s.splat(s.load_float(a["e"], r), PIECE))
            squares[item] = (
                s.builder.fmul(weighted, piece) if squares[item] is None else s.fma(weighted, piece, squares[item])
            )


@intrinsic(prefer_literal=True)
def score_blocks(
    typingctx,
    table,
    folded,
    rows,
    first,
    stop,
    distance,
    composites,
    n_multi,
    coefficients,
    e,
    state,
    out,
    sums,
    kp,
    rho,
    unit,
    block,
):
    """Score items ``first:stop``, a multiple of ``block``, into ``out``; prefetch rows ``distance`` items ahead.

    ``kp``, ``rho``, ``unit``, ``block`` are compile-time constants. ``coefficients`` float32 [n_fields, rho] in kernel
    order and ``e`` float32 [rho] are not read with ``unit``. ``composites`` float32 [block * n_multi, stride]. ``sums``
    float32 [n, rho * kp] receives the projections (P_I with a state of zeros), unless it has no rows. With composites
    one block at a time is scored.
    """
    signature = types.void(
        *(table, folded, rows, first, stop, distance, composites, n_multi, coefficients, e, state, out, sums),
        *(kp, rho, unit, block),
    )

    def codegen(context, builder, sig, args):
        s = Emitter(context, builder)
        t = sig.args
        kp, rho, unit, block = (kind.literal_value for kind in t[13:17])
        values = {
            "table": s.array(t[0], args[0]),
            "folded": s.array(t[1], args[1]),
            "rows": s.array(t[2], args[2]),
            "n_single": s.shape(t[2], args[2], 1),
            "start": args[3],
            "stop": args[4],
            "distance": args[5],
            "last": s.add(s.shape(t[2], args[2], 0), -block),
            "composites": s.array(t[6], args[6]),
            "n_multi": args[7],
            "coefficients": s.array(t[8], args[8]),
            "e": s.array(t[9], args[9]),
            "state": s.array(t[10], args[10]),
            "out": s.array(t[11], args[11]),
            "sums": s.array(t[12], args[12]),
            "keep_sums": builder.icmp_signed(">", s.shape(t[12], args[12], 0), s.integer(0)),
        }

        def emit(inner, a):
            def one(number, carried):
                first = inner.add(a["start"], inner.mul(number, block))
                ahead = inner.least(inner.add(first, a["distance"]), a["last"])
                _Block(inner, kp, rho, bool(unit), block).emit({**a, "first": first, "next": ahead})
                return carried

            n_blocks = inner.builder.sdiv(inner.builder.sub(a["stop"], a["start"]), inner.integer(block))
            inner.loop(0, n_blocks, [], one)

        s.outlined("score_blocks", values, emit)
        return context.get_dummy_value()

    return signature, codegen
