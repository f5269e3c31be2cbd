"""The kernel's handler in mosec: one worker, bytes in, bytes out. PEERS_REGISTRY names the registry; the rest of the
command line is mosec's own.
"""

from __future__ import annotations

import os
from pathlib import Path

from mosec import Server, Worker

from tests.bench.peers.handlers import make_handler


class Ranker(Worker):
    """One model, one request at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.handler = make_handler("kernel", Path(os.environ["PEERS_REGISTRY"]))

    def deserialize(self, data: bytes) -> bytes:
        """The handler reads the body itself."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """The handler writes the reply itself."""
        return data

    def forward(self, data: bytes) -> bytes:
        """Rank."""
        return self.handler(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Ranker, num=1, route="/rank")
    server.run()
