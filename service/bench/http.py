"""`bench http`: the served endpoint against the floor application, over loopback sockets.

One worker process each, the load client in this process. Repetitions of floor and service alternate, and the figures
are ratios of the same run, for two placements: server and client share one core (the client's own cost is then part of
both sides), and, where there are two, each has a core of its own. The targets are meant for one core.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from service.bench.load import LoadResult, post, run_load
from service.bench.server_process import Server, floor_process, service_process
from service.bench.synthetic_model import N_CONTEXT, N_ITEM, N_ITEMS, VALUES_PER_FIELD, publish_model, value

CANDIDATES = 1000
TOP_K = 10
CONNECTIONS = (1, 16)
PLACEMENTS = ("one core", "two cores")
_CORES = sorted(os.sched_getaffinity(0))
TARGETS = {"requests_per_s_ratio_min": 0.60, "median_ratio_max": 1.8, "inline_ratio_max": 4.0}


def run(quick: bool) -> dict[str, Any]:
    """Measure; see `render` for what comes out."""
    count, repetitions = (1500, 3) if quick else (6000, 7)
    with tempfile.TemporaryDirectory(prefix="ctrank-bench-") as name:
        folder = Path(name)
        publish_model(folder / "registry")
        slates = list(_slates(2000))
        requests = [post("/rank", msgspec.json.encode(body)) for body in slates]
        with service_process(folder / "registry", folder / "cache") as ours:
            reply = _one(ours.port, requests[0])
            _check(folder, slates[0], reply)
            with floor_process(reply) as floor:
                slate_figures = {
                    placement: _alternate(ours, floor, requests, count, repetitions)
                    for placement in PLACEMENTS
                    if _place((ours, floor), placement)
                }
            os.sched_setaffinity(0, _CORES)
            inline_figures = _inline(ours.port, 200 if quick else 600)
        with service_process(folder / "registry", folder / "cache", workers=2) as ours:
            run_load(ours.port, requests, 16, count=500)
            memory = _shared_memory(ours.workers(), folder)
    shared = slate_figures[PLACEMENTS[0]]
    return {
        "candidates": CANDIDATES,
        "catalogue_items": N_ITEMS,
        "context_fields": N_CONTEXT,
        "item_fields": N_ITEM,
        "top_k": TOP_K,
        "targets": TARGETS,
        "slate": slate_figures,
        "inline_columns": inline_figures,
        "two_workers": memory,
        "pass": {
            "requests_per_s": shared["16"]["requests_per_s_ratio"] >= TARGETS["requests_per_s_ratio_min"],
            "median": shared["1"]["median_ratio"] <= TARGETS["median_ratio_max"],
            "inline": inline_figures["ratio"] <= TARGETS["inline_ratio_max"],
            "weights_shared": memory["weights_pss_over_size"] < 1.5,
        },
    }


def render(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{result['candidates']:,} ids of a catalogue of {result['catalogue_items']:,}, "
        f"{result['context_fields']} context fields, top {result['top_k']}, a fresh slate each request, one worker",
        f"{'':>9} {'connections':>12} {'floor req/s':>12} {'ours req/s':>12} {'ratio':>7}"
        f" {'floor p50 us':>13} {'ours p50 us':>12} {'ratio':>7} {'ours p99 us':>12}",
    ]
    rows = [(p, c, row) for p, figures in result["slate"].items() for c, row in figures.items()]
    for placement, connections, row in rows:
        lines.append(
            f"{placement:>9} {connections:>12} {row['floor_per_s']:>12,.0f} {row['ours_per_s']:>12,.0f}"
            f" {row['requests_per_s_ratio']:>7.2f} {row['floor_p50_us']:>13.0f} {row['ours_p50_us']:>12.0f}"
            f" {row['median_ratio']:>7.2f} {row['ours_p99_us']:>12.0f}"
        )
    inline, memory = result["inline_columns"], result["two_workers"]
    lines += [
        f"inline items, {inline['items']:,} x {inline['fields']} string values as columns: "
        f"{inline['server_ms']:.2f} ms inside the server, {inline['decode_ms']:.2f} ms to decode them with msgspec: "
        f"{inline['ratio']:.2f} times",
        f"two workers: {memory['weights_bytes'] / 1e6:.1f} MB of mapped model files, proportional set size of both "
        f"{memory['weights_pss_bytes'] / 1e6:.1f} MB ({memory['weights_pss_over_size']:.2f} copies)",
        "targets: " + ", ".join(f"{name} {'met' if met else 'MISSED'}" for name, met in result["pass"].items()),
    ]
    return "\n".join(lines)


def _slates(n: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(5)
    for _ in range(n):
        ids = [f"i{i}" for i in rng.choice(N_ITEMS, CANDIDATES, replace=False).tolist()]
        yield {"context": _context(rng), "item_ids": ids, "top_k": TOP_K}


def _context(rng: np.random.Generator) -> dict[str, str]:
    drawn = rng.integers(0, VALUES_PER_FIELD, N_CONTEXT).tolist()
    return {f"c{i}": value(f"c{i}", j) for i, j in enumerate(drawn)}


def _check(folder: Path, slate: dict[str, Any], reply: bytes) -> None:
    """The served ranking is that of the ranking layer, called directly."""
    from models_export.reader import read_artefact
    from models_export.registry import Registry
    from service.ranking import RankingModel

    registry = Registry(folder / "registry")
    model = RankingModel.load(read_artefact(registry.path("bench", str(registry.active("bench")))))
    state = model.context_state(model.encode_context(slate["context"]))
    ranked = model.rank_ids(state, slate["item_ids"], TOP_K)
    found = json.loads(reply)["items"]
    if [item["id"] for item in found] != ranked.ids:
        raise RuntimeError("the service's ranking differs from the ranking layer's")


def _alternate(
    ours: Server, floor: Server, requests: list[bytes], count: int, repetitions: int
) -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}
    for connections in CONNECTIONS:
        runs: dict[Server, list[LoadResult]] = {ours: [], floor: []}
        for server in (floor, ours):
            run_load(server.port, requests, connections, count=count // 4)
        for _ in range(repetitions):
            for server in (floor, ours):
                result = run_load(server.port, requests, connections, count=count)
                if result.failures or set(result.statuses) != {200}:
                    raise RuntimeError(f"failed requests: {result.statuses} {result.failures[:3]}")
                runs[server].append(result)
        pairs = list(zip(runs[ours], runs[floor], strict=True))
        out[str(connections)] = {
            "floor_per_s": statistics.median(f.per_second for f in runs[floor]),
            "ours_per_s": statistics.median(o.per_second for o in runs[ours]),
            "requests_per_s_ratio": statistics.median(o.per_second / f.per_second for o, f in pairs),
            "floor_p50_us": statistics.median(f.quantile_us(0.5) for f in runs[floor]),
            "ours_p50_us": statistics.median(o.quantile_us(0.5) for o in runs[ours]),
            "median_ratio": statistics.median(o.quantile_us(0.5) / f.quantile_us(0.5) for o, f in pairs),
            "ours_p99_us": statistics.median(o.quantile_us(0.99) for o in runs[ours]),
        }
    return out


def _inline(ours: int, count: int) -> dict[str, Any]:
    """Server-side time of inline items by column, against decoding them with msgspec in this process."""
    rng = np.random.default_rng(7)
    bodies, columns = [], []
    for _ in range(50):
        drawn = rng.integers(0, VALUES_PER_FIELD, (N_ITEM, CANDIDATES)).tolist()
        fields = {f"f{i}": [value(f"f{i}", j) for j in column] for i, column in enumerate(drawn)}
        column = {"ids": [f"new{i}" for i in range(CANDIDATES)], "fields": fields}
        columns.append(msgspec.json.encode(column))
        body = {"context": _context(rng), "item_columns": msgspec.Raw(columns[-1]), "top_k": TOP_K}
        bodies.append(post("/rank", msgspec.json.encode(body)))
    times = [json.loads(_one(ours, bodies[i % len(bodies)]))["took_ms"] for i in range(count)]
    decoding = []
    for i in range(count):
        began = time.perf_counter()
        msgspec.json.decode(columns[i % len(columns)])
        decoding.append((time.perf_counter() - began) * 1e3)
    server_ms, decode_ms = statistics.median(times[count // 4 :]), statistics.median(decoding[count // 4 :])
    return {
        "items": CANDIDATES,
        "fields": N_ITEM,
        "bytes": len(columns[0]),
        "server_ms": server_ms,
        "decode_ms": decode_ms,
        "ratio": server_ms / decode_ms,
    }


def _one(port: int, request: bytes) -> bytes:
    """One request over a connection of its own; the reply's body."""
    import socket

    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(1 << 16)
        head, _, body = received.partition(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head)
        if found is None or not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(received.decode(errors="replace")[:500])
        while len(body) < int(found.group(1)):
            body += connection.recv(1 << 16)
        return body


# -- placement and memory ----------------------------------------------------------------------------------------------


def _place(servers: tuple[Server, ...], placement: str) -> bool:
    """Pin the servers and this process; False if there are not enough cores."""
    cores = _CORES[-2:]
    if placement == "two cores" and len(cores) < 2:
        return False
    for server in servers:
        server.pin({cores[-1]})
    os.sched_setaffinity(0, {cores[-1] if placement == "one core" else cores[0]})
    return True


def _shared_memory(pids: list[int], folder: Path) -> dict[str, Any]:
    """Resident and proportional set size of the mapped model files, added over the workers, from smaps."""
    rss = pss = 0
    files: dict[str, int] = {}
    for pid in pids:
        path = ""
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                path = line.split(maxsplit=5)[5] if len(line.split(maxsplit=5)) == 6 else ""
            elif path.startswith(str(folder)) and line.startswith(("Rss:", "Pss:")):
                kind, kib = line.split()[:2]
                rss, pss = (rss + int(kib) * 1024, pss) if kind == "Rss:" else (rss, pss + int(kib) * 1024)
                files[path] = Path(path).stat().st_size
    size = sum(files.values())
    return {
        "workers": len(pids),
        "weights_bytes": size,
        "weights_rss_bytes": rss,
        "weights_pss_bytes": pss,
        "weights_pss_over_size": pss / size if size else float("nan"),
    }
