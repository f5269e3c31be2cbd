"""Argument types: each refuses a bad value with what was expected."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """An int of at least ``low`` and at most ``high``."""

    def parse(text: str) -> int:
        limit = f"at least {low}" if high is None else f"from {low} to {high}"
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}") from None
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected a whole number {limit}, found {value}")
        return value

    return parse


def number(low: float, above: bool = False) -> Callable[[str], float]:
    """A finite float of at least ``low``; with ``above``, greater than it."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a number, found {text!r}") from None
        if not math.isfinite(value) or value < low or (above and value == low):
            limit = f"above {low:g}" if above else f"of at least {low:g}"
            raise argparse.ArgumentTypeError(f"expected a number {limit}, found {text}")
        return value

    return parse


def counts(text: str) -> tuple[float, ...]:
    """Numbers of at least 0 with commas between them."""
    return tuple(number(0)(part) for part in text.split(","))


def widths(text: str) -> tuple[int, ...]:
    """Whole numbers above 0 with commas between them."""
    try:
        return tuple(integer(1, 65_536)(part) for part in text.split(","))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 128,64, found {text!r} ({error})") from None
