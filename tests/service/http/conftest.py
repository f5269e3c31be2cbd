from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models_export.manifest import FAMILIES
from tests.service.http.server_process import ServerProcess
from tests.tiny_artefact import publish_tiny, tiny_registry

ADMIN_KEY = "a-long-enough-key"
LIMITS = {"max_body_bytes": 1 << 20, "max_candidates": 5000, "max_values_per_field": 300, "max_instances": 50}


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model per family, a default one called `tiny` with two versions, and one trained on squared loss."""
    root = tmp_path_factory.mktemp("registry")
    tiny_registry(root, FAMILIES, graphs=True)
    publish_tiny(root, "fm", seed=7, graphs=True)
    publish_tiny(root, "dplr", graphs=True)
    publish_tiny(root, "dplr", name="squared", loss="squared", graphs=True)
    publish_tiny(root, "fm", name="bare", catalogue=False, graphs=True)
    return root


@pytest.fixture(scope="session")
def server(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    cache_dir = tmp_path_factory.mktemp("items")
    with ServerProcess(registry, default_model="tiny", admin_key=ADMIN_KEY, cache_dir=cache_dir, **LIMITS) as running:
        yield running
        log = "".join(running.log)
        assert "Traceback" not in log, log
