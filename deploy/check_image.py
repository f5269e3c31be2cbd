"""Build the images with buildah and try them as docker-compose.yml runs them, on a machine without a container engine.

    base image (pulled, or made by debootstrap) -> buildah: service, trainer -> sizes, contents, user
    -> trainer publishes a demo model, and on its second run finds it -> service beside a real Redis
    -> ready, ranks (from inside, from outside, contexts through Redis), health check, metrics, SIGTERM

Containers get what compose gives them: a read-only root, an unprivileged user, a process namespace of their own, and
tmpfs and volumes as the only writable places. Needs root, buildah, unshare, redis-server and, where the base image is
neither here nor within reach, debootstrap; the dashboard's queries are run where prometheus is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy"))

from container import Container, Image, run  # noqa: E402 - a sibling of this script
from probe import Probe, Prometheus, Redis, free_port  # noqa: E402

BASE = "python:3.11-slim"
LARGEST_SERVICE_MB = 900
ABSENT = ("torch", "onnx", "training", "pyarrow", "matplotlib")
READY_S = 120.0
# What a few good requests do not move.
IDLE = ("ctrank_offloaded_total", "ctrank_model_load_failures_total", "ctrank_unknown_values_total")


def main() -> int:
    """Run every step; 0 if all hold, 1 with the first that does not, 2 if this machine lacks a tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-flags", default=os.environ.get("BUILD_FLAGS", ""), help="more flags of `buildah bud`")
    parser.add_argument("--registry", type=Path, help="keep the trained registry here, and use it if it is there")
    arguments = parser.parse_args()
    missing = [tool for tool in ("buildah", "unshare", "redis-server") if shutil.which(tool) is None]
    if os.geteuid() or missing:
        print("image check: expected root" + "".join(f", {tool}" for tool in missing), file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ctrank-image-") as scratch:
        work = Path(scratch)
        work.chmod(0o755)
        base_image(work)
        service, trainer = (build(target, arguments.build_flags) for target in ("service", "trainer"))
        try:
            contents(service, trainer)
            registry = arguments.registry or work / "registry"
            train(trainer, registry, work)
            serve(service, registry, work)
        finally:
            service.close()
            trainer.close()
    print("image check: all steps hold")
    return 0


def base_image(work: Path) -> None:
    """The base image, from the local store, a registry, or debootstrap under its name."""
    if run("buildah", "inspect", "--type", "image", BASE, check=False).returncode == 0:
        return
    if run("buildah", "pull", BASE, check=False).returncode == 0:
        return
    step(f"{BASE} is not within reach: making a root of Debian bookworm, whose Python is 3.11, under its name")
    root = work / "bookworm"
    packages = "python3,python3-venv,ca-certificates"
    run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root))
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")  # the names that the image has
    shutil.rmtree(root / "var/cache/apt/archives")
    shutil.rmtree(root / "var/lib/apt/lists")
    container = run("buildah", "from", "scratch").stdout.strip()
    mounted = run("buildah", "mount", container).stdout.strip()
    run("cp", "-a", f"{root}/.", mounted)
    run("buildah", "umount", container)
    path = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
    run("buildah", "config", "--env", f"PATH={path}", container)
    run("buildah", "commit", "--rm", container, BASE)


def build(target: str, flags: str) -> Image:
    """Build one target of the Dockerfile, unchanged."""
    began = time.monotonic()
    name = f"ctrank-{target}"
    command = ["buildah", "bud", "--isolation", "chroot", "--layers", "--format", "docker", "--target", target]
    run(*command, "--tag", name, *flags.split(), str(ROOT), show=True)
    image = Image(name)
    step(f"built {name} in {time.monotonic() - began:.0f} s: {image.size_mb():.0f} MB unpacked")
    return image


def contents(service: Image, trainer: Image) -> None:
    """What the service's image must and must not hold, and who runs it."""
    with closing(Image(BASE)) as image:
        base = image.size_mb()
    size = service.size_mb()
    assert size < LARGEST_SERVICE_MB, f"service image: expected less than {LARGEST_SERVICE_MB} MB, found {size:.0f}"
    packages = service.root / "opt/ctrank/lib/python3.11/site-packages"
    found = [name for name in ABSENT if (packages / name).exists()]
    assert not found, f"service image: expected none of {ABSENT}, found {found}"
    for image in (service, trainer):
        user = image.config["User"]
        assert user == "10001:10001", f"{image.name}: expected user 10001:10001, found {user!r}"
    levels = sorted(path.name for path in (service.root / "opt/ctrank/kernels").iterdir())
    assert levels, "service image: expected compiled kernels, found none"
    step(f"service image: {base:.0f} MB of it the base image; kernels for {', '.join(levels)}; no {', '.join(ABSENT)}")


def train(trainer: Image, registry: Path, work: Path) -> None:
    """The one-shot trainer: publishes once."""
    for folder in (registry, work / "training"):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, 10001, 10001)
    volumes = {"/registry": (registry, "rw"), "/work": (work / "training", "rw")}
    for _ in range(2):
        began = time.monotonic()
        with Container(trainer, volumes) as container:
            code = container.wait(1800)
        assert code == 0, f"trainer: expected exit code 0, found {code}:\n{container.log()}"
        last = container.log().strip().splitlines()[-1]
        step(f"trainer: {time.monotonic() - began:.1f} s, {last}")
    assert "nothing to do" in last, f"trainer, second run: expected nothing to do, found {last!r}"


def serve(service: Image, registry: Path, work: Path) -> None:
    """The service with Redis: a first start in a fresh container, a second one with its cache, requests, the end."""
    cache = work / "cache"
    cache.mkdir()
    os.chown(cache, 10001, 10001)
    volumes = {"/registry": (registry, "ro"), "/var/cache/ctrank": (cache, "rw")}
    with Redis() as redis:
        port = free_port()
        settings = {
            "CTRANK_PORT": str(port),
            "CTRANK_REDIS_URL": redis.url,
            "CTRANK_WAIT_FOR_MODEL": "true",
            "CTRANK_CONTEXT_MAX_AGE_MS": "0",
        }
        for start in ("first", "second"):
            with Container(service, volumes, settings) as container:
                probe = Probe(f"http://127.0.0.1:{port}", container)
                step(f"service, {start} start: ready after {probe.wait_until_ready(READY_S):.2f} s")
                compiled = "compiling kernels" in container.log()
                assert not compiled, (
                    f"service: expected the image's kernels, found that it compiles:\n{container.log()}"
                )
                if start == "first":
                    requests(service, container, probe)
                began = time.monotonic()
                container.signal(signal.SIGTERM)
                code = container.wait(40)
                assert code == 0, f"SIGTERM: expected exit code 0, found {code}:\n{container.log()}"
                step(f"SIGTERM: exit code 0 after {time.monotonic() - began:.2f} s")
        code = Container(service, volumes, settings).execute(*health_command(service)).returncode
        assert code == 1, f"health check of a service that is gone: expected 1, found {code}"


def requests(service: Image, container: Container, probe: Probe) -> None:
    """Rank from outside and from inside, by context and by its id; health check; metrics."""
    best = probe.rank(context={}, top_k=3)
    step(f"POST /rank over loopback: {json.dumps(best)}")
    ids = [item["id"] for item in best["items"]]
    probe.rank(context={}, context_id="image-check", item_ids=ids)
    time.sleep(0.3)  # writes to Redis go out in the background
    by_id = probe.rank(context_id="image-check", item_ids=ids)
    assert by_id["context_source"] == "redis", f"by context_id: expected redis, found {by_id['context_source']!r}"
    assert [item["id"] for item in by_id["items"]] == ids, f"by context_id: expected {ids}, found {by_id['items']}"
    step("POST /rank by context_id alone: context from Redis, same order")
    code = (
        "import json, os, urllib.request as u; "
        "q = u.Request(f\"http://127.0.0.1:{os.environ['CTRANK_PORT']}/rank\", "
        'json.dumps({"context": {}, "top_k": 1}).encode(), {"content-type": "application/json"}); '
        'print(json.load(u.urlopen(q))["items"][0]["id"])'
    )
    inside = container.execute("python", "-c", code)
    assert inside.stdout.strip() == ids[0], f"from inside: expected {ids[0]}, found {inside.stdout}{inside.stderr}"
    step("POST /rank from inside the container: the same item")
    health = container.execute(*health_command(service))
    assert health.returncode == 0, (
        f"health check: expected 0, found {health.returncode}: {health.stdout}{health.stderr}"
    )
    step(f"HEALTHCHECK: {health.stdout.strip()}")
    if shutil.which("prometheus") is None:
        step("prometheus is not installed: the dashboard's queries are not run")
        return
    with Prometheus(probe.url, ROOT / "deploy") as prometheus:
        until = time.monotonic() + 8  # several scrapes: a rate needs two
        while time.monotonic() < until:
            probe.rank(context={}, context_id="image-check", item_ids=[*ids, "no such item"])
            time.sleep(0.05)
        answered, empty = prometheus.run_dashboard()
    step(f"Prometheus: the dashboard's {answered} queries are valid; without a sample here: {', '.join(empty)}")
    silent = [name for name in empty if name not in IDLE]
    assert not silent, f"Prometheus: expected samples of {silent}, found none"


def health_command(image: Image) -> list[str]:
    """The command of the image's HEALTHCHECK."""
    kind, *command = image.config["Healthcheck"]["Test"]
    assert kind == "CMD", kind
    return [str(part) for part in command]


def step(text: str) -> None:
    """Say what has been found."""
    print(f"- {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (AssertionError, subprocess.CalledProcessError, TimeoutError) as error:
        print(f"image check: {error}\n{getattr(error, 'stderr', '') or ''}", file=sys.stderr)
        sys.exit(1)
