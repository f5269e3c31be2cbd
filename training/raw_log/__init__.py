"""Dataset adapters: files -> streamed chunks of columns. Rejected lines are counted, never silently dropped."""

from __future__ import annotations

from pathlib import Path

from training.errors import UsageError
from training.raw_log.chunk import Chunk, RawLog, Rejected
from training.raw_log.csv_log import CsvLog, criteo_rule
from training.raw_log.files import find_files
from training.raw_log.keel import Keel
from training.raw_log.libfm import LibFM
from training.raw_log.movielens import MovieLens
from training.raw_log.open_bandit import OpenBandit
from training.raw_log.parquet_log import ParquetLog
from training.raw_log.user_items import UserItems
from training.spec_rules import Spec

__all__ = ["Chunk", "RawLog", "Rejected", "open_log"]


def open_log(spec: Spec, root: Path) -> RawLog:
    """Open the log that ``spec`` describes under ``root``; ``UsageError`` if a file is missing or empty."""
    rule, form = spec.source, spec.source.format
    if spec.items and spec.items.file and form not in ("csv", "parquet", "table"):
        raise UsageError(f"spec {spec.name!r}: [items] file: expected none for a {form} log, found {spec.items.file!r}")
    if form == "table":
        names = [n for names in rule.files.values() for n in names]
        kinds = {p.suffix == ".parquet" for n in names for p in find_files(root, rule.folder, n)}
        if len(kinds) > 1:
            raise UsageError(f"spec {spec.name!r}: [source] files: expected CSV or Parquet files, found both: {names}")
        form = "parquet" if True in kinds else "csv"
    if form == "parquet":
        return ParquetLog(rule, root, spec.items)
    if form in ("csv", "criteo"):
        return CsvLog(criteo_rule(rule) if form == "criteo" else rule, root, spec.items)
    if form == "libfm":
        return LibFM(rule, root, spec.fields)
    if form == "keel":
        return Keel(rule, root)
    if form == "user-items":
        return UserItems(rule, root)
    return OpenBandit(rule, root) if form == "open-bandit" else MovieLens(rule, root)
