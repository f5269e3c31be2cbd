# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""A whole rank request in one compiled call: the body's bytes in, the reply's bytes out.

    {"context": {..}, "item_ids": [..], "top_k": 10}
        -> encoded context, catalogue indices -> context state -> query -> best k -> probabilities -> reply, metrics

Each step is the kernel that also stands alone; what this kernel spares is the hundred passages through the interpreter
between them, which cost more than the steps. It reads the body once, so it checks what a JSON parser would have checked
for the scanners: no control characters, no byte that is not part of a token. What is not usual (other members, escapes,
unknown items, few candidates, a state that might overflow) it leaves to the separate steps, which word the errors too.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import float64, int64, types, uint64

from service.kernels._jit import FLOAT32, kernel
from service.kernels.catalogue import GROUP, gather_top_kernel
from service.kernels.finish import is_within, sigmoid
from service.kernels.item_json import write_items
from service.kernels.json_tokens import (
    CLOSE_OBJECT,
    COLON,
    COMMA,
    OPEN_OBJECT,
    POINT,
    QUOTE,
    ZERO,
    byte_at,
    integer_length,
    skip_space,
    string_length,
)
from service.kernels.now import now
from service.kernels.plan import matrix, vector
from service.kernels.query import query_of
from service.kernels.rank_ids import OTHERWISE, SELECT_FEW, SELECT_SHARE
from service.kernels.raw_memory import inner_kernel, load_tail, load_u8, store_u8, store_u64
from service.kernels.scan_context import encode_context
from service.kernels.scan_fields import RAW, TABLES
from service.kernels.scan_known_ids import scan_known_ids

# The arrays of the plan. What stays: the model's name; tables of context fields and of catalogue ids; records and
# offsets of the ids; the catalogue's item side; the context program's matrices and the query's w, u and j; `numbers`
# float64 (below); the metrics' values, bounds of the histograms' buckets, `slots` int64 (below).
KEPT = (
    *("name", "fields", "ids", "records", "offsets", "g", "beta", "table", "first", "second"),
    *("w", "u", "j", "numbers", "metrics", "buckets", "slots"),
)
# Work space of one request; `text` begins with the reply's first bytes.
WORK_SPACE = (
    *("rows", "indptr", "multi_rows", "weights", "unknown", "starts", "counts", "pool_rows", "pool_weights", "pending"),
    *("scratch", "state", "a", "index", "chunks", "group", "places", "best", "scores", "probabilities"),
    *("text", "clock"),
)
ARRAYS = (*KEPT, *WORK_SPACE)
(
    NAME, FIELDS, IDS, RECORDS, OFFSETS, G, BETA, TABLE, FIRST, SECOND, W, U, J, NUMBERS, METRICS, BUCKETS, SLOTS,
    ROWS, INDPTR, MULTI_ROWS, WEIGHTS, UNKNOWN, STARTS, COUNTS, POOL_ROWS, POOL_WEIGHTS, PENDING,
    SCRATCH, STATE, A, INDEX, CHUNKS, GROUP_SCORES, PLACES, BEST, SCORES, PROBABILITIES, TEXT, CLOCK,
) = range(len(ARRAYS))  # fmt: skip
NUMBER_NAMES = ("bias", "half", "largest_state", "slope", "shift", "max_values", "head_bytes")
BIAS, HALF, LARGEST_STATE, SLOPE, SHIFT, MAX_VALUES, HEAD_BYTES = range(len(NUMBER_NAMES))
# First slots of the stages' histograms and of that of the whole; slots of counters.
SLOT_NAMES = ("parse", "encode", "kernel", "reply", "total", "success", "source", "candidates")
PARSE, ENCODE, KERNEL, REPLY, TOTAL, SUCCESS, SOURCE, CANDIDATES = range(len(SLOT_NAMES))
TAIL_BYTES = 64
"""Room behind the items of the reply."""

_CONTEXT, _ITEM_IDS, _TOP_K, _MODEL = (
    np.uint64(int.from_bytes(name, "little")) for name in (b"context", b"item_ids", b"top_k", b"model")
)
_TAIL = b',"unknown_item_ids":[],"took_ms":'
_TAIL_WORDS = tuple(
    np.uint64(int.from_bytes(_TAIL[i : i + 8].ljust(8, b"\0"), "little")) for i in range(0, len(_TAIL), 8)
)
_TAIL_LENGTH = len(_TAIL)
_CONTROL = 0x20


@inner_kernel
def _has_control(body):
    """Whether a byte is below 0x20: inside a string it would not be JSON."""
    least = np.uint8(255)
    for i in range(len(body)):
        least = min(least, body[i])
    return least < _CONTROL


@inner_kernel
def _is_text(at, length, text):
    """Whether the bytes at an address are ``text``, uint8."""
    if length != len(text):
        return False
    for i in range(length):  # noqa: SIM110 - compiled
        if load_u8(at + i) != text[i]:
            return False
    return True


@inner_kernel
def _observe(values, slot, buckets, seconds):
    """As ``service.metrics.Histogram.observe``."""
    i = 0
    while i < len(buckets) and buckets[i] < seconds:
        i += 1
    values[slot + i] += 1.0
    values[slot + len(buckets) + 1] += seconds


@inner_kernel
def _write_tail(at, seconds):
    """The reply's end with ``took_ms`` to three decimals; the address behind it."""
    for i in range(len(_TAIL_WORDS)):
        store_u64(at + 8 * i, _TAIL_WORDS[i])
    at += _TAIL_LENGTH
    thousandths = int64(np.rint(seconds * 1e6))
    whole = thousandths // 1000
    size = 1
    least = 10
    while whole >= least:
        size += 1
        least *= 10
    for i in range(size):
        store_u8(at + size - 1 - i, ZERO + whole % 10)
        whole //= 10
    at += size
    store_u8(at, POINT)
    rest = thousandths % 1000
    store_u8(at + 1, ZERO + rest // 100)
    store_u8(at + 2, ZERO + rest // 10 % 10)
    store_u8(at + 3, ZERO + rest % 10)
    store_u8(at + 4, CLOSE_OBJECT)
    return at + 5


@kernel(types.Tuple((int64, int64, int64, float64))(TABLES, RAW, int64))
def _read(plan, body, needed):
    """Encode the context and resolve the ids: (ids, top_k, unknown context values, seconds spent on the context), or
    ``OTHERWISE`` ids. ``needed``: the members that must be there, as bits."""
    clock = vector(plan, CLOCK, np.int64)
    refused = int64(OTHERWISE), int64(0), int64(0), 0.0
    context_s = 0.0
    count, k, n_unknown, seen = int64(0), int64(0), int64(0), int64(0)
    at = int64(body.ctypes.data)
    end = at + len(body)
    at = skip_space(at, end)
    if byte_at(at, end) != OPEN_OBJECT or _has_control(body):
        return refused
    at = skip_space(at + 1, end)
    while True:
        if byte_at(at, end) != QUOTE:
            return refused
        length = string_length(at + 1, end)
        if length < 1 or length > 8:
            return refused
        member = uint64(load_tail(at + 1, length))
        at = skip_space(at + length + 2, end)
        if byte_at(at, end) != COLON:
            return refused
        at = skip_space(at + 1, end)
        if member == _CONTEXT:
            bit = 1
            began = now(clock)
            multi_rows = vector(plan, MULTI_ROWS, np.int32)
            at, _, n_unknown = encode_context(
                at,
                min(end, at + 2 * (len(multi_rows) - plan[INDPTR, 1] - 1)),
                matrix(plan, FIELDS, np.int64),
                int64(vector(plan, NUMBERS, np.float64)[MAX_VALUES]),
                matrix(plan, ROWS, np.int32),
                vector(plan, INDPTR, np.int64),
                multi_rows,
                vector(plan, WEIGHTS, np.float32),
                vector(plan, UNKNOWN, np.int32),
                vector(plan, STARTS, np.int64),
                vector(plan, COUNTS, np.int64),
                vector(plan, POOL_ROWS, np.int32),
                vector(plan, POOL_WEIGHTS, np.float32),
                vector(plan, PENDING, np.int64),
            )
            context_s = now(clock) - began
            if at < 0:
                return refused
        elif member == _ITEM_IDS:
            bit = 2
            index = vector(plan, INDEX, np.int32)
            limit = len(index) - GROUP
            ids = matrix(plan, IDS, np.int64)
            count, at = scan_known_ids(at, end, ids, index[:limit], vector(plan, CHUNKS, np.int64))
            if count < 0:
                return refused
        elif member == _TOP_K:
            bit = 4
            digits = integer_length(at, end)
            if digits < 1 or digits > 4 or load_u8(at) < ZERO:
                return refused
            for i in range(digits):
                k = 10 * k + (int64(load_u8(at + i)) - ZERO)
            at += digits
        elif member == _MODEL:
            bit = 8
            if byte_at(at, end) != QUOTE:
                return refused
            length = string_length(at + 1, end)
            if length < 0 or not _is_text(at + 1, length, vector(plan, NAME, np.uint8)):
                return refused
            at += length + 2
        else:
            return refused
        if seen & bit:
            return refused
        seen |= bit
        at = skip_space(at, end)
        c = byte_at(at, end)
        at = skip_space(at + 1, end)
        if c == CLOSE_OBJECT:
            break
        if c != COMMA:
            return refused
    if at != end or seen & needed != needed or k < 1 or k > plan[BEST, 1] or k > count:
        return refused
    if k > SELECT_FEW and count < k * SELECT_SHARE:
        return refused
    return count, k, n_unknown, context_s


@cache
def rank_body_kernel(size: int, compute: Any) -> Any:
    """The kernel for an item side of ``size`` (D) floats per item and a context program's ``compute``."""
    top_index = gather_top_kernel(size)

    @inner_kernel
    def context_side(plan):
        # Query of the encoded context into A: (alpha, whether the state is small enough).
        numbers = vector(plan, NUMBERS, np.float64)
        state = vector(plan, STATE, np.float32)
        state[:] = FLOAT32(0.0)
        state[0] = numbers[BIAS]
        compute(
            matrix(plan, TABLE, np.float32),
            matrix(plan, ROWS, np.int32),
            vector(plan, INDPTR, np.int64),
            vector(plan, MULTI_ROWS, np.int32),
            vector(plan, WEIGHTS, np.float32),
            matrix(plan, FIRST, np.float32),
            matrix(plan, SECOND, np.float32),
            matrix(plan, SCRATCH, np.float32),
            state,
        )
        alpha = query_of(
            state, vector(plan, W, np.float32), vector(plan, U, np.float32), vector(plan, J, np.int32), numbers[HALF],
            vector(plan, A, np.float32),
        )  # fmt: skip
        return FLOAT32(alpha), is_within(state, numbers[LARGEST_STATE])

    @kernel(types.UniTuple(int64, 2)(TABLES, RAW, float64, types.boolean))
    def rank_body(plan, body, started, named):
        # ``started``: when the body was there, by ``now``; ``named``: the body must name the model. Returns (bytes of
        # TEXT, unknown context values), the first ``OTHERWISE`` where the separate steps have to answer; nothing is
        # counted then.
        clock = vector(plan, CLOCK, np.int64)
        count, k, n_unknown, context_s = _read(plan, body, int64(15 if named else 7))
        if count < 0:
            return int64(OTHERWISE), int64(0)
        parsed = now(clock)
        alpha, small = context_side(plan)
        if not small:
            return int64(OTHERWISE), int64(0)
        encoded = now(clock)
        index = vector(plan, INDEX, np.int32)
        padded = count + -count % GROUP
        for i in range(count, padded):
            index[i] = index[count - 1]
        numbers = vector(plan, NUMBERS, np.float64)
        scores, best = vector(plan, SCORES, np.float32)[:k], vector(plan, BEST, np.int32)[:k]
        top_index(
            matrix(plan, G, np.float32), vector(plan, BETA, np.float32), alpha, vector(plan, A, np.float32),
            index[:padded], count, k, vector(plan, GROUP_SCORES, np.float32), scores,
            vector(plan, PLACES, np.int32)[:k], best,
        )  # fmt: skip
        probabilities = vector(plan, PROBABILITIES, np.float64)[:k]
        if not sigmoid(scores, numbers[SLOPE], numbers[SHIFT], probabilities):
            return int64(OTHERWISE), int64(0)
        ranked = now(clock)
        head = int64(numbers[HEAD_BYTES])
        text = vector(plan, TEXT, np.uint8)
        length = write_items(
            vector(plan, RECORDS, np.uint8), vector(plan, OFFSETS, np.int64), np.empty((0, 2), np.int32), best, scores,
            probabilities, text[head : len(text) - TAIL_BYTES],
        )  # fmt: skip
        if length < 0:
            return int64(OTHERWISE), int64(0)
        first = int64(text.ctypes.data)
        ended = now(clock)
        end = _write_tail(first + head + length, ended - started)
        values, buckets, slots = (
            vector(plan, METRICS, np.float64),
            vector(plan, BUCKETS, np.float64),
            vector(plan, SLOTS, np.int64),
        )
        _observe(values, slots[PARSE], buckets, parsed - started - context_s)
        _observe(values, slots[ENCODE], buckets, context_s + encoded - parsed)
        _observe(values, slots[KERNEL], buckets, ranked - encoded)
        _observe(values, slots[REPLY], buckets, ended - ranked)
        _observe(values, slots[TOTAL], buckets, ended - started)
        values[slots[SUCCESS]] += 1.0
        values[slots[SOURCE]] += 1.0
        values[slots[CANDIDATES]] += float64(count)
        return end - first, n_unknown

    return rank_body
