"""A real master and its replica behind one Sentinel, for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from service.bench.redis_process import redis_executable
from tests.redis_server import RedisServer, wait_until

MASTER = "contexts"
CONFIGURATION = """\
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {master} 127.0.0.1 {master_port} 1
sentinel down-after-milliseconds {master} 200
sentinel failover-timeout {master} 1000
"""


class Sentinel(RedisServer):
    """Watches one master; a majority of one promotes its replica 200 ms after the master was last heard of."""

    def __init__(self, folder: Path, master_port: int) -> None:
        super().__init__()
        self._file = folder / "sentinel.conf"
        self._text = CONFIGURATION.format(port=self.port, folder=folder, master=MASTER, master_port=master_port)

    def start(self) -> None:
        """Start and wait until it answers."""
        self._file.write_text(self._text)
        command = [redis_executable(), str(self._file), "--sentinel"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, "the Sentinel answers")


class SentinelGroup:
    """`first` is the master at the start, `second` its replica."""

    def __init__(self, folder: Path) -> None:
        self.first = RedisServer()
        self.second = RedisServer("--replicaof", "127.0.0.1", str(self.first.port), "--repl-diskless-sync-delay", "0")
        self.sentinel = Sentinel(folder, self.first.port)

    def start(self) -> None:
        """Start all and wait until the Sentinel knows the replica and would promote it."""
        self.first.start()
        self.second.start()
        with self.second.client() as replica:
            wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica is in step")
        self.sentinel.start()
        with self.sentinel.client() as sentinel:
            wait_until(lambda: self._is_known(sentinel.sentinel_slaves(MASTER)), "the Sentinel knows the replica")

    def _is_known(self, replicas: list[dict[str, object]]) -> bool:
        return any(about["port"] == self.second.port and about["flags"] == "slave" for about in replicas)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (self.sentinel, self.second, self.first):
            server.__exit__(kind, error, trace)
