"""Images of buildah's store, and containers of them without an engine: unshare and chroot, set up as compose would."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

Volumes = Mapping[str, tuple[Path, str]]
"""Mount point -> (folder, "ro" or "rw")."""


def run(*command: str, check: bool = True, show: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is kept, or shown as it comes."""
    pipe = None if show else subprocess.PIPE
    return subprocess.run(command, check=check, text=True, stdout=pipe, stderr=sys.stdout if show else subprocess.PIPE)


class Image:
    """An image in buildah's store, mounted for reading."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._container = ""

    @cached_property
    def root(self) -> Path:
        """Its file system."""
        self._container = run("buildah", "from", "--pull-never", self.name).stdout.strip()
        return Path(run("buildah", "mount", self._container).stdout.strip())

    @cached_property
    def config(self) -> dict[str, Any]:
        """User, Env, Entrypoint, Cmd, Healthcheck..."""
        found = json.loads(run("buildah", "inspect", "--type", "image", self.name).stdout)
        config: dict[str, Any] = found["Docker"]["config"]
        return config

    def close(self) -> None:
        """Unmount it; the image stays in the store."""
        if self._container:
            run("buildah", "rm", self._container)

    def size_mb(self) -> float:
        """Megabytes (10^6 bytes) of disk that the unpacked image takes."""
        return int(run("du", "--summarize", "--block-size=1", str(self.root)).stdout.split()[0]) / 1e6


class Container:
    """The image's entry point and command as the image's user and process 1 of a namespace, with a read-only root and a
    /tmp of its own. The network is the machine's."""

    def __init__(self, image: Image, volumes: Volumes, environment: Mapping[str, str] | None = None) -> None:
        self.image = image
        self._volumes = volumes
        image_environment = dict(entry.split("=", 1) for entry in image.config["Env"])
        self._environment = {**image_environment, "HOME": "/tmp", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the container

    def __enter__(self) -> Container:
        config = self.image.config
        command = self._command([*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])])
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()  # and with it, by --kill-child, process 1
            self._process.wait()

    def log(self) -> str:
        """Its output so far."""
        return os.pread(self._output.fileno(), 1 << 20, 0).decode(errors="replace")

    def has_ended(self) -> bool:
        """Whether process 1 has ended."""
        assert self._process is not None
        return self._process.poll() is not None

    def wait(self, timeout_s: float) -> int:
        """The exit code; ``TimeoutError`` with the log if it does not end in time."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.image.name}: still running after {timeout_s} s:\n{self.log()}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to process 1, as an engine does."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        os.kill(int(children[0]), number)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command in the same surroundings (another process namespace, the same network)."""
        return run(*self._command(list(command)), check=False)

    def _command(self, command: list[str]) -> list[str]:
        root, q = str(self.image.root), shlex.quote
        lines = ["set -e", f"mount --bind {q(root)} {q(root)}"]
        for target, (folder, mode) in self._volumes.items():
            place = f"{q(root + target)}"
            lines.append(f"mount --bind {q(str(folder))} {place}")
            if mode == "ro":
                lines.append(f"mount -o remount,bind,ro {place}")
        lines += [
            f"mount -t tmpfs -o mode=1777 tmpfs {q(root)}/tmp",
            f"mount -t proc proc {q(root)}/proc",
            f"mount --rbind /dev {q(root)}/dev",
            f"mount -o remount,bind,ro {q(root)}",
        ]
        variables = " ".join(q(f"{name}={value}") for name, value in self._environment.items())
        inside = f"cd {q(self.image.config['WorkingDir'] or '/')} && exec {shlex.join(command)}"
        user = self.image.config["User"]
        lines.append(f"exec env -i {variables} chroot --userspec={user} {q(root)} /bin/sh -c {q(inside)}")
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        return [*namespaces, "/bin/sh", "-c", "\n".join(lines)]
