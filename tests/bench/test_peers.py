"""The comparison with other servers, without them: equality is enforced, turns are fair, nothing is left running."""

import json
import os
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest

from tests.bench.peers.functions import SCORERS, summary, take_turns
from tests.bench.peers.handlers import make_handler
from tests.bench.peers.http_load import Traffic, best_of, measure_server
from tests.bench.peers.process_tree import cpu_s, memory_bytes, stop, tree
from tests.bench.peers.report import draw, render
from tests.bench.peers.scorers import KernelScorer, NumpyScorer, PrecomputedScorer
from tests.bench.peers.servers import SERVERS, Server, running
from tests.bench.peers.workload import SIZES, Workload, check_reply, check_scores, draw_requests

pytestmark = pytest.mark.timed

N_ITEMS = 300


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return tmp_path_factory.mktemp("peers") / "registry"


@pytest.fixture(scope="module")
def workload(registry):
    return Workload.publish(registry, N_ITEMS)


@pytest.fixture(scope="module")
def request_(workload):
    return next(draw_requests(200, 1, N_ITEMS))


@pytest.mark.parametrize(("kind", "by_index"), [(KernelScorer, False), (PrecomputedScorer, True), (NumpyScorer, False)])
def test_the_scorers_compute_the_formula(workload, request_, kind, by_index):
    items = request_.index if by_index else workload.item_rows(request_)
    check_scores(kind.__name__, kind(workload)(workload.context_rows(request_), items), workload.expected(request_))


@pytest.mark.parametrize("kind", ["kernel", "numpy"])
@pytest.mark.parametrize("size", [100, 200])
def test_the_handlers_reply_with_the_best_items(registry, workload, kind, size):
    request = next(draw_requests(size, 1, N_ITEMS))
    check_reply(kind, make_handler(kind, registry)(request.body()), request, workload.expected(request))


@pytest.mark.parametrize("spoilt", ["another item", "another score", "fewer items", "no item"])
def test_a_wrong_reply_is_found_out(workload, request_, spoilt):
    expected = workload.expected(request_)
    order = np.argsort(-expected)
    items = [{"id": f"i{request_.index[p]}", "score": float(expected[p])} for p in order[:10]]
    check_reply("x", msgspec.json.encode({"items": items}), request_, expected)
    if spoilt == "another item":
        items[9] = {"id": f"i{request_.index[order[50]]}", "score": float(expected[order[50]])}
    elif spoilt == "another score":
        items[3]["score"] += 1e-3
    elif spoilt == "fewer items":
        items.pop()
    else:
        items[0]["id"] = "i-1"
    with pytest.raises(RuntimeError, match="x: expected"):
        check_reply("x", msgspec.json.encode({"items": items}), request_, expected)


def test_wrong_scores_are_found_out(workload, request_):
    expected = workload.expected(request_)
    check_scores("x", expected.astype(np.float32), expected)
    with pytest.raises(RuntimeError, match="x: expected the scores of the formula"):
        check_scores("x", expected + 1e-4 * np.abs(expected).max(), expected)


def test_everyone_gets_a_turn_in_each_round():
    called: list[str] = []
    calls = {"slow": lambda n: (called.append("slow"), time.sleep(0.002)), "quick": lambda n: called.append("quick")}
    found = take_turns(calls, 5, 0.001, np.random.default_rng(0))
    assert len(found["slow"]) == 5 and len(found["quick"]) > 5
    assert called.count("quick") == len(found["quick"])
    assert summary([1e-6] * 99 + [1e-3])["median_us"] == 1.0


def test_a_server_is_measured_and_nothing_is_left_running(registry, workload):
    requests = {size: list(draw_requests(100, 3, N_ITEMS)) for size in SIZES}
    traffic = Traffic(requests, {size: [workload.expected(r) for r in requests[size]] for size in SIZES})
    server = next(s for s in SERVERS if "NumPy" in s.name)
    with running(server, registry, traffic.bodies[100][0]) as (pid, port):
        found = measure_server(server, pid, port, traffic, budget_s=0.01)
    cell = found["cells"]["100"]["16"]
    assert cell["requests"] >= 30 and 0 < cell["median_us"] <= cell["p99_us"] and cell["per_s"] > 0
    assert found["memory"]["rss_bytes"] >= found["memory"]["pss_bytes"] > 1e6
    assert tree(pid) == []


def test_a_server_that_does_not_start_says_why(registry):
    with (
        pytest.raises(RuntimeError, match=r"broken: not ready: .*no such thing"),
        running(Server("broken", ("-c", "raise SystemExit('no such thing')")), registry, b"{}"),
    ):
        pass


def test_a_whole_tree_is_stopped():
    child = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); print(1, flush=True); {child}"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    pids = tree(process.pid)
    assert len(pids) == 2 and os.getpid() not in pids
    assert memory_bytes(process.pid)["processes"] == 2 and cpu_s(process.pid) >= 0
    stop(process, patience_s=0.3)
    assert tree(process.pid) == []


def figures():
    """Made-up figures of three servers, ctrank the best but for memory."""

    def server(factor, memory):
        cell = {"requests": 9, "median_us": 10.0 * factor, "p99_us": 20.0 * factor, "per_s": 90.0 / factor,
                "cpu_us": 5.0 * factor}  # fmt: skip
        cells = {str(size): {"1": cell, "16": cell} for size in SIZES}
        return {"cells": cells, "memory": {"pss_bytes": memory, "rss_bytes": memory, "processes": 1}, "passes": 2}

    times = {str(size): {"median_us": 1.0, "p99_us": 2.0, "calls": 3} for size in SIZES}
    machine = {"cpu": "x", "cores": 2, "caches": {}, "system": "s", "python": "3", "numpy": "2", "numba": "0"}
    return {
        "machine": machine, "versions": {"mosec": "1.0", "ray": None}, "budget_s": 1.0, "missing": {"Ray": "not here"},
        "functions": {name: times for name in SCORERS}, "failed": {},
        "servers": {"ctrank": server(1, 20e6), "mosec": server(2, 30e6), "tiny": server(4, 10e6)},
    }  # fmt: skip


def test_the_best_of_several_passes_is_kept():
    fast, slow = figures()["servers"]["ctrank"], figures()["servers"]["tiny"]
    best = best_of([slow, fast])
    assert best["cells"]["100"]["1"] == {**fast["cells"]["100"]["1"], "requests": 18}
    assert best["memory"]["pss_bytes"] == 20e6 and best["passes"] == 2


def test_the_report_says_who_wins(tmp_path):
    text = render(json.loads(json.dumps(figures())))
    assert "- median, 100 items: **ctrank** (2.00 times ahead of the next)" in text
    assert "- requests/s, 10,000 items: **ctrank** (2.00 times ahead of the next)" in text
    assert "- memory: **tiny** (ctrank 2.00 times behind)" in text
    assert "- Ray: not here" in text and "mosec 1.0" in text and "Failed" not in text
    draw(figures(), tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
