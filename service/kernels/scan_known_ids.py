# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""``item_ids`` whose every element the catalogue knows: JSON text -> catalogue indices, as a pipeline of chunks.

A look-up needs a slot, then a record, which is known only when the slot is there. While a chunk of ids is read and
hashed, the chunk before it has its slots read, and the one before that its records compared: every line is asked for a
chunk ahead of its use, and the misses hide behind the reading. Asking for the items' rows here too made it slower.

Strings are cut at the places of all quotes, found first; integers one behind the other. ``scan_ids`` is the general
scanner: what is refused here goes there.
"""

from __future__ import annotations

from numba import int64, types, uint64
from numba.extending import register_jitable

from service.kernels._jit import OUT_I32_1, kernel
from service.kernels.hash_table import equal_bytes, hash_bytes, hash_word
from service.kernels.json_tokens import (
    CLOSE_ARRAY,
    COMMA,
    OPEN_ARRAY,
    QUOTE,
    SPACE,
    byte_at,
    integer_length,
    next_element,
    skip_space,
)
from service.kernels.pending import MASK, RECORDS, SLOTS
from service.kernels.quotes import SLACK, find_quotes
from service.kernels.raw_memory import (
    inner_kernel,
    load_i32,
    load_i64,
    load_tail,
    load_u64,
    prefetch,
    store_i32,
    store_i64,
    store_u64,
)
from service.kernels.scan_fields import OUT_I64_1, TABLES

REFUSED = -1
_CHUNK = 32
_ENTRY = 32  # bytes: hash, then record; start; length; a short id itself
_SHORT = 8  # bytes of an id that is compared as one word
_CHUNK_BYTES = _CHUNK * _ENTRY


@register_jitable  # type: ignore[misc]
def work_words(text_bytes: int) -> int:
    """Words of work space for so many bytes of text: three chunks under way, and the places of the quotes."""
    return 3 * _CHUNK_BYTES // 8 + (text_bytes + SLACK + 1) // 2


@inner_kernel
def _enter(entry, start, length, slots, mask):
    """Hash a string and ask for its slot."""
    if 0 < length <= _SHORT:
        word = uint64(load_tail(start, length))
        h = uint64(hash_word(word, length))
    else:
        word = uint64(0)
        h = uint64(hash_bytes(start, length))
    prefetch(slots + (int64(h & mask) << 4))
    store_u64(entry, h)
    store_i64(entry + 8, start)
    store_i64(entry + 16, length)
    store_u64(entry + 24, word)


@inner_kernel
def _read_strings(base, end, quotes, last_quote, entry, slots, mask):
    """Enter up to a chunk of the strings between the quotes from ``quotes`` on: (number of strings, address behind the
    last one, whether a comma and another one follow); ``REFUSED`` strings where anything else stands between two."""
    n = int64(0)
    after = base
    more = True
    while more and n < _CHUNK:
        if quotes + 4 > last_quote:
            return int64(REFUSED), after, False
        opening, closing = int64(load_i32(quotes)), int64(load_i32(quotes + 4))
        _enter(entry, base + opening + 1, closing - opening - 1, slots, mask)
        after = base + closing + 1
        more = byte_at(after, end) == COMMA
        quotes += 8
        if more:
            gap = int64(load_i32(quotes)) - closing if quotes <= last_quote else int64(0)
            if gap != 2 and not (gap == 3 and byte_at(after + 1, end) == SPACE):
                return int64(REFUSED), after, False
        entry += _ENTRY
        n += 1
    return n, after, more


@inner_kernel
def _read_integers(at, end, entry, slots, mask):
    """As ``_read_strings`` for integers from ``at`` on, the address that of the next one."""
    n = int64(0)
    more = True
    while more and n < _CHUNK:
        length = integer_length(at, end)
        if length < 0:
            return int64(REFUSED), at, False
        _enter(entry, at, length, slots, mask)
        at, more = next_element(at + length, end)
        if at < 0:
            return int64(REFUSED), at, False
        entry += _ENTRY
        n += 1
    return n, at, more


@inner_kernel
def _walk(slot, h, slots, mask):
    """Address of the first slot from ``slot`` on that holds ``h`` or nothing."""
    while True:
        where = slots + ((slot & int64(mask)) << 4)
        if load_i64(where + 8) == 0 or load_u64(where) == h:
            return where
        slot += 1


@inner_kernel
def _ask_records(entry, n, slots, mask, records):
    """Read the slots of ``n`` entries and ask for their records; false where one is in no slot."""
    for _ in range(n):
        h = load_u64(entry)
        slot = int64(h & mask)
        first = slots + (slot << 4)
        second = slots + (((slot + 1) & int64(mask)) << 4)
        # One of the two in nine cases of ten, and which cannot be foretold: chosen by arithmetic, not by a branch.
        elsewhere = int64(load_u64(first) != h)
        where = first ^ ((first ^ second) & -elsewhere)
        if load_u64(where) != h:
            where = _walk(slot + 2, h, slots, mask)
        offset = load_i64(where + 8)
        if offset == 0:
            return False
        record = records + offset - 1
        store_i64(entry, record)
        prefetch(record)
        entry += _ENTRY
    return True


@inner_kernel
def _compare(entry, n, out):
    """Write the indices of ``n`` entries; false where a record is another string's."""
    for i in range(n):
        record, length = load_i64(entry), load_i64(entry + 16)
        first = load_i64(record)  # index, length
        if first >> 32 != length:
            return False
        if 0 < length <= _SHORT:
            if load_u64(record + 8) != load_u64(entry + 24):
                return False
        elif not equal_bytes(record + 8, load_i64(entry + 8), length):
            return False
        store_i32(out + 4 * i, first)
        entry += _ENTRY
    return True


@kernel(types.UniTuple(int64, 2)(int64, int64, TABLES, OUT_I32_1, OUT_I64_1))
def scan_known_ids(at, end, table, index, work):
    """Indices of the ids in the JSON array at the address ``at`` into ``index`` int32. ``table``: as for ``scan_ids``.
    ``work``: int64 [``work_words`` of the bytes up to ``end``], the caller's, since memory that is only addressed here
    would be freed before its last use.

    Returns (number of ids, address behind the array); ``REFUSED`` ids for an unknown one, unusual JSON, more ids than
    ``index`` holds.
    """
    slots, mask, records = table[0, SLOTS], uint64(table[0, MASK]), table[0, RECORDS]
    out = int64(index.ctypes.data)
    if byte_at(at, end) != OPEN_ARRAY:
        return int64(REFUSED), at
    at = skip_space(at + 1, end)
    more = byte_at(at, end) != CLOSE_ARRAY
    now = int64(work.ctypes.data)
    before, earlier = now + _CHUNK_BYTES, now + 2 * _CHUNK_BYTES
    base, quotes = at, now + 3 * _CHUNK_BYTES
    last_quote = int64(-1)  # address of the last one; none for integers
    if byte_at(at, end) == QUOTE:
        n_quotes, plain = find_quotes(base, end, quotes)
        if not plain:
            return int64(REFUSED), at
        last_quote = quotes + 4 * (n_quotes - 1)
    read = hashed = slotted = int64(0)  # ids of the chunk just read, of that before, and of the one before that
    total = int64(0)
    while True:
        read = int64(0)
        if more:
            if last_quote >= 0:
                read, at, more = _read_strings(base, end, quotes, last_quote, now, slots, mask)
                quotes += 8 * read
            else:
                read, at, more = _read_integers(at, end, now, slots, mask)
            total += read
            if read < 0 or total > len(index):
                return int64(REFUSED), at
        if not _ask_records(before, hashed, slots, mask, records) or not _compare(earlier, slotted, out):
            return int64(REFUSED), at
        out += 4 * slotted
        if read + hashed == 0:
            break
        hashed, slotted = read, hashed
        now, before, earlier = earlier, now, before
    if last_quote >= 0:
        at = skip_space(at, end)
        if byte_at(at, end) != CLOSE_ARRAY:
            return int64(REFUSED), at
    return total, at + 1
