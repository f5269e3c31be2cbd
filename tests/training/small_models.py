"""Models of every family over the fields of small_data, with random parameters (rafm, difacto: random rank groups)."""

from __future__ import annotations

import numpy as np

from tests.training.small_data import FIELDS
from training.batches import Layout
from training.models import FAMILIES, Model, ModelShape, Table
from training.ragged_table import row_starts
from training.trainers.settings import FitSettings

LAYOUT = Layout.of(FIELDS)


def small_settings(family: str, dim: int = 5, rank: int = 2, **changes: object) -> FitSettings:
    """Settings of a family; ``rank`` is also the most ranks that rafm and difacto have."""
    ranks = {max(dim >> shift, 1) for shift in range(rank)} if family in ("rafm", "difacto") else ()
    if family == "llfm":
        changes = {"locality": "jo", "anchors": 7, "lipschitz": 0.3} | changes
    return FitSettings(model=family, dim=dim, rank=rank, ranks=tuple(sorted(ranks)), **changes)  # type: ignore


def small_table(settings: FitSettings, rng: np.random.Generator, std: float = 0.6) -> Table:
    """The family's table with normal draws."""
    family, n = FAMILIES[settings.model], LAYOUT.n_features
    if settings.model in ("rafm", "difacto"):
        ranks = settings.rank_list
        groups = rng.integers(1, len(ranks) + 1, n).astype(np.int32)
        total = row_starts(groups, family.level_sizes(ranks))[-1]  # type: ignore[attr-defined]
        arrays = {"factors": rng.normal(0, std, total).astype(np.float32), "groups": groups}
    elif settings.model == "llfm":
        shapes = {"vectors": (n, settings.anchors, settings.dim), "linear": (n, settings.anchors)}
        shapes |= {"anchor_bias": (settings.anchors,), "anchors": (n, settings.anchors)}
        arrays = {name: rng.normal(0, std, shape).astype(np.float32) for name, shape in shapes.items()}
    else:
        arrays = {"table": rng.normal(0, std, (n, settings.dim + 1)).astype(np.float32)}
    return family.table_of(LAYOUT, arrays, settings)


def small_model(
    family: str, dim: int = 5, rank: int = 2, seed: int = 0, n_context: int = 0, **changes: object
) -> tuple[Model, Table]:
    """A model and its table."""
    rng, settings = np.random.default_rng(seed), small_settings(family, dim, rank, **changes)
    hidden = (6,) if family == "afm" else (6, 3)
    shape = ModelShape(LAYOUT.n_fields, dim, rank, n_context, hidden=hidden, cross_layers=2)
    model = FAMILIES[family](shape, rng, 0.4, 0.8)
    for name, array in model.parameters.items():
        if name.startswith("attention.") or name.endswith(".bias"):
            array[...] = rng.normal(0, 0.6, array.shape)  # some start at 0, which would hide a wrong formula
    return model, small_table(settings, rng)
