"""A handler behind uvicorn and nothing else: ``python -m tests.bench.peers.bare_host KIND REGISTRY PORT``.

The same server settings as ctrank's and the least an ASGI application can do: body in, handler, body out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.bench.peers.handlers import Handler, make_handler


class BareApp:
    """An ASGI application around a handler."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.handler = handler

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body", False):
            message = await receive()
            body += message["body"]
        assert self.handler is not None
        reply = self.handler(body)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(reply)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})


def main(kind: str, registry: str, port: str) -> None:
    """Serve until SIGTERM."""
    import uvicorn

    from service.server import listen, server_config
    from service.settings import Settings

    settings = Settings.read({"port": port}, environ={})
    app = BareApp(make_handler(kind, Path(registry)))
    uvicorn.Server(server_config(settings, app)).run(sockets=[listen(settings)])


if __name__ == "__main__":
    main(*sys.argv[1:])
