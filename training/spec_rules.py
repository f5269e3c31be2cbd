"""What a spec says, as plain dataclasses; ``training.spec`` reads them from TOML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

FORMATS = (
    "csv", "parquet", "table", "libfm", "keel", "movielens-1m", "movielens-100k", "criteo", "open-bandit", "user-items",
)  # fmt: skip
LABEL_KINDS = ("binary", "rating", "implicit")
TIME_PARTS = ("year", "month", "weekday", "hour")
SPLIT_KINDS = ("random", "temporal", "by_user", "files")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class FieldRule:
    """One model field. ``column``: the log's column (default: the name); ``derive``: a part of the log's time instead.

    ``optional``: left out, with a note, where the log lacks the column. ``in_catalogue = false``: differs per request
    (position, price), so the catalogue stores it as missing. ``standardise``: dense numbers are taken relative to the
    training split's mean, in its standard deviations.
    """

    name: str
    side: str
    kind: str
    column: str
    min_count: int = 1
    binning: str | None = None
    bins: int = 32
    separator: str | None = None
    derive: str | None = None
    optional: bool = False
    in_catalogue: bool = True
    standardise: bool = False


@dataclass(frozen=True)
class LabelRule:
    """``binary``: 1 and 0 (or -1); ``rating``: a finite number, turned into 1 and 0 where ``positive`` is given;
    ``implicit``: no label (``column`` is None), every row is something a user did: a positive."""

    column: str | None
    kind: str
    positive: tuple[str, float] | None = None

    @property
    def task(self) -> str:
        """What the stored labels are: ``binary`` (0 and 1), ``rating`` (numbers) or ``implicit`` (all 1)."""
        if self.kind == "implicit":
            return "implicit"
        return "binary" if self.kind == "binary" or self.positive else "rating"


@dataclass(frozen=True)
class SplitRule:
    """``random`` by row, ``by_user`` by ``column``, ``temporal`` by the log's time, or ``files`` as published."""

    kind: str
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    column: str | None = None
    valid_from_train: float = 0.0


@dataclass(frozen=True)
class SourceRule:
    """Where the rows are. ``files``: split ("" = not split by file) -> names of files in ``folder`` of the data."""

    format: str
    files: dict[str, tuple[str, ...]]
    folder: str = ""
    max_rejected: float = 0.01
    delimiter: str = ","
    quoted: bool = True
    header: str = "auto"
    columns: tuple[str, ...] = ()
    encoding: str = "utf-8"
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class TimeRule:
    """The log's time: ``unix`` (seconds), ``iso`` (ISO 8601) or a strptime format; always read as UTC."""

    column: str
    format: str = "unix"


@dataclass(frozen=True)
class ItemsRule:
    """The catalogue: the field that holds the item id, the column with the display name, a CSV of items if any."""

    id_field: str
    title: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Spec:
    """A parsed spec. ``users``: the context field that holds the user's id; ``text``: the bytes it was read from;
    ``path``: its file, None if shipped."""

    name: str
    source: SourceRule
    label: LabelRule
    split: SplitRule
    fields: tuple[FieldRule, ...]
    time: TimeRule | None
    items: ItemsRule | None
    users: str | None
    text: bytes
    path: Path | None = None
