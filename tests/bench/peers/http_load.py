"""One server under load: equality first, then latency, throughput, processor time and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import uvloop

from service.bench.load import LoadResult, drive, post
from tests.bench.peers.process_tree import cpu_s, memory_bytes
from tests.bench.peers.servers import Server
from tests.bench.peers.workload import SIZES, Request, check_reply

CONNECTIONS = (1, 16)
PILOT, LEAST, MOST = 12, 30, 20_000
_COMBINE: dict[str, Callable[..., float]] = {
    "requests": sum, "median_us": min, "p99_us": min, "per_s": max, "cpu_us": min,
}  # fmt: skip


class Traffic:
    """Requests of every size, ready to send, and what the first of each must be answered with."""

    def __init__(self, requests: dict[int, list[Request]], expected: dict[int, list[np.ndarray]]) -> None:
        self.bodies = {size: [r.body() for r in of_size] for size, of_size in requests.items()}
        self.first = {size: list(zip(requests[size], expected[size], strict=False)) for size in requests}


def measure_server(server: Server, pid: int, port: int, traffic: Traffic, budget_s: float) -> dict[str, Any]:
    """Figures by slate size and number of connections; each cell takes about ``budget_s`` seconds."""
    cells: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        _check(server, port, traffic, size)
        requests = [post(server.path, body) for body in traffic.bodies[size]]
        cells[str(size)] = {str(n): _cell(pid, port, requests, n, budget_s) for n in CONNECTIONS}
    return {"cells": cells, "memory": memory_bytes(pid)}


def best_of(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """One server's figures over several passes: each the best of them (what else a machine does only adds), but for the
    memory, which is the largest, and the requests, which are added up."""
    merged: dict[str, Any] = {}
    for size, of_size in passes[0]["cells"].items():
        merged[size] = {}
        for n in of_size:
            cells = [found["cells"][size][n] for found in passes]
            merged[size][n] = {key: _COMBINE[key](cell[key] for cell in cells) for key in cells[0]}
    memory = {key: max(found["memory"][key] for found in passes) for key in passes[0]["memory"]}
    return {"cells": merged, "memory": memory, "passes": len(passes)}


def _check(server: Server, port: int, traffic: Traffic, size: int) -> None:
    replies: dict[int, bytes] = {}

    def keep(index: int, status: int, body: bytes) -> None:
        if status != 200:
            raise RuntimeError(f"{server.name}: expected status 200, found {status}: {body[:300]!r}")
        replies[index] = body

    first = traffic.first[size]
    requests = [post(server.path, body) for body in traffic.bodies[size][: len(first)]]
    _sound(server.name, uvloop.run(drive(port, requests, 1, on_reply=keep)))
    for number, (request, expected) in enumerate(first):
        check_reply(f"{server.name}, {size} items", replies[number], request, expected)


def _cell(pid: int, port: int, requests: list[bytes], connections: int, budget_s: float) -> dict[str, Any]:
    pilot = _sound("pilot", uvloop.run(drive(port, requests, connections, count=max(PILOT, 2 * connections))))
    count = int(np.clip(budget_s * pilot.per_second, LEAST, MOST))
    before = cpu_s(pid)
    found = _sound("load", uvloop.run(drive(port, requests, connections, count=count)))
    used = cpu_s(pid) - before
    return {
        "requests": count,
        "median_us": round(found.quantile_us(0.5), 1),
        "p99_us": round(found.quantile_us(0.99), 1),
        "per_s": round(found.per_second, 1),
        "cpu_us": round(used / count * 1e6, 1),
    }


def _sound(what: str, result: LoadResult) -> LoadResult:
    if result.failures or set(result.statuses) != {200}:
        raise RuntimeError(f"{what}: failed requests: {result.statuses} {result.failures[:3]}")
    return result
