"""The kernel's handler in Ray Serve: one proxy, one replica: ``python -m tests.bench.peers.ray_host REGISTRY PORT``."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from tests.bench.peers.handlers import make_handler


@serve.deployment(num_replicas=1, max_ongoing_requests=64)
class Ranker:
    """One model."""

    def __init__(self, registry: str) -> None:
        self.handler = make_handler("kernel", Path(registry))

    async def __call__(self, request: Request) -> Response:
        return Response(self.handler(await request.body()), media_type="application/json")


def main(registry: str, port: str) -> None:
    """Serve until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1", log_to_driver=False, configure_logging=False,
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(Ranker.bind(registry), logging_config={"enable_access_log": False})
    ended.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
