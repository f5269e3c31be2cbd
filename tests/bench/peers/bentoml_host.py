"""The kernel's handler in BentoML: one worker, an ASGI application mounted under /v1 (its thinnest way; its own
``@bentoml.api`` decodes and validates every id with pydantic first). PEERS_REGISTRY names the registry.
"""

from __future__ import annotations

import os
from pathlib import Path

import bentoml

from tests.bench.peers.bare_host import BareApp
from tests.bench.peers.handlers import make_handler

app = BareApp()


@bentoml.service(workers=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
@bentoml.asgi_app(app, path="/v1")
class Ranker:
    """One model."""

    def __init__(self) -> None:
        app.handler = make_handler("kernel", Path(os.environ["PEERS_REGISTRY"]))
