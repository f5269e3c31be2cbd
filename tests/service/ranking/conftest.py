"""Small models of every family."""

from __future__ import annotations

from pathlib import Path

import pytest

from models_export.manifest import FAMILIES
from service.ranking import RankingModel
from service.scorers.numba_scorer import KERNELS
from tests.tiny_artefact import tiny_artefact


@pytest.fixture(scope="session", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RankingModel:
    """A warm model of each family."""
    folder: Path = tmp_path_factory.mktemp("artefact") / request.param
    loaded = RankingModel.load(tiny_artefact(folder, request.param, dim=5, rank=3, graphs=True))
    loaded.warm()
    return loaded


@pytest.fixture(scope="session", params=sorted(KERNELS))
def queried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RankingModel:
    """A warm model of each family whose scores are alpha + beta + <a, g>."""
    loaded = RankingModel.load(tiny_artefact(tmp_path_factory.mktemp("artefact") / request.param, request.param, dim=5))
    loaded.warm()
    return loaded


@pytest.fixture(scope="session")
def llfm(tmp_path_factory: pytest.TempPathFactory) -> RankingModel:
    """A warm LLFM model, whose scores are not."""
    loaded = RankingModel.load(tiny_artefact(tmp_path_factory.mktemp("artefact") / "llfm", "llfm", dim=5))
    loaded.warm()
    return loaded


@pytest.fixture(scope="session")
def dplr(tmp_path_factory: pytest.TempPathFactory) -> RankingModel:
    """A warm DPLR model."""
    loaded = RankingModel.load(tiny_artefact(tmp_path_factory.mktemp("artefact") / "dplr"))
    loaded.warm()
    return loaded
