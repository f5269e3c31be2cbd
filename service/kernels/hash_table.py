"""Compiled look-ups in ``models_export.StringTable``: the same hash, the same probing, read by address.

A *table* is three numbers: the address of its slots, its capacity minus one, and the address of its records. The
tables must have passed ``StringTable.verify``: offsets are not checked here. One look-up waits for two random cache
lines, a slot and a record; ``service.kernels.pending`` does many at a time.
"""

# mypy: disable-error-code="no-any-return"
# (a compiled function is Any to the type checker)

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, uint64

from service.kernels.raw_memory import inner_kernel, load_i32, load_tail, load_u64

SEED = np.uint64(0x9E3779B97F4A7C15)
K1 = np.uint64(0xBF58476D1CE4E5B9)
K2 = np.uint64(0x94D049BB133111EB)
ABSENT = -1


@inner_kernel
def _mix(h: Any, word: int) -> Any:
    h = (h ^ word) * K1
    return h ^ (h >> uint64(32))


@inner_kernel
def _finish(h: Any) -> Any:
    h = (h ^ (h >> uint64(29))) * K2
    return h ^ (h >> uint64(32))


@inner_kernel
def hash_bytes(address: int, length: int) -> int:
    """``StringTable.hash64`` of ``length`` bytes at ``address``, as uint64."""
    h = SEED ^ (uint64(length) * K1)
    last = address + (length & ~7)
    while address < last:
        h = _mix(h, load_u64(address))
        address += 8
    rest = length & 7
    if rest:
        h = _mix(h, load_tail(address, rest))
    return _finish(h)


@inner_kernel
def hash_word(word: int, length: int) -> int:
    """``hash_bytes`` of the 1 to 8 bytes in ``word``, zero-padded."""
    return _finish(_mix(SEED ^ (uint64(length) * K1), word))


@inner_kernel
def equal_bytes(stored: int, given: int, length: int) -> bool:
    """Whether ``length`` bytes agree; ``stored`` is zero-padded to a multiple of 8, ``given`` is not."""
    last = given + (length & ~7)
    while given < last:
        if load_u64(stored) != load_u64(given):
            return False
        stored += 8
        given += 8
    rest = length & 7
    return rest == 0 or load_u64(stored) == load_tail(given, rest)


@inner_kernel
def matches(record: int, address: int, length: int) -> bool:
    """Whether a record holds the string at ``address``."""
    return load_i32(record + 4) == length and equal_bytes(record + 8, address, length)


@inner_kernel
def look_up(slots: int, mask: int, records: int, h: int, address: int, length: int) -> int:
    """Id of the string at ``address`` whose hash is ``h``, or ``ABSENT``."""
    slot = int64(h & uint64(mask))
    while True:
        where = slots + (slot << 4)
        offset = int64(load_u64(where + 8))
        if offset == 0:
            return ABSENT
        if load_u64(where) == h:
            record = records + offset - 1
            if matches(record, address, length):
                return int64(load_i32(record))
        slot = (slot + 1) & mask
