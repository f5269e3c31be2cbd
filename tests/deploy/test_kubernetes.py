"""The Kubernetes manifests: valid by the strict schemas, and every name, port, selector and duration at one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.deploy.files import DEPLOY, instructions, load
from tests.deploy.kustomize import Document, build, containers, target

MANIFESTS = DEPLOY / "kubernetes"
OVERLAYS = sorted(path.parent for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))
VERSION = "1.31"
ROOTS = [MANIFESTS / "base", *OVERLAYS]


def identify(path: Path) -> str:
    return path.name


@pytest.fixture(params=ROOTS, ids=identify)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    return build(request.param)


def pod(document: Document) -> Document:
    found: Document = document["spec"]["template"]["spec"]
    return found


def service_pod(documents: list[Document]) -> Document:
    return pod(target(documents, "Deployment", "ctrank"))


def seconds_of_sleep(command: list[str]) -> int:
    assert command[0] == "sleep"
    return int(command[1])


def test_the_schemas(documents: list[Document]) -> None:
    assert len(documents) >= 6
    for document in documents:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_mistake_would_be_seen(documents: list[Document]) -> None:
    found = target(documents, "HorizontalPodAutoscaler", "ctrank")
    found["spec"]["maxReplica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found, VERSION, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", ROOTS, ids=identify)
def test_kustomize_itself_builds_the_same(folder: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = re.sub(r"ctrank-settings-[0-9a-z]{10}\b", "ctrank-settings", done.stdout)

    def key(document: Document) -> tuple[str, str]:
        return document["kind"], document["metadata"]["name"]

    assert sorted(yaml.safe_load_all(text), key=key) == sorted(build(folder), key=key)


def test_every_file_is_part_of_a_kustomization() -> None:
    used = {MANIFESTS / "components" / "latency" / "adapter-rules.yaml"}
    for path in MANIFESTS.rglob("kustomization.yaml"):
        rules = load(path)
        used |= {path, *(path.parent / name for name in rules.get("resources", []))}
        used |= {path.parent / patch["path"] for patch in rules.get("patches", [])}
        used |= {path.parent / env for g in rules.get("configMapGenerator", []) for env in g.get("envs", [])}
    assert {path for path in MANIFESTS.rglob("*") if path.is_file()} <= used


def test_selectors_find_the_pods(documents: list[Document]) -> None:
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in documents if d["kind"] == "Deployment"]
    for document in documents:
        if document["kind"] in ("Service", "Deployment", "PodDisruptionBudget"):
            selector = document["spec"]["selector"]
            labels = selector.get("matchLabels", selector)
            fit = [found for found in pods if labels.items() <= found.items()]
            assert len(fit) == 1, f"{document['kind']} {document['metadata']['name']}"
    spread = service_pod(documents)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
    assert spread == target(documents, "Deployment", "ctrank")["spec"]["template"]["metadata"]["labels"]
    scaled = target(documents, "HorizontalPodAutoscaler", "ctrank")["spec"]["scaleTargetRef"]
    assert target(documents, scaled["kind"], scaled["name"])["apiVersion"] == scaled["apiVersion"]


def test_ports_have_the_names_that_are_asked_for(documents: list[Document]) -> None:
    ports = {port["name"] for container in containers(documents) for port in container.get("ports", [])}
    for document in documents:
        if document["kind"] == "Service":
            assert {port["targetPort"] for port in document["spec"]["ports"]} <= ports
    container = service_pod(documents)["containers"][0]
    own = {port["name"]: port["containerPort"] for port in container["ports"]}
    image = " ".join(rest for _, word, rest in instructions() if word == "ENV")
    assert f"CTRANK_PORT={own['http']}" in image
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"
    annotations = target(documents, "Deployment", "ctrank")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(own["http"])


def test_probes_ask_for_life_and_for_readiness(documents: list[Document]) -> None:
    """A registry that is still empty must not kill the pod: neither start nor life is about models."""
    container = service_pod(documents)["containers"][0]
    asked = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert asked == {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}


def test_the_settings_are_the_service_s(documents: list[Document]) -> None:
    data = target(documents, "ConfigMap", "ctrank-settings")["data"]
    if "redis+" in data["CTRANK_REDIS_URL"]:
        assert data["CTRANK_REDIS_URL"].startswith(("redis+cluster://", "redis+sentinel://"))
    settings = Settings.read({}, data)
    assert settings.wait_for_model and settings.redis_url
    spec = service_pod(documents)
    assert spec["containers"][0]["envFrom"][0]["configMapRef"]["name"] == "ctrank-settings"
    assert spec["enableServiceLinks"] is False  # CTRANK_PORT=tcp://... would stop the start


def test_termination_leaves_time_to_drain(documents: list[Document]) -> None:
    spec = service_pod(documents)
    settings = Settings.read({}, target(documents, "ConfigMap", "ctrank-settings")["data"])
    asleep = seconds_of_sleep(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"])
    readiness = spec["containers"][0]["readinessProbe"]
    assert asleep >= readiness["periodSeconds"] * readiness["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] >= asleep + settings.shutdown_s + 5


def test_containers_are_confined(documents: list[Document]) -> None:
    for container in containers(documents):
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] and not confined["allowPrivilegeEscalation"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} == set(container["resources"])
    for document in documents:
        if document["kind"] in ("Deployment", "Job"):
            spec = pod(document)
            assert spec["securityContext"]["runAsNonRoot"] and spec["automountServiceAccountToken"] is False
            mounted = [mount["name"] for c in spec["containers"] for mount in c["volumeMounts"]]
            assert sorted(mounted) == sorted(volume["name"] for volume in spec["volumes"])


def test_the_service_reads_the_registry_and_writes_its_caches(documents: list[Document]) -> None:
    spec = service_pod(documents)
    mounts = {m["mountPath"]: m for m in spec["containers"][0]["volumeMounts"]}
    assert mounts["/registry"]["readOnly"] is True
    claims: list[Any] = [v["persistentVolumeClaim"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [{"claimName": "ctrank-registry", "readOnly": True}]
    assert target(documents, "PersistentVolumeClaim", "ctrank-registry")
    assert "/var/cache/ctrank" in mounts and "/tmp" in mounts


def test_the_demo_has_what_it_needs() -> None:
    found = build(MANIFESTS / "overlays" / "demo")
    url = target(found, "ConfigMap", "ctrank-settings")["data"]["CTRANK_REDIS_URL"]
    host, port = url.removeprefix("redis://").split("/")[0].split(":")
    ports = target(found, "Service", host)["spec"]["ports"]
    assert int(port) in [p["port"] for p in ports]
    volumes = pod(target(found, "Job", "ctrank-trainer"))["volumes"]
    assert {"claimName": "ctrank-registry"} in [v.get("persistentVolumeClaim") for v in volumes]


def test_scaling_by_latency_asks_for_the_adapter_s_metric() -> None:
    found = build(MANIFESTS / "overlays" / "production")
    metrics = target(found, "HorizontalPodAutoscaler", "ctrank")["spec"]["metrics"]
    rules = load(MANIFESTS / "components" / "latency" / "adapter-rules.yaml")["rules"]
    assert metrics[0]["pods"]["metric"]["name"] == rules[0]["name"]["as"]
    assert [metric["type"] for metric in metrics] == ["Pods", "Resource"]


@pytest.mark.parametrize("folder", OVERLAYS, ids=identify)
def test_evictions_leave_replicas(folder: Path) -> None:
    found = build(folder)
    budget = target(found, "PodDisruptionBudget", "ctrank")["spec"]["maxUnavailable"]
    assert target(found, "HorizontalPodAutoscaler", "ctrank")["spec"]["minReplicas"] > budget
