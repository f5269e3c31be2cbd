"""The floor: a bare ASGI application that decodes the body as the service does and replies with a constant.

What it costs is the web server and the body parser; whatever the service takes beyond it is its own.
Run as a program, it serves one worker with the service's own uvicorn settings and prints its URL like the service.
"""

from __future__ import annotations

import sys

import msgspec

from service.body import Receive, Scope, Send
from service.schemas import RankRequest, ScoreRequest


class FloorApp:
    """Replies to every `/rank` and `/score` request with `reply`."""

    def __init__(self, reply: bytes) -> None:
        rank = msgspec.json.Decoder(RankRequest)
        self._decoders = {"/rank": rank.decode, "/score": msgspec.json.Decoder(ScoreRequest).decode}
        self._reply = reply
        length = str(len(reply)).encode()
        self._headers = [(b"content-type", b"application/json"), (b"content-length", length)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        message = await receive()
        body: bytes = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        self._decoders[scope["path"]](body)
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._reply})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


def main(reply: bytes) -> None:
    """Serve until SIGTERM."""
    import uvicorn

    from service.server import listen, server_config, url_of
    from service.settings import Settings

    settings = Settings.read({"port": "0"}, environ={})
    listener = listen(settings)
    print(f"floor: listening on {url_of(settings, listener)}", file=sys.stderr, flush=True)
    uvicorn.Server(server_config(settings, FloorApp(reply))).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.stdin.buffer.read())
