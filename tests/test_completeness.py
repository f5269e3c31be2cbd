"""Nothing is registered half done: every family, method and experiment has all that a user relies on.

The checks themselves are tested: an incomplete family, method or experiment is found out, by everything that it lacks.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.completeness import (
    RESULTS,
    World,
    missing_of_experiment,
    missing_of_family,
    missing_of_method,
)
from tests.data_folder import ROOT
from training.experiment import load_experiment, shipped_experiments
from training.models import FAMILIES
from training.trainers.methods import TRAINERS
from training.trainers.pairwise import PairwiseTrainer
from training.trainers.settings import METHODS, PAIRWISE

PAGES = ("README.md", "training/experiments/README.md")


@pytest.fixture(scope="module")
def world() -> World:
    return World.real()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_is_complete(name, world):
    assert missing_of_family(name, FAMILIES[name], world) == []


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_complete(name, world):
    assert missing_of_method(name, PairwiseTrainer if name in PAIRWISE else TRAINERS[name], world) == []


@pytest.mark.parametrize("name", shipped_experiments())
def test_every_experiment_is_complete(name):
    pages = [(ROOT / page).read_text() for page in PAGES]
    assert missing_of_experiment(load_experiment(name), pages) == []


def test_what_is_offered_exported_and_served_is_registered(world):
    exported = {name: getattr(family, "exported_as", None) or name for name, family in FAMILIES.items()}
    assert set(world.exported) == set(exported.values()) == set(world.oracles) == set(world.graphs)
    assert set(world.kernels) == {exported[name] for name, family in FAMILIES.items() if family.compiled}
    assert set(world.offered_models) == set(FAMILIES)
    assert set(world.offered_methods) == set(METHODS) == {*TRAINERS, *PAIRWISE}


def test_committed_results_belong_to_experiments():
    names = {path.name.split(".")[0] for path in RESULTS.iterdir()}
    assert names <= set(shipped_experiments())


def test_an_incomplete_family_is_found_out(world):
    class Fake:
        pass

    assert missing_of_family("fake", Fake, world) == [
        "its own name", "citation", "formula", "cost", "oracle formula", "oracle test", "learning test",
        "a place in the manifest", "artefact round trip", "--model", "README", "FORMAT.md", "scorer twin test",
        "ranking test", "HTTP test", "HTTP twin test", "ONNX graphs", "ONNX oracle test", "kernel",
        "kernel oracle test", "twin test", "scorer test",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ({"oracles": {}}, ["oracle formula"]),
        ({"kernels": {}}, ["kernel"]),
        ({"graphs": {}}, ["ONNX graphs"]),
        ({"readme": "fm"}, ["README"]),
        ({"format_page": ""}, ["FORMAT.md"]),
        ({"exported": ("fwfm",)}, ["a place in the manifest"]),
        ({"offered_models": ()}, ["--model"]),
    ],
)
def test_each_thing_that_a_family_loses_is_named(world, taken, expected):
    assert missing_of_family("dplr", FAMILIES["dplr"], replace(world, **taken)) == expected


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("tests/models_export", ["ONNX oracle test"]),
        ("tests/service/http", ["HTTP test", "HTTP twin test"]),
        ("tests/service/kernels", ["kernel oracle test", "twin test"]),
        ("tests/service/ranking", ["ranking test"]),
        ("tests/service/scorers", ["scorer twin test", "scorer test"]),
        ("tests/training", ["oracle test", "learning test", "artefact round trip"]),
    ],
)
def test_tests_that_a_family_loses_are_named(world, folder, expected):
    """As if the family were missing in the parametrisation of these tests."""
    tests = tuple(
        replace(t, name="test", words=t.words - {"dplr"}) if t.file.startswith(folder) else t for t in world.tests
    )
    assert missing_of_family("dplr", FAMILIES["dplr"], replace(world, tests=tests)) == expected


def test_a_citation_must_be_told_in_the_docstring(world):
    class Uncited(FAMILIES["fm"]):
        """Score = something, so much per item."""

    assert missing_of_family("fm", Uncited, world) == ["citation", "formula"]


def test_an_incomplete_method_is_found_out(world):
    class Fake:
        pass

    Fake.__module__ = "json"
    found = missing_of_method("fake", Fake, world)
    assert found == ["--method", "docstring", "citation", "test", "test of resumption", "README"]


def test_an_incomplete_experiment_is_found_out(tmp_path):
    experiment = load_experiment("shtoff2024_dplr_movielens1m")
    bare = replace(experiment, name="DPLR", paper="", notes=(), claims=(), rows=())
    found = missing_of_experiment(bare, [""], tmp_path)
    assert found[:6] == [
        "<author><year>_<model>_<dataset>", "paper with year", "published figures", "claims", "notes",
        "a page that names it",
    ]  # fmt: skip
    assert found[6:] == ["results/DPLR.json", "results/DPLR.md", "results/DPLR.png"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('"quick": false', '"quick": true'), ["results of the whole experiment"]),
        (('"dim": 8', '"dim": 9'), ["results of these settings"]),
        (('"commit": "', '"commit": "+'), ["commit"]),
        (('"processor": "', '"other": "'), ["machine"]),
        (('"FM"', '"MF"'), ["results of the whole experiment", "results of these settings"]),
        (('"fingerprints": [\n      "', '"fingerprints": [\n      "x'), ["data fingerprint"]),
    ],
)
def test_results_that_are_not_the_experiments_are_found_out(tmp_path, change, expected):
    name = "shtoff2024_dplr_movielens1m"
    for kind in ("json", "md", "png"):
        (tmp_path / f"{name}.{kind}").write_bytes((RESULTS / f"{name}.{kind}").read_bytes())
    text = (tmp_path / f"{name}.json").read_text()
    assert change[0] in text
    (tmp_path / f"{name}.json").write_text(text.replace(*change))
    assert missing_of_experiment(load_experiment(name), [name], tmp_path) == expected
