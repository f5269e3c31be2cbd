"""Prometheus and Grafana: every query is well-formed and asks for what the service really exposes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest

from service.metrics import FAMILIES
from tests.deploy.files import DEPLOY, compose, dashboard, load
from tests.service.http.server_process import ServerProcess

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SERVICES = compose()["services"]


def labels_of(metric: str) -> set[str]:
    """The labels that a sample of a metric of ours has, once it is scraped."""
    for name, family in FAMILIES.items():
        for suffix in SUFFIXES[family.kind]:
            if metric == name + suffix:
                return {"job", "instance", *family.labels, *(["le"] if suffix == "_bucket" else [])}
    raise AssertionError(f"no metric {metric}")


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def alerts() -> list[dict[str, str]]:
    return [rule for group in load(DEPLOY / "prometheus" / "rules.yml")["groups"] for rule in group["rules"]]


def adapter_queries() -> list[str]:
    rules = load(DEPLOY / "kubernetes" / "components" / "latency" / "adapter-rules.yaml")["rules"]
    return [r["metricsQuery"].replace("<<.GroupBy>>", "job").replace("<<.LabelMatchers>>", 'job="x"') for r in rules]


QUERIES = [*dashboard_queries(), *(rule["expr"] for rule in alerts()), *adapter_queries()]


def parts(query: str) -> Iterator[object]:
    """Every expression inside a query."""
    seen: list[object] = []
    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "1m")), seen.append)
    return iter(seen)


def selectors(query: str) -> list[promql_parser.VectorSelector]:
    return [part for part in parts(query) if isinstance(part, promql_parser.VectorSelector)]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of all samples that a service can expose, by the types that it states at /metrics."""
    with ServerProcess(tmp_path_factory.mktemp("registry"), wait=False, wait_for_model=True) as server:
        server.wait_until_listening()
        text = server.client.get("/metrics").text
    found = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        found |= {name} if kind == "counter" else {name + suffix for suffix in SUFFIXES[kind]}
    assert "ctrank_requests_total" in found and "ctrank_request_seconds_bucket" in found
    return found


def test_every_metric_is_exposed(exposed: set[str]) -> None:
    asked = {selector.name for query in QUERIES for selector in selectors(query)} - {"up"}
    assert len(asked) > 10
    assert asked <= exposed, f"not at /metrics: {sorted(asked - exposed)}"


@pytest.mark.parametrize("query", QUERIES)
def test_every_label_is_the_metric_s(query: str) -> None:
    known: set[str] = set()
    for selector in selectors(query):
        labels = {"job", "instance"} if selector.name == "up" else labels_of(selector.name)
        known |= labels
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
    for part in parts(query):
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            assert set(part.modifier.labels) <= known, query


def test_legends_name_labels_of_their_query() -> None:
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = set(re.findall(r"by \(([^)]*)\)", target["expr"])[0].split(", ")) if named else set()
            assert named <= grouped, panel["title"]


def test_the_dashboard_shows_what_an_engineer_asks_first() -> None:
    shown = " ".join(dashboard_queries())
    for metric in ("requests_total", "candidates_total", "context_source_total", "cache_hits_total", "breaker_state"):
        assert f"ctrank_{metric}" in shown
    assert "histogram_quantile(0.5," in shown and "histogram_quantile(0.99," in shown
    assert "ctrank_unknown_values_total" in shown
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_prometheus_scrapes_the_compose_service() -> None:
    config = load(DEPLOY / "prometheus" / "prometheus.yml")
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    found = jobs["ctrank"]["dns_sd_configs"][0]
    assert found["names"] == ["service"] and set(found["names"]) <= set(SERVICES)
    assert f"8000:{found['port']}" in SERVICES["service"]["ports"]
    for name in config["rule_files"]:
        assert (DEPLOY / "prometheus" / name).exists()
    assert "./deploy/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]


def test_alerts_say_what_is_wrong() -> None:
    assert len({rule["alert"] for rule in alerts()}) == len(alerts()) > 4
    for rule in alerts():
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "ticket")


def test_grafana_is_provisioned() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    source = load(folder / "datasources" / "prometheus.yml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in SERVICES
    used = {panel["datasource"]["uid"] for panel in dashboard()["panels"]}
    assert used == {source["uid"]} and source["type"] == "prometheus"
    volumes = dict(volume.split(":")[:2][::-1] for volume in SERVICES["grafana"]["volumes"])
    path = load(folder / "dashboards" / "ctrank.yml")["providers"][0]["options"]["path"]
    assert Path(volumes[path]) == Path("deploy/grafana/dashboards")
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{path}/ctrank.json"
