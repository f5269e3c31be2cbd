"""Whole runs, as short as they can be: against a real service, and against a server that only fails."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.__main__ import main, run_parts
from loadtest.locust_run import HERE, locust_run
from loadtest.report import write_report
from loadtest.servers import Servers, start
from loadtest.target import TargetError
from tests.loadtest.stub_server import StubServer
from tests.tiny_artefact import publish_tiny

pytestmark = pytest.mark.timed

ONE_STEP = ("--user-rate", "20", "--step-users", "5", "--most-users", "5", "--stage-seconds", "1")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("registry")
    publish_tiny(root, n_items=1500)
    return root


@pytest.fixture(scope="module")
def servers(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with start(registry, None, tmp_path_factory.mktemp("items")) as running:
        yield running


def test_every_part_runs_and_the_report_is_written(servers: Servers, registry: Path, tmp_path: Path) -> None:
    options = argparse.Namespace(quick=True, objective_ms=1000.0, seed=0, out=tmp_path)
    summary = run_parts(options, servers, registry)
    text = write_report(tmp_path, summary)
    assert summary["passed"], text
    assert json.loads((tmp_path / "summary.json").read_text())["machine"]["cpu"]
    for part in ("steps", "thousand", "realistic", "soak"):
        stages = summary["parts"][part]["stages"]
        assert sum(s["errors"] for s in stages) == 0 < min(s["requests"] for s in stages)
        assert {s["server"] for s in stages} == ({"ctrank"} if part == "soak" else {"ctrank", "floor"})
        assert all(s["cores_used"] > 0 and s["memory_bytes"] > 1e7 for s in stages if s["server"] == "ctrank")
    rows = list(csv.DictReader((tmp_path / "stages.csv").open()))
    assert {row["part"] for row in rows} == {"steps", "thousand", "realistic", "soak"}
    assert (tmp_path / "capacity.png").read_bytes()[:4] == b"\x89PNG"
    assert "/rank" in (tmp_path / "steps.html").read_text()
    assert (tmp_path / "steps_stats.csv").read_text().count("/rank") >= 4
    assert "capacity at p99" in text and "| ctrank |" in text


def test_a_p99_above_the_objective_fails_the_run(servers: Servers, tmp_path: Path) -> None:
    found = locust_run("steps", servers.ours.url, tmp_path, [*ONE_STEP, "--objective-ms", "0.001"])
    assert not found["passed"] and found["capacity"]["per_s"] == 0
    assert [c["name"] for c in found["checks"] if not c["passed"]] == ["capacity"]
    assert len(found["stages"]) == 2  # a miss is measured again


def test_a_server_that_answers_500_fails_a_plain_run_with_exit_code_1(tmp_path: Path) -> None:
    with StubServer(status=500) as server:
        command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless", "--only-summary"]
        command += ["--host", server.url, "-u", "5", "-r", "5", "-t", "2s", "--result", str(tmp_path / "plain.json")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads((tmp_path / "plain.json").read_text())
    assert not found["passed"] and "status 500" in found["stages"][0]["faults"]
    assert "FAIL  errors and wrong answers" in done.stdout


def test_what_cannot_be_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--registry", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "expected a folder of published models" in capsys.readouterr().err
    with pytest.raises(TargetError, match="expected a result of the steps shape, found none"):
        locust_run("steps", "http://127.0.0.1:9", tmp_path, ONE_STEP)
