"""Train equals serve: raw MovieLens lines, joined here by hand, get over HTTP the trainer's own probability."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models_export.registry import Registry
from tests.data_folder import data_folder
from tests.service.http.server_process import ServerProcess
from training.artefact import publish_run
from training.batches import Layout
from training.prepare import prepare
from training.prepared import Prepared
from training.run import Run, fit, labelled
from training.trainers.plain import predict
from training.trainers.settings import FitSettings, defaults

FAMILIES = ["fm", "fwfm", "pruned_fwfm", "dplr", "rafm", "difacto", "llfm"]
USERS = 60  # the first users of the log: enough to learn from, quick to train on
CHECKED = 150


def lines(folder: Path, name: str) -> list[list[str]]:
    path = folder / "ml-1m" / f"{name}.dat.gz"
    data = gzip.decompress(path.read_bytes()) if path.exists() else path.with_suffix("").read_bytes()
    return [line.split("::") for line in data.decode("latin-1").split("\n") if line]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original files, with the ratings of the first users only."""
    source, target = data_folder("ml-1m"), tmp_path_factory.mktemp("data")
    (target / "ml-1m").mkdir()
    for name in ("users", "movies", "ratings"):
        kept = [r for r in lines(source, name) if name != "ratings" or int(r[0]) <= USERS]
        text = "".join("::".join(row) + "\n" for row in kept)
        (target / "ml-1m" / f"{name}.dat").write_bytes(text.encode("latin-1"))
    return target


@pytest.fixture(scope="module")
def prepared(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare("movielens-1m", small, tmp_path_factory.mktemp("prepared") / "p").open()


@pytest.fixture(scope="module")
def runs(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Every family, trained for three epochs with larger first weights, so that interactions count."""
    out = {}
    for family in FAMILIES:
        settings = FitSettings(
            model=family,
            dim=6,
            rank=2 if family in ("dplr", "pruned_fwfm") else None,
            loss="logistic",
            epochs=3,
            calibration="isotonic" if family == "fm" else "platt",
            **defaults(family, "logistic", "adagrad") | {"init_std": 0.3},
        )
        out[family] = fit(prepared, settings, tmp_path_factory.mktemp("runs") / family)
    return out


@pytest.fixture(scope="module")
def registry(prepared: Prepared, runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("registry")
    for family, run in runs.items():
        publish_run(run, prepared, Registry(root), family, activate=True)
    return root


def raw_requests(small: Path, rows: np.ndarray) -> list[dict[str, Any]]:
    """What a client that holds the raw log would send for these 0-based log lines."""
    users = {
        u[0]: dict(zip(("user_id", "gender", "age", "occupation", "zip"), u, strict=True))
        for u in lines_of(small, "users")
    }
    movies = {m[0]: m for m in lines_of(small, "movies")}
    ratings = lines_of(small, "ratings")
    out = []
    for row in rows.tolist():
        user, movie = ratings[row][:2]
        _, title, genres = movies[movie]
        item = {"movie_id": movie, "genres": genres.split("|"), "year": title.rstrip()[-5:-1]}
        out.append({"context": users[user], "item": item})
    return out


def lines_of(small: Path, name: str) -> list[list[str]]:
    text = (small / "ml-1m" / f"{name}.dat").read_bytes().decode("latin-1")
    return [line.split("::") for line in text.split("\n") if line]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_raw_line_gets_the_trainers_probability(
    family: str, small: Path, prepared: Prepared, runs: dict[str, Run], server: ServerProcess
) -> None:
    run = runs[family]
    score = predict(*run.restore(Layout.of(prepared.fields)), labelled(prepared, "test"))
    expected = run.calibration.probability(score)
    assert np.ptp(expected[:CHECKED]) > 0.2, "the model says the same of every line: nothing is tested"

    requests = raw_requests(small, np.asarray(prepared.split("test").row_number[:CHECKED]))
    reply = server.client.post("/score", json={"model": family, "instances": requests})
    assert reply.status_code == 200, reply.text
    served = np.array([p["probability"] for p in reply.json()["predictions"]])
    assert np.abs(served - expected[:CHECKED]).max() <= 1e-5

    for position, instance in enumerate(requests[:20]):
        movie = instance["item"]["movie_id"]
        by_id = server.rank(model=family, context=instance["context"], item_ids=[movie])
        inline = {"id": movie, "fields": instance["item"]}
        by_value = server.rank(model=family, context=instance["context"], items=[inline])
        for found in (by_id, by_value):
            assert found.status_code == 200, found.text
            assert found.json()["items"][0]["probability"] == pytest.approx(expected[position], abs=1e-5)


@pytest.fixture(scope="module")
def server(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with ServerProcess(registry, default_model="dplr", cache_dir=tmp_path_factory.mktemp("items")) as running:
        yield running
