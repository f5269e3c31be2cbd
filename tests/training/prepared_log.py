"""A small CSV log, prepared: 900 rows with a single-valued, a multi-valued and a numeric field on each side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.prepare import prepare
from training.prepared import Prepared

SPEC = """
name = "small"
[source]
format = "csv"
files = ["log.csv"]
[label]
column = "{label}"
kind = "{kind}"
[split]
kind = "random"
fractions = [0.7, 0.15, 0.15]
seed = 0
[users]
id_field = "user"
[items]
id_field = "item"
[[fields]]
name = "user"
side = "context"
kind = "categorical"
[[fields]]
name = "recent"
side = "context"
kind = "multi"
separator = "|"
[[fields]]
name = "item"
side = "item"
kind = "categorical"
[[fields]]
name = "genres"
side = "item"
kind = "multi"
separator = "|"
[[fields]]
name = "price"
side = "item"
kind = "numeric"
binning = "ln2"
"""


def write_log(folder: Path, seed: int = 0, rows: int = 900, label: str = "click") -> Path:
    """Write log.csv and spec.toml; returns the spec's path. The click depends on the parity of user and item."""
    rng = np.random.default_rng(seed)
    lines = ["user,recent,item,genres,price,click,rating"]
    for _ in range(rows):
        user, item = rng.integers(0, 12), rng.integers(0, 10)
        recent = "|".join(f"i{i}" for i in rng.integers(0, 10, rng.integers(0, 4)))
        genres = "|".join(f"g{g}" for g in {int(item) % 3, int(item) % 4})
        signal = 2.0 * ((user + item) % 2) - 1.0
        click = int(rng.random() < 1 / (1 + np.exp(-2 * signal)))
        lines.append(f"u{user},{recent},i{item},{genres},{item * 3 + 1},{click},{3 + signal + 0.1 * rng.normal():.3f}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    kind = "binary" if label == "click" else "rating"
    (folder / "spec.toml").write_text(SPEC.format(label=label, kind=kind))
    return folder / "spec.toml"


def prepare_log(folder: Path, seed: int = 0, label: str = "click") -> Prepared:
    """Write a log to ``folder`` and prepare it in ``folder/prepared``."""
    return prepare(write_log(folder, seed, label=label), folder, folder / "prepared").open()
