"""A server that speaks just enough HTTP: it describes a model, and answers every POST as it is told."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class StubServer:
    """`status` for every POST but the first (which lists items), after `delays_s[n]` for the n-th of them."""

    def __init__(self, status: int = 200, delays_s: dict[int, float] | None = None) -> None:
        self.status, self.delays_s, self.posts = status, delays_s or {}, 0
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/models":
                    self.reply(200, {"models": [{"name": "m", "active": "v000001", "default": True}]})
                elif self.path == "/models/m":
                    field = {"name": "user", "side": "context", "kind": "categorical", "size": 12}
                    self.reply(200, {"active": "v000001", "default": True, "items": 50, "fields": [field]})
                else:
                    self.reply(404, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if body.get("context") == {}:
                    self.reply(200, {"items": [{"id": f"i{i}"} for i in range(50)]})
                    return
                number, stub.posts = stub.posts, stub.posts + 1
                time.sleep(stub.delays_s.get(number, 0.0))
                self.reply(stub.status, {})

            def reply(self, status: int, found: Any) -> None:
                data = json.dumps(found).encode()
                head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
