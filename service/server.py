"""Running the application: the listening socket, one or several worker processes, a clean end.

One worker runs in this process. Several are spawned by uvicorn's supervisor, which shares the socket among them and
replaces one that dies; they read their settings from the environment, and share one folder of metrics and one
embedded context store.
"""

from __future__ import annotations

import contextlib
import logging
import logging.config
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from models_export.errors import ArtefactError
from models_export.registry import Registry
from service.errors import NotServable
from service.scorers.onnx_provider import OnnxUnavailable, find_provider
from service.served_model import scorer_choice
from service.settings import Settings

if TYPE_CHECKING:
    import uvicorn

BACKLOG = 2048


class StartError(Exception):
    """The server cannot start for a reason that the user can put right."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code. Raises `StartError` and `ArtefactError`."""
    check_registry(settings)
    check_runtime(settings)
    listener = listen(settings)
    logging.config.dictConfig(log_config(settings.log_level))
    with _shared_folders(settings) as settings:
        print(f"ctrank-serve: listening on {url_of(settings, listener)}", file=sys.stderr, flush=True)
        if settings.workers == 1:
            return _serve_here(settings, listener)
        return _serve_in_workers(settings, listener)


def check_registry(settings: Settings) -> None:
    """Refuse what can be told before anything is loaded: no registry, no active model, another default model. With
    `wait_for_model` none of these is refused: they are waited for."""
    if settings.wait_for_model:
        return
    registry = Registry(settings.registry)
    if not settings.registry.is_dir():
        raise StartError(f"registry {settings.registry}: expected a folder of published models, found none")
    active = {name: registry.active(name) for name in registry.models()}
    served = sorted(name for name, version in active.items() if version is not None)
    if not served:
        idle = f"; {', '.join(sorted(active))} have no active version" if active else ""
        remedy = f"ctrank-train export RUN --registry {settings.registry} --name NAME --activate"
        raise StartError(f"registry {settings.registry}: expected an active model, found none{idle}. Try: {remedy}")
    if settings.default_model is not None and settings.default_model not in served:
        raise StartError(f"default model {settings.default_model!r}: expected one of {', '.join(served)}")
    for name in served:
        registry.path(name, str(active[name]))


def check_runtime(settings: Settings) -> None:
    """Refuse a scorer or a provider that was asked for and is not there."""
    if settings.scorer == "onnx" or settings.onnx_provider == "cuda":
        try:
            find_provider(settings.onnx_provider)
        except OnnxUnavailable as error:
            raise StartError(str(error)) from error


def server_config(settings: Settings, app: object) -> uvicorn.Config:
    """The uvicorn settings of the service; the floor application of the benchmark runs under the very same ones (it has
    no hot routes, so that every request goes the ordinary way)."""
    import uvicorn

    from service.hot_protocol import HotProtocol

    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        factory=isinstance(app, str),
        workers=settings.workers,
        loop="uvloop",
        http=HotProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=settings.access_log,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.shutdown_s,
    )


def log_config(level: str) -> dict[str, object]:
    """One line per record on stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {"uvicorn.error": {"level": "WARNING"}, "numba": {"level": "WARNING"}},
    }


def _serve_here(settings: Settings, listener: socket.socket) -> int:
    import uvicorn

    from service.app import create_app

    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    server = uvicorn.Server(server_config(settings, create_app(settings, stop)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)  # uvicorn handles them, and raises them again when it is done
    server.run(sockets=[listener])
    if not failures:
        return 0
    if isinstance(failures[0], NotServable):
        raise StartError(failures[0].detail)
    cause = failures[0].__cause__
    if isinstance(cause, ArtefactError):
        raise cause
    return 1


def _serve_in_workers(settings: Settings, listener: socket.socket) -> int:
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    from models_export.reader import read_artefact

    registry, choice = Registry(settings.registry), scorer_choice(settings)
    refused: list[str] = []
    active = {name: version for name in registry.models() if (version := registry.active(name)) is not None}
    for name, version in active.items():  # one clear error here instead of one per worker
        artefact = read_artefact(registry.path(name, version))
        try:
            choice.provider_of(artefact)
        except OnnxUnavailable as error:
            refused.append(f"model {name!r} {version} is not served: {error}")
    if refused and len(refused) == len(active) and not settings.wait_for_model:
        raise StartError("; ".join(refused))
    os.environ.update(settings.environment())
    supervisor = Multiprocess(server_config(settings, "service.app:create_app_from_environment"), [listener])
    supervisor.run()
    return 1 if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes) else 0


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises `StartError`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise StartError(
            f"--host {settings.host} --port {settings.port}: cannot listen there ({error.strerror or error}); "
            "choose a free port, or --port 0 for any"
        ) from error
    listener.listen(BACKLOG)
    listener.set_inheritable(True)
    return listener


def url_of(settings: Settings, listener: socket.socket) -> str:
    """The server's URL."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}"


@contextlib.contextmanager
def _shared_folders(settings: Settings) -> Iterator[Settings]:
    """Temporary folders for what the workers share and no setting places: metrics, and contexts without Redis."""
    changes: dict[str, Path] = {}
    if settings.metrics_dir is None:
        changes["metrics_dir"] = Path(tempfile.mkdtemp(prefix="ctrank-metrics-"))
    if settings.workers > 1 and settings.redis_url is None and settings.context_store is None:
        changes["context_store"] = Path(tempfile.mkdtemp(prefix="ctrank-contexts-"))
    try:
        yield settings.model_copy(update=changes)
    finally:
        for path in changes.values():
            shutil.rmtree(path, ignore_errors=True)
