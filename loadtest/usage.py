"""Processor time and memory of the service, from its `/metrics`."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple
from urllib.request import urlopen


class Usage(NamedTuple):
    """All workers together, at one moment of this process's clock."""

    at: float
    cpu_s: float
    memory_bytes: float


def read_usage(host: str) -> Usage | None:
    """Scrape `host`; `None` where it shows no such metrics."""
    try:
        with urlopen(f"{host.rstrip('/')}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
    except OSError:
        return None
    samples = dict(line.rsplit(" ", 1) for line in lines if line.startswith("ctrank_process_"))
    try:
        cpu, memory = samples["ctrank_process_cpu_seconds_total"], samples["ctrank_process_memory_bytes"]
    except KeyError:
        return None
    return Usage(perf_counter(), float(cpu), float(memory))
