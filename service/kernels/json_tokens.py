"""Tokens of JSON text at raw addresses: white space, plain strings, integers, numbers.

The text has been validated as JSON by msgspec, except for UTF-8. A *plain* string has no backslash, so its bytes are
its value. What these functions call unusual (-1) is left to the exact Python path; they never read at or beyond
``end`` except inside the last byte's memory page.

The numbers follow JSON: no leading zeros, no bare point; anything else is unusual too.
"""

# mypy: disable-error-code="no-any-return"
# (a compiled function is Any to the type checker)

from __future__ import annotations

import numpy as np
from numba import float64, int64, uint64

from service.kernels.raw_memory import fused, inner_kernel, load_u8, load_u64, trailing_zeros

UNUSUAL = -1
SPACE, QUOTE, COMMA, COLON, MINUS, POINT, ZERO = 0x20, 0x22, 0x2C, 0x3A, 0x2D, 0x2E, 0x30
OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT, BACKSLASH = 0x5B, 0x5D, 0x7B, 0x7D, 0x5C
LOWER_N, LOWER_E, CASE, PLUS = 0x6E, 0x65, 0x20, 0x2B

_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
_POWERS_OF_TEN = np.array([float(f"1e{i}") for i in range(23)])  # each exact in float64
_MAX_DIGITS = 18  # digits that fit int64


@inner_kernel
def byte_at(at: int, end: int) -> int:
    """The byte at ``at``, or 0 at the end."""
    if at < end:
        return int64(load_u8(at))
    return int64(0)


@inner_kernel
def skip_space(at: int, end: int) -> int:
    """First address from ``at`` on that holds no white space."""
    while at < end and load_u8(at) <= 0x20:
        at += 1
    return at


@inner_kernel
def string_length(start: int, end: int) -> int:
    """Bytes of the plain string whose first byte (behind the quote) is at ``start``; ``UNUSUAL`` if it has a
    backslash or no end. Eight bytes a step: a byte equal to the quote becomes zero and borrows (Mycroft's test)."""
    at = start
    while at + 8 <= end:
        word = load_u64(at)
        quotes = word ^ _QUOTES
        quotes = (quotes - _ONES) & ~quotes & _HIGH
        slashes = word ^ _BACKSLASHES
        slashes = (slashes - _ONES) & ~slashes & _HIGH
        if (quotes | slashes) != uint64(0):
            if quotes == uint64(0):
                return UNUSUAL
            zeros = trailing_zeros(quotes)
            # borrows make false hits only above a true one: a hit below the first quote is a backslash
            if (slashes << uint64(63 - zeros)) != uint64(0):
                return UNUSUAL
            return at - start + (zeros >> 3)
        at += 8
    while at < end:
        c = load_u8(at)
        if c == QUOTE:
            return at - start
        if c == BACKSLASH:
            return UNUSUAL
        at += 1
    return UNUSUAL


@inner_kernel
def integer_length(start: int, end: int) -> int:
    """Bytes of the integer at ``start`` if its text is what Python prints for it (no fraction, no exponent, not -0, at
    most 18 digits), else ``UNUSUAL``."""
    at = start
    if byte_at(at, end) == MINUS:
        at += 1
    first = at
    while at < end:
        digit = int64(load_u8(at)) - ZERO
        if digit < 0 or digit > 9:
            break
        at += 1
    digits = at - first
    if digits == 0 or digits > _MAX_DIGITS or (load_u8(first) == ZERO and at - start > 1):
        return UNUSUAL
    c = byte_at(at, end)
    if c == POINT or (c | CASE) == LOWER_E:
        return UNUSUAL
    return at - start


@inner_kernel
def plain_id(at: int, end: int) -> tuple[int, int, int]:
    """The plain string or integer at ``at``: (address of its first byte, length or ``UNUSUAL``, address behind it)."""
    if byte_at(at, end) == QUOTE:
        length = string_length(at + 1, end)
        return at + 1, length, at + length + 2
    length = integer_length(at, end)
    return at, length, at + length


@inner_kernel
def next_element(at: int, end: int) -> tuple[int, bool]:
    """Behind an element of an array: (address of the next one, true), (address of the closing bracket, false), or
    ``UNUSUAL`` and false."""
    c = byte_at(at, end)
    if c != COMMA:
        at = skip_space(at, end)
        c = byte_at(at, end)
    if c == COMMA:
        return skip_space(at + 1, end), True
    return (at if c == CLOSE_ARRAY else int64(UNUSUAL)), False


@inner_kernel
def scaled(mantissa: int, scale: int) -> float:
    """The float64 nearest to ``mantissa * 10^scale``, |scale| <= 22, mantissa below 10^18.

    The mantissa is the sum of two floats, the power is one; quotient or product is carried with its rounding error
    (104 bits) and rounded once at the end.
    """
    high = float64(mantissa)
    low = float64(mantissa - int64(high))
    if scale == 0:
        return high
    if scale < 0:
        power = _POWERS_OF_TEN[-scale]
        quotient = high / power
        return quotient + (fused(-quotient, power, high) + low) / power
    power = _POWERS_OF_TEN[scale]
    product = high * power
    return product + (fused(high, power, -product) + low * power)


@inner_kernel
def parse_number(start: int, end: int) -> tuple[int, float]:
    """The number at ``start``: (bytes, value). ``UNUSUAL`` bytes for more than 18 significant digits or a decimal
    exponent beyond 22."""
    at = start
    negative = byte_at(at, end) == MINUS
    if negative:
        at += 1
    mantissa = int64(0)
    digits = 0  # significant ones
    scale = 0
    first = at
    while True:
        digit = byte_at(at, end) - ZERO
        if digit < 0 or digit > 9:
            break
        if digits == _MAX_DIGITS:
            return UNUSUAL, 0.0
        mantissa = mantissa * 10 + digit
        digits += 1 if mantissa > 0 else 0
        at += 1
    if at == first or (at - first > 1 and load_u8(first) == ZERO):
        return UNUSUAL, 0.0
    if byte_at(at, end) == POINT:
        at += 1
        first = at
        while True:
            digit = byte_at(at, end) - ZERO
            if digit < 0 or digit > 9:
                break
            if digits == _MAX_DIGITS:
                return UNUSUAL, 0.0
            mantissa = mantissa * 10 + digit
            digits += 1 if mantissa > 0 else 0
            scale -= 1
            at += 1
        if at == first:
            return UNUSUAL, 0.0
    c = byte_at(at, end)
    if (c | CASE) == LOWER_E:
        at += 1
        c = byte_at(at, end)
        minus = c == MINUS
        if minus or c == PLUS:
            at += 1
        exponent = 0
        first = at
        while True:
            digit = byte_at(at, end) - ZERO
            if digit < 0 or digit > 9:
                break
            exponent = min(exponent * 10 + digit, 10_000)
            at += 1
        if at == first:
            return UNUSUAL, 0.0
        scale += -exponent if minus else exponent
    if scale < -22 or scale > 22:
        return UNUSUAL, 0.0
    value = scaled(mantissa, scale)
    return at - start, -value if negative else value


@inner_kernel
def is_utf8(start: int, length: int) -> bool:
    """Whether the bytes are UTF-8 as Python decodes it: no overlong form, no surrogate, at most U+10FFFF."""
    at = start
    end = start + length
    while at < end:
        c = int64(load_u8(at))
        if c < 0x80:
            at += 1
            continue
        if c < 0xC2 or c > 0xF4:
            return False
        extra = 1 if c < 0xE0 else (2 if c < 0xF0 else 3)
        if at + extra >= end:
            return False
        second = int64(load_u8(at + 1))
        low = 0xA0 if c == 0xE0 else (0x90 if c == 0xF0 else 0x80)
        high = 0x9F if c == 0xED else (0x8F if c == 0xF4 else 0xBF)
        if second < low or second > high:
            return False
        for i in range(2, extra + 1):
            if int64(load_u8(at + i)) & 0xC0 != 0x80:
                return False
        at += extra + 1
    return True
