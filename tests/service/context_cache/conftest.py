from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.context_cache import ContextCache, ContextKey, build_cache
from service.context_cache.record import State
from tests.redis_server import RedisServer

DIGEST = "0123456789abcdef"


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def key(context_id: str, digest: str = DIGEST) -> ContextKey:
    return ContextKey("movielens", digest, context_id)


def state(first: float, size: int = 25) -> State:
    return np.arange(size, dtype=np.float32) + np.float32(first)


@asynccontextmanager
async def cache(**settings: Any) -> AsyncIterator[ContextCache]:
    settings.setdefault("redis_timeout_ms", 2000)  # on a busy machine, too; tests of the budget set their own
    built = build_cache(**settings)
    try:
        yield built
    finally:
        await built.close()


async def wait_for_breaker(contexts: ContextCache, breaker_state: int, timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while contexts.stats.breaker_state != breaker_state:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def tls_in_front_of(port: int, folder: Path) -> AsyncIterator[int]:
    """A TLS listener, with a certificate of its own, that passes everything on to `port`."""
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    subprocess.run([*request, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    relays: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        for pair in ((reader, inner_writer), (inner_reader, writer)):
            relays.add(asyncio.create_task(relay(*pair)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in relays:
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()
