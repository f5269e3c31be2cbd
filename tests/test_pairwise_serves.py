"""Pairwise models, from the raw log to the reply: the catalogue's order and every score over HTTP are the trainer's."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models_export.reader import read_artefact
from tests import oracle
from tests.service.http.server_process import ServerProcess
from tests.training.data.test_user_items import write
from tests.training.prepared_log import write_log
from training.cli import main
from training.interactions import Interactions
from training.prepared import Prepared
from training.ranking import RankingSplit, sides
from training.ranking_metrics import top_items
from training.run import Run

FIT = ["--model", "fm", "--dim", "6", "--epochs", "8", "--batch-size", "64", "--init-std", "0.3", "--lr", "0.1"]
ITEMS = 40


def command(*words: object) -> None:
    assert main([str(w) for w in words]) == 0


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two logs, prepared, trained and published by the commands themselves: `implicit`, users and items alone, by BPR;
    `mixed`, clicks with side fields, by SharpCF."""
    folder = tmp_path_factory.mktemp("pairwise")
    rng = np.random.default_rng(3)
    liked = [rng.choice(np.arange(u % 2, ITEMS, 2), 12, replace=False) for u in range(25)]
    parts = (
        "".join(f"u{u} {' '.join(f'i{i}' for i in liked[u][s])}\n" for u in range(25)) for s in (slice(9), slice(9, 12))
    )
    for name, method, spec in (
        ("implicit", ["--method", "bpr"], lambda at: write(at, *parts)),
        ("mixed", ["--method", "sharpcf", "--start-epoch", "2", "--trajectory-epochs", "1"], write_log),
    ):  # fmt: skip
        at = folder / name
        at.mkdir()
        command("prepare", spec(at), "--data", at, "--out", at / "prepared")
        command("fit", at / "prepared", *FIT, *method, "--out", at / "run")
        command("export", at / "run", "--registry", folder / "registry", "--name", name, "--activate")
    return folder


@pytest.fixture(scope="module")
def server(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(work / "registry", default_model="implicit", cache_dir=tmp_path_factory.mktemp("i")) as running:
        yield running


def opened(work: Path, name: str) -> tuple[Prepared, Any]:
    from training.batches import Layout

    run = Run.open(work / name / "run")
    prepared = run.open_prepared()
    return prepared, run.restore(Layout.of(prepared.fields))[1].values


def test_the_catalogues_order_over_http_is_the_trainers(work: Path, server: ServerProcess) -> None:
    prepared, table = opened(work, "implicit")
    task = RankingSplit(Interactions(prepared), "test")
    users, ids = list(prepared.encoder.tables["user"]), list(prepared.items.ids)
    queries, _ = sides(table, task.context)
    g, beta = sides(table, task.interactions.items)
    everything = type(task.known)(np.zeros(len(users) + 1, dtype=np.int64), np.zeros(0, dtype=np.int32))
    best = top_items(queries, g, beta, task.users, everything, 10)
    for place, user in enumerate(task.users.tolist()):
        reply = server.rank(model="implicit", context={"user": users[user]}, top_k=10)
        assert reply.status_code == 200, reply.text
        items = reply.json()["items"]
        assert [i["id"] for i in items] == [ids[b] for b in best[place]]
        assert all(set(i) == {"id", "score"} for i in items), "a pairwise score is no probability"


def test_a_raw_line_of_an_implicit_log_gets_the_oracles_score(work: Path, server: ServerProcess) -> None:
    prepared, _ = opened(work, "implicit")
    artefact = read_artefact(next(iter(sorted((work / "registry" / "implicit").glob("v*")))))
    assert artefact.manifest.loss == "pairwise" and artefact.manifest.calibration.kind == "none"
    assert artefact.manifest.metrics["test_recall@10"] > 0.3
    weights = Run.open(work / "implicit" / "run").weights(_layout(prepared))
    pairs = [(line.split()[0], i) for line in (work / "implicit" / "train.txt").open() for i in line.split()[1:]][:60]
    instances = [{"context": {"user": u}, "item": {"item": i}} for u, i in pairs]
    reply = server.client.post("/score", json={"model": "implicit", "instances": instances})
    assert reply.status_code == 200, reply.text
    encoder = prepared.encoder
    for (user, item), found in zip(pairs, reply.json()["predictions"], strict=True):
        values = (("user", user, 0), ("item", item, 1))
        fields = [[(encoder.offsets[f] + encoder.encode_value(n, v)[0][0], 1.0)] for n, v, f in values]
        assert set(found) == {"score"}
        assert found["score"] == pytest.approx(oracle.fm(weights, fields), abs=1e-5)


def _layout(prepared: Prepared) -> Any:
    from training.batches import Layout

    return Layout.of(prepared.fields)


def test_a_raw_line_with_side_fields_gets_the_trainers_score(work: Path, server: ServerProcess) -> None:
    prepared, table = opened(work, "mixed")
    found = Interactions(prepared)
    pairs, row = found.pairs("valid"), prepared.split("valid")
    numbers = np.asarray(row.row_number)[np.asarray(row.label) > 0.5][:40]
    with (work / "mixed" / "log.csv").open() as log:
        lines = list(csv.DictReader(log))
    ids = list(prepared.items.ids)
    context, own = sides(table, pairs.context)
    g, beta = sides(table, found.items)
    bodies = [lines[n] for n in numbers.tolist()]
    contexts = [{"user": b["user"], "recent": b["recent"].split("|") if b["recent"] else []} for b in bodies]
    instances = [{"context": c, "item": {"item": b["item"]}} for c, b in zip(contexts, bodies, strict=True)]
    reply = server.client.post("/score", json={"model": "mixed", "instances": instances})
    assert reply.status_code == 200, reply.text
    expected = (context * g[pairs.item]).sum(1) + own + beta[pairs.item]
    served = [p["score"] for p in reply.json()["predictions"]]
    assert np.ptp(expected[: len(served)]) > 0.5
    assert served == pytest.approx(expected[: len(served)].tolist(), abs=1e-5)
    for place in range(5):
        ranked = server.rank(model="mixed", context=contexts[place], top_k=len(ids)).json()["items"]
        scores = {i["id"]: i["score"] for i in ranked}
        assert scores[ids[pairs.item[place]]] == pytest.approx(float(expected[place]), abs=1e-5)
