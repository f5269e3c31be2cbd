"""The service and the floor application as processes on free loopback ports, pinned to stated cores."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

READY_TIMEOUT_S = 120.0


class Server(NamedTuple):
    """A server process and its port."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def pin(self, cores: Iterable[int]) -> None:
        """Keep every thread of the process to these cores."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)

    def workers(self) -> list[int]:
        """Children of the supervisor that serve (the resource tracker is a child too)."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextmanager
def service_process(
    registry: Path, cache_dir: Path, workers: int = 1, redis_url: str | None = None
) -> Iterator[Server]:
    """`ctrank-serve run`, ready to rank. `RuntimeError` if it does not become ready."""
    command = [sys.executable, "-m", "service", "run", "--registry", str(registry), "--port", "0"]
    command += ["--workers", str(workers), "--cache-dir", str(cache_dir), "--log-level", "warning"]
    if redis_url is not None:
        command += ["--redis-url", redis_url]
    with _process(command, b"") as (process, server):
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not _is_ready(server.url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the service did not become ready")
            time.sleep(0.1)
        yield server


@contextmanager
def floor_process(reply: bytes) -> Iterator[Server]:
    """The floor application, which answers every request with `reply`."""
    with _process([sys.executable, "-m", "service.bench.floor_app"], reply) as (_, server):
        yield server


@contextmanager
def _process(command: list[str], stdin: bytes) -> Iterator[tuple[subprocess.Popen[bytes], Server]]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CTRANK_")}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)
    try:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(stdin)
        process.stdin.close()
        seen = b""
        while not (found := re.search(rb"listening on http://127\.0\.0\.1:(\d+)", seen)):
            line = process.stderr.readline()
            if not line:
                raise RuntimeError(seen.decode())
            seen += line
        yield process, Server(process.pid, int(found.group(1)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
