"""A real redis-server process for tests: killed, stopped, continued and restarted on the same port."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from redis import Redis

from service.bench.redis_process import RedisProcess


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 20) -> None:
    """Poll until the condition holds; an `AssertionError` that says what did not happen in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)


class RedisServer(RedisProcess):
    """`kill` (SIGKILL) and `start` come with the process; this adds the server that hangs, and a client."""

    password: str | None = None

    def client(self, db: int = 0) -> Redis:
        return Redis(port=self.port, db=db, password=self.password, decode_responses=True)

    def command(self, *words: object) -> object:
        """The reply to one command."""
        with self.client() as client:
            return client.execute_command(*words)

    def stop(self) -> None:
        """SIGSTOP: connections stay up, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "the server is not running"
        self.process.send_signal(number)
