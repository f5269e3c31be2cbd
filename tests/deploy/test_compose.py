"""docker-compose.yml: valid by the compose specification, and at one with the image and the service's settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.deploy.files import ROOT, compose, instructions

SERVICES: dict[str, Any] = compose()["services"]
LASTING = [name for name in SERVICES if name not in ("trainer", "loadtest")]


def seconds(text: str) -> int:
    """A duration such as `35s`."""
    assert text.endswith("s"), text
    return int(text[:-1])


def mounts(name: str) -> dict[str, tuple[str, str]]:
    """Mount point -> (source, mode)."""
    found = {}
    for volume in SERVICES[name].get("volumes", []):
        source, target, *mode = volume.split(":")
        found[target] = (source, mode[0] if mode else "rw")
    return found


def test_the_compose_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stack_is_whole() -> None:
    assert {"service", "redis", "trainer", "prometheus", "grafana", "loadtest"} == set(SERVICES)
    assert SERVICES["loadtest"]["profiles"] == ["loadtest"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["loadtest"]


def test_the_settings_are_the_service_s() -> None:
    settings = Settings.read({}, SERVICES["service"]["environment"])
    assert settings.wait_for_model
    image = dict(
        word.split("=", 1)
        for stage, instruction, rest in instructions()
        if (stage, instruction) == ("service-base", "ENV")
        for word in rest.split()
    )
    settings = Settings.read({}, {**image, **SERVICES["service"]["environment"]})
    assert settings.host == "0.0.0.0" and f"{settings.port}:8000" in SERVICES["service"]["ports"]
    assert mounts("service")[str(settings.registry)] == ("registry", "ro")
    assert mounts("service")[str(settings.cache_dir)] == ("kernels", "rw")
    assert settings.redis_url == "redis://redis:6379/0"
    assert seconds(SERVICES["service"]["stop_grace_period"]) > settings.shutdown_s


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_depends_on_can_be_waited_for(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"
        if how["condition"] == "service_completed_successfully":
            assert SERVICES[other]["restart"] == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_bounded_and_hardened(name: str) -> None:
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= set(limits)
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", LASTING)
def test_what_stays_up_is_checked_and_restarted(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_are_declared_and_files_are_there(name: str) -> None:
    for source, mode in mounts(name).values():
        if source.startswith("./"):
            assert (ROOT / source).exists() and mode == "ro", source
        else:
            assert source in compose()["volumes"]


def test_every_volume_is_used() -> None:
    assert {source for name in SERVICES for source, _ in mounts(name).values() if source[0] != "."} == set(
        compose()["volumes"]
    )


def test_images_are_built_from_the_dockerfile_or_pinned() -> None:
    targets = {stage for stage, _, _ in instructions()}
    arguments = {rest.split("=")[0] for _, word, rest in instructions() if word == "ARG"}
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["build"]["target"] in targets
            assert set(service["build"]["args"]) <= arguments
            assert service["image"] == f"ctrank-{service['build']['target']}"
        else:
            tag = service["image"].rpartition(":")[2]
            assert tag[0] in "v0123456789", f"{name}: an image without a version"


def test_the_registry_is_written_by_the_trainer_alone() -> None:
    modes = {name: mode for name in SERVICES for source, mode in mounts(name).values() if source == "registry"}
    assert modes == {"service": "ro", "trainer": "rw", "loadtest": "ro"}


def test_the_health_check_is_the_image_s() -> None:
    check = next(rest for _, word, rest in instructions() if word == "HEALTHCHECK")
    assert SERVICES["service"]["healthcheck"]["test"][-1] in check


def test_locust_finds_the_service() -> None:
    environment = SERVICES["loadtest"]["environment"]
    assert environment["LOCUST_HOST"] == "http://service:8000"
    assert environment["LOADTEST_REGISTRY"] in mounts("loadtest")
    assert Path(ROOT / "loadtest" / "locustfile.py").exists()
