"""What a Redis Cluster says of its hash slots: CLUSTER SLOTS, and the error replies MOVED and ASK.

A server that does not know under which host it is reached leaves the host empty: it is the host of who was asked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from service.context_cache.redis_endpoint import Address

SLOTS = 16384


class SlotRange(NamedTuple):
    """The slots `first` to `last`, both included, and the address of their master."""

    first: int
    last: int
    master: Address


class Redirection(NamedTuple):
    """A slot that another server holds, for good or (`asking`) for this once while it migrates."""

    slot: int
    address: Address
    asking: bool


def slot_ranges(reply: Any, asked: Address) -> list[SlotRange]:
    """The masters' slots in a reply to CLUSTER SLOTS. Raises `ValueError` for one that is not such a reply."""
    try:
        ranges = [
            SlotRange(int(first), int(last), _address((host or b"").decode(), int(port), asked))
            for first, last, (host, port, *_), *_ in reply
        ]
        if not all(0 <= first <= last < SLOTS for first, last, _ in ranges):
            raise ValueError("slots out of range")
        return ranges
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"not a reply to CLUSTER SLOTS: {error}") from None


def redirection(error: str, asked: Address) -> Redirection | None:
    """Where an error reply points, `MOVED 3999 127.0.0.1:6381` or `ASK ...`; None for any other error."""
    words = error.split(" ")
    if words[0] not in ("MOVED", "ASK") or len(words) != 3 or not words[1].isdigit():
        return None
    host, _, port = words[2].rpartition(":")
    if not port.isdigit() or int(words[1]) >= SLOTS:
        return None
    return Redirection(int(words[1]), _address(host, int(port), asked), words[0] == "ASK")


def _address(host: str, port: int, asked: Address) -> Address:
    return Address(asked.host if host in ("", "?") else host, port)
