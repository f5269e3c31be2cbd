"""What a check of a running service needs around it: requests, a Redis, a Prometheus that scrapes it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from container import Container, run


class Probe:
    """Requests to a service in a container."""

    def __init__(self, url: str, container: Container) -> None:
        self.url = url
        self._container = container
        self._began = time.monotonic()

    def wait_until_ready(self, timeout_s: float) -> float:
        """Seconds until the first 200 of /readyz; ``TimeoutError`` with the log."""
        while not self._container.has_ended() and time.monotonic() - self._began < timeout_s:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz"):
                    return time.monotonic() - self._began
            except OSError:
                time.sleep(0.02)
        raise TimeoutError(f"{self.url}: not ready:\n{self._container.log()}")

    def rank(self, **body: object) -> dict[str, Any]:
        """POST /rank."""
        head = {"content-type": "application/json"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{self.url}/rank", json.dumps(body).encode(), head)
            ) as r:
                reply: dict[str, Any] = json.loads(r.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"POST /rank {body}: expected 200, found {error}: {error.read()!r}") from None
        return reply


class Redis:
    """A redis-server on a free loopback port."""

    def __enter__(self) -> Redis:
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.url = f"redis://127.0.0.1:{port}/0"
        wait_for_port(port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()


def free_port() -> int:
    """A TCP port that is free on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, timeout_s: float = 20.0) -> None:
    """Return once something listens; ``TimeoutError``."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(f"port {port}: nothing listens after {timeout_s} s")


class Prometheus:
    """A Prometheus with the committed configuration that scrapes ``url`` every second, on a free loopback port."""

    def __init__(self, url: str, folder: Path) -> None:
        self._target = urllib.parse.urlsplit(url).netloc
        self._folder = folder

    def __enter__(self) -> Prometheus:
        self._scratch = tempfile.TemporaryDirectory()
        for name in ("prometheus.yml", "rules.yml"):
            text = (self._folder / "prometheus" / name).read_text()
            discovery = re.compile(r"    dns_sd_configs:\n(      .*\n)+")
            text = discovery.sub(f"    static_configs:\n      - targets: ['{self._target}']\n", text)
            (Path(self._scratch.name) / name).write_text(text.replace("scrape_interval: 5s", "scrape_interval: 1s"))
        config = f"{self._scratch.name}/prometheus.yml"
        run("promtool", "check", "config", config)
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        flags = [f"--config.file={config}", f"--storage.tsdb.path={self._scratch.name}/data", "--log.level=error"]
        self._process = subprocess.Popen(["prometheus", *flags, f"--web.listen-address=127.0.0.1:{port}"])
        wait_for_port(port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._scratch.cleanup()

    def run_dashboard(self) -> tuple[int, list[str]]:
        """Run the dashboard's queries: their number, and the metrics of those without a sample. ``AssertionError`` for
        one that is refused."""
        dashboard = json.loads((self._folder / "grafana/dashboards/ctrank.json").read_text())
        queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        empty: set[str] = set()
        for expression in queries:
            filled = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
            query = urllib.parse.urlencode({"query": filled})
            try:
                with urllib.request.urlopen(f"{self._url}/api/v1/query?{query}") as reply:
                    result = json.loads(reply.read())["data"]["result"]
            except urllib.error.HTTPError as error:
                raise AssertionError(f"query {filled!r}: {error.read().decode()}") from None
            if not result:
                empty |= set(re.findall(r"ctrank_\w+", expression))
        return len(queries), sorted(empty)
