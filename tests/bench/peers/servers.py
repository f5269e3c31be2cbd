"""The servers: how each is started, and what it must have to be."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.bench.load import post
from tests.bench.peers.process_tree import stop

READY_S = 90.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_QUIET = {"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


@dataclass(frozen=True)
class Server:
    """``command``: arguments of the Python interpreter, with {registry}, {port} and {folder} to be filled in."""

    name: str
    command: tuple[str, ...]
    path: str = "/rank"
    package: str = "uvicorn"
    needs: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def missing(self, artefact: Path) -> str | None:
        """Why it cannot be measured here; None if it can."""
        if importlib.util.find_spec(self.package) is None:
            return f"package {self.package} is not installed"
        if self.needs and not (artefact / self.needs).exists():
            return f"the artefact has no {self.needs}"
        return None


_CTRANK = ("-m", "service", "run", "--registry", "{registry}", "--port", "{port}", "--cache-dir", "{folder}/cache")
_BENTO = ("-m", "bentoml", "serve", "tests.bench.peers.bentoml_host:Ranker", "--host", "127.0.0.1", "--port", "{port}")
_MOSEC = ("-m", "tests.bench.peers.mosec_host", "--address", "127.0.0.1", "--port", "{port}", "--log-level", "warning")


def _bare(kind: str) -> tuple[str, ...]:
    return ("-m", "tests.bench.peers.bare_host", kind, "{registry}", "{port}")


SERVERS = (
    Server("ctrank", (*_CTRANK, "--log-level", "warning")),
    Server("ctrank's kernel in a bare ASGI host", _bare("kernel")),
    Server("ctrank's kernel in mosec", (*_MOSEC, "--path", "{folder}/mosec"), package="mosec"),
    Server("ctrank's kernel in BentoML", _BENTO, path="/v1/rank", package="bentoml"),
    Server("ctrank's kernel in Ray Serve", ("-m", "tests.bench.peers.ray_host", "{registry}", "{port}"),
           package="ray", path="/", environment={"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}),
    Server("authors' NumPy in a bare ASGI host", _bare("numpy")),
    Server("ONNX Runtime, context tiled, in a bare ASGI host", _bare("onnx"), package="onnxruntime",
           needs="score.onnx"),
)  # fmt: skip


@contextmanager
def running(server: Server, registry: Path, probe: bytes) -> Iterator[tuple[int, int]]:
    """The server on a free loopback port until the block ends: its pid and port, once it has answered ``probe``.

    RuntimeError, with the end of what it printed, when it does not within ``READY_S``.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="peer-", dir="/tmp") as folder, tempfile.TemporaryFile() as said:
        filled = [part.format(registry=registry, port=port, folder=folder) for part in server.command]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CTRANK_")}
        environment |= _ONE_THREAD | _QUIET | {"PEERS_REGISTRY": str(registry), "BENTOML_HOME": folder}
        process = subprocess.Popen(
            [sys.executable, *filled], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
            env=environment | server.environment, start_new_session=True,
        )  # fmt: skip
        try:
            if not _answers(process, port, post(server.path, probe)):
                said.seek(0)
                raise RuntimeError(f"{server.name}: not ready: {said.read().decode(errors='replace')[-1500:]}")
            yield process.pid, port
        finally:
            stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int, request: bytes) -> bool:
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(request)
                if connection.recv(12).startswith(b"HTTP/1.1 200"):
                    return True
        except OSError:
            pass
        time.sleep(0.2)
    return False
