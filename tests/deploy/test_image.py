"""The Dockerfile and what it puts into an image; `make image-check` builds and runs it."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from fnmatch import fnmatch
from pathlib import Path

import pytest

from service.kernels._simd import Machine
from service.settings import Settings
from tests.deploy.files import DEPLOY, ROOT, instructions

IMAGE = DEPLOY / "image"
FINAL = ("service", "gpu", "trainer", "loadtest")


def stage_chain(stage: str) -> list[str]:
    """A stage and those that it is made from."""
    parents = {s: rest.split(" AS ")[0] for s, word, rest in instructions() if word == "FROM"}
    chain = [stage]
    while parents[chain[-1]] in parents:
        chain.append(parents[chain[-1]])
    return chain


def last(stage: str, word: str) -> str | None:
    """The instruction that holds in an image."""
    for name in stage_chain(stage):
        found = [rest for s, w, rest in instructions() if (s, w) == (name, word)]
        if found:
            return found[-1]
    return None


def levels() -> dict[str, tuple[str, list[str]]]:
    """Level -> (LLVM's features, flags of /proc/cpuinfo)."""
    lines = [line for line in (IMAGE / "levels").read_text().splitlines() if not line.startswith("#")]
    return {name: (features, flags.split()) for name, features, flags in (line.split("|") for line in lines)}


def test_hadolint() -> None:
    tool = Path(sys.executable).parent / "hadolint"
    command = [str(tool), "--no-color", "--config", str(DEPLOY / "hadolint.yaml"), str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", FINAL)
def test_no_image_runs_as_root_or_keeps_the_build_tools(target: str) -> None:
    assert last(target, "USER") == "10001:10001"
    assert "dependencies" not in stage_chain(target)


def test_the_service_stops_and_is_checked_as_it_expects() -> None:
    for target in ("service", "gpu"):
        assert last(target, "STOPSIGNAL") == "SIGTERM"
        assert "/opt/ctrank/image/healthcheck.py" in str(last(target, "HEALTHCHECK"))
        assert str(last(target, "ENTRYPOINT")).startswith("["), "a shell would not hand on SIGTERM"
    assert instructions()[-1][0] == "service"  # what `docker build .` makes


def test_the_gpu_s_settings_are_the_service_s() -> None:
    variables = dict(word.split("=", 1) for word in str(last("gpu", "ENV")).split())
    settings = Settings.read({}, variables)
    assert (settings.scorer, settings.onnx_provider) == ("onnx", "cuda")


def test_the_service_has_no_torch() -> None:
    installs = [rest for stage, word, rest in instructions() if word == "RUN" and stage in ("dependencies", "package")]
    assert not any(".[train]" in rest or "TORCH" in rest for rest in installs)


def test_what_is_copied_is_there_and_in_the_build_context() -> None:
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignore[0] == "*"
    kept = [line[1:] for line in ignore if line[0] == "!"]
    copied = set()
    for _, word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            copied |= set(rest.split()[:-1])
    assert copied <= set(kept)
    for name in copied:
        assert (ROOT / name).exists(), name
    for line in ignore:
        if line[0] not in "*!":
            assert not any(fnmatch(name, line) for name in copied)


@pytest.mark.parametrize("script", ["entrypoint", "compile-kernels"])
def test_scripts_are_sound(script: str) -> None:
    path = IMAGE / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["sh", "-n", str(path)]).returncode == 0


def test_levels_are_what_the_kernels_know() -> None:
    """Best first; each needs all that the next one needs, and what it lets the kernels use it asks for."""
    lanes = [Machine.of(features).lanes for features, _ in levels().values()]
    assert lanes == [16, 8]
    needs = [set(flags) for _, flags in levels().values()]
    assert needs[0] > needs[1]
    for features, flags in levels().values():
        assert {feature.removeprefix("+") for feature in features.split(",")} <= set(flags)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The image's folder of scripts, and kernels of every level beside it."""
    folder = tmp_path / "ctrank" / "image"
    shutil.copytree(IMAGE, folder)
    for level in levels():
        (tmp_path / "ctrank" / "kernels" / level / "kernels").mkdir(parents=True)
        (tmp_path / "ctrank" / "kernels" / level / "kernels" / level).touch()
    return folder


def enter(image: Path, cache: Path, **environ: str) -> list[str]:
    """What a command sees that the entry point starts: processor and features."""
    environ = {"PATH": os.environ["PATH"], "CTRANK_CACHE_DIR": str(cache), **environ}
    command = [str(image / "entrypoint"), "sh", "-c", 'echo "${NUMBA_CPU_NAME:-none}|${NUMBA_CPU_FEATURES:-none}"']
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip().split("|")


def test_the_entry_point_takes_the_best_kernels_of_the_machine(image: Path, tmp_path: Path) -> None:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next((line.split(":")[1] for line in cpuinfo if line.startswith("flags")), "").split())
    fit = [level for level, (_, needed) in levels().items() if flags >= set(needed)]
    cache = tmp_path / "cache"
    cache.mkdir()
    if not fit:
        assert enter(image, cache) == ["none", "none"]
        return
    assert enter(image, cache) == [fit[0], levels()[fit[0]][0]]
    assert [path.name for path in (cache / "kernels").iterdir()] == [fit[0]]
    (cache / "kernels" / "own").touch()
    shutil.rmtree(image.parent / "kernels" / fit[0])  # an image built where this level could not be compiled
    assert enter(image, cache)[0] == (fit[1] if len(fit) > 1 else "none")
    assert (cache / "kernels" / "own").exists()


def test_the_entry_point_leaves_a_processor_that_is_named(image: Path, tmp_path: Path) -> None:
    assert enter(image, tmp_path / "cache", NUMBA_CPU_NAME="znver4") == ["znver4", "none"]
    assert not (tmp_path / "cache").exists()


def test_the_entry_point_hands_on_command_and_exit_code(image: Path, tmp_path: Path) -> None:
    command = [str(image / "entrypoint"), "sh", "-c", "exit 7"]
    assert subprocess.run(command, env={**os.environ, "CTRANK_CACHE_DIR": str(tmp_path)}).returncode == 7


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_health_check(status: int | None, code: int) -> None:
    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status or 500 if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_port) if status else "1"
        command = [sys.executable, "-I", "-S", str(IMAGE / "healthcheck.py")]
        done = subprocess.run(command, env={"CTRANK_PORT": port}, capture_output=True, timeout=20)
        server.shutdown()
    assert done.returncode == code, done.stderr
