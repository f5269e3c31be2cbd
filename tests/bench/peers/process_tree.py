"""A server as a tree of processes: its memory, its processor time, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """``root``, its descendants, and every process of its session (a server is started in one of its own, so that a
    child whose parent has ended is still found), but for those that have ended."""
    parent, session = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parent[int(entry.name)], session[int(entry.name)] = int(fields[1]), int(fields[3])
    found = {root} | {pid for pid, of in session.items() if of == root}
    while grown := {pid for pid, of in parent.items() if of in found} - found:
        found |= grown
    return sorted(found & parent.keys())


def memory_bytes(root: int) -> dict[str, int]:
    """Proportional and resident set size of the tree, added up, and its number of processes."""
    sums = {"Pss:": 0, "Rss:": 0}
    pids = tree(root)
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, rest = line.partition(" ")
            if name in sums:
                sums[name] += int(rest.split()[0]) * 1024
    return {"pss_bytes": sums["Pss:"], "rss_bytes": sums["Rss:"], "processes": len(pids)}


def cpu_s(root: int) -> float:
    """Processor time that the tree has used, user and system."""
    total = 0.0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) * TICK_S
    return total


def stop(process: subprocess.Popen[bytes], patience_s: float = 15.0) -> None:
    """SIGTERM, and SIGKILL for what of the tree is left after ``patience_s``."""
    pids = set(tree(process.pid))
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and (process.poll() is None or _left(pids)):
        time.sleep(0.1)
    for pid in {*_left(pids), *tree(process.pid)}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10)


def _left(pids: set[int]) -> set[int]:
    """Those that have not ended."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
    return found
