"""How much of a core other work takes: figures of a shared machine mean little without it."""

from __future__ import annotations

import os
from time import perf_counter

_GAP_S = 2e-4  # a loop that does nothing but read the clock is never as slow by itself


def lost_share(core: int, seconds: float = 0.5) -> float:
    """The share of `seconds` in which a busy loop on `core` did not run; where the system can pin, else on any."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before is not None:
        os.sched_setaffinity(0, {core})
    try:
        lost, began = 0.0, perf_counter()
        last = began
        while last < began + seconds:
            now = perf_counter()
            if now - last > _GAP_S:
                lost += now - last
            last = now
        return lost / (last - began)
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
