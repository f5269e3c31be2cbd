"""A raw log -> a prepared folder: split, vocabulary of the training split, encoded arrays, catalogue.

    pass 0 (temporal splits only)  times -> the instants that part the splits
    pass 1                         values of training rows -> counts -> encoder
    pass 2                         all rows -> feature rows, appended to .npy files

Memory does not grow with the number of rows. It is bounded by a few chunks of the source (8 MiB of text each, and
their columns), plus the distinct training values of all fields with their counts, plus, for a catalogue taken from the
log, one row of item fields per distinct item (each at most twice while sets merge). Measured by
``tests/bench/prepare_memory.py``.

Everything is written to a hidden sibling of the target and renamed at the end: a crash leaves no half-made folder.
Same source, same spec: same bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models_export.fields import FieldEncoder
from models_export.reader import read_artefact
from models_export.tensor_file import write_tensors
from training.catalogue import Catalogue
from training.column_encoding import encode_columns
from training.errors import UsageError
from training.examples import ExampleReader
from training.new_folder import new_folder
from training.prepared import PREPARED_VERSION, Prepared
from training.progress import Progress, Silent
from training.raw_log import RawLog, Rejected, open_log
from training.raw_log.files import data_folder, digest, size_of
from training.raw_log.first_rows import FirstRows
from training.spec import load_spec
from training.spec_rules import SPLITS, Spec
from training.split import Splitter
from training.split_writer import SplitWriter
from training.vocabulary import FieldCounts, check_previous, fit_encoder


@dataclass(frozen=True)
class PrepareReport:
    """What was prepared: ``info`` is ``prepared.json``; ``notes`` are things the user should know."""

    path: Path
    info: dict[str, Any]
    rejected: Rejected
    notes: tuple[str, ...]

    def open(self) -> Prepared:
        """The prepared folder."""
        return Prepared.open(self.path)

    def summary(self) -> str:
        """A few lines for people."""
        info = self.info
        lines = [f"{info['name']}: {info['rows']:,} rows -> {self.path}"]
        for split, found in info["splits"].items():
            told = {
                "binary": f"clicks {found['label_mean']:.2%}",
                "rating": f"mean rating {found['label_mean']:.4f}",
                "implicit": "positives only",
            }
            lines.append(f"  {split:6s}{found['rows']:>12,} rows, {told[info['label']['task']]}")
        sizes = ", ".join(f"{f['name']} {f['size'] - 2:,}" for f in info["fields"])
        lines.append(f"  known values by field: {sizes}")
        if info["catalogue"]:
            lines.append(f"  catalogue: {info['catalogue']['items']:,} items from {info['catalogue']['source']}")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  rejected: {self.rejected.describe() or 'no line'}")
        return "\n".join(lines)


def prepare(
    spec: str | Path | Spec,
    data: Path | None,
    out: Path,
    *,
    previous: Path | None = None,
    seed: int | None = None,
    max_rejected: float | None = None,
    first_rows: int | None = None,
    progress: Progress | None = None,
) -> PrepareReport:
    """Prepare the log that ``spec`` (a path, a shipped name, or parsed) describes into the new folder ``out``.

    ``data``: the data folder (None: the folder of a spec file, else ``$CTRANK_DATA``). ``previous``: a prepared folder
    or artefact whose ids are kept, new values being appended. ``seed`` and ``max_rejected`` override the spec's;
    ``first_rows``: take only so many rows of each file. ``UsageError`` for anything the user can put right; ``out``
    then does not exist.
    """
    rules = spec if isinstance(spec, Spec) else load_spec(spec)
    if seed is not None:
        rules = replace(rules, split=replace(rules.split, seed=seed))
    if max_rejected is not None:
        rules = replace(rules, source=replace(rules.source, max_rejected=max_rejected))
    root = data_folder(data, rules.path.parent if rules.path else None)
    log = open_log(rules, root)
    if first_rows is not None:
        log = FirstRows(log, first_rows)
    with new_folder(Path(out)) as folder:
        job = _Preparation(rules, log, folder, progress or Silent(), first_rows)
        info, notes = job.run(previous)
    return PrepareReport(Path(out), info, job.rejected, notes)


class _Preparation:
    """The passes over one log; ``rejected`` is filled by the last."""

    def __init__(self, spec: Spec, log: RawLog, folder: Path, progress: Progress, first_rows: int | None) -> None:
        self.spec, self.log, self.folder, self.progress, self.first_rows = spec, log, folder, progress, first_rows
        self.reader = ExampleReader(spec, log)
        self.rejected = Rejected()
        self.total_bytes = size_of(log.paths)

    def run(self, previous: Path | None) -> tuple[dict[str, Any], tuple[str, ...]]:
        """All passes; returns prepared.json and the notes."""
        fingerprint = self._fingerprint(previous)
        with self.progress.task("reading times", self.total_bytes, "B") if self._temporal() else Silent().task("") as t:
            splitter = Splitter.fit(self.spec.split, self.reader, self.folder, t)
        encoder = self._fit(splitter, previous)
        catalogue = Catalogue(self.spec.items, self.reader.fields) if self.spec.items else None
        splits = self._encode(encoder, splitter, catalogue)
        write_tensors(self.folder / "vocabulary.safetensors", encoder.arrays())
        stored = self._store_items(catalogue, encoder) if catalogue else None
        info = {
            "format_version": PREPARED_VERSION,
            "name": self.spec.name,
            "fingerprint": fingerprint,
            "rows": sum(s["rows"] for s in splits.values()),
            "splits": splits,
            "split": asdict(self.spec.split) | {"time_bounds_us": splitter.bounds},
            "label": {"column": self.spec.label.column, "task": self.spec.label.task},
            "fields": [f.to_json() for f in encoder.fields],
            "item_id_field": self.spec.items.id_field if self.spec.items else None,
            "user_id_field": self.spec.users,
            "catalogue": stored,
            "rejected": self.rejected.as_dict(),
            "source": [p.name for p in self.log.paths],
            "spec": self.spec.text.decode(),
        }
        text = json.dumps(info, indent=2, ensure_ascii=False, allow_nan=False)
        (self.folder / "prepared.json").write_text(text + "\n", encoding="utf-8")
        return json.loads(text), self._notes(catalogue)

    def _temporal(self) -> bool:
        return self.spec.split.kind == "temporal"

    def _fingerprint(self, previous: Path | None) -> str:
        limit = [] if self.first_rows is None else [self.first_rows]
        asked = json.dumps([self.spec.split.seed, self.spec.source.max_rejected, *limit]).encode()
        with self.progress.task("fingerprint", self.total_bytes, "B") as task:
            found = digest(self.log.paths, self.spec.text + b"\0" + asked, task)
        if previous is None:
            return found
        base = _previous_encoder(previous)
        known = hashlib.sha256(b"".join(a.tobytes() for a in base.arrays().values())).hexdigest()
        return hashlib.sha256(f"{found} {known}".encode()).hexdigest()

    def _fit(self, splitter: Splitter, previous: Path | None) -> FieldEncoder:
        base = _previous_encoder(previous) if previous else None
        if base is not None:
            check_previous(base, self.reader.fields, str(previous))
        known = {f.name: f for f in base.fields} if base else {}
        counts = [FieldCounts(rule, self.folder, known.get(rule.name)) for rule in self.reader.fields]
        rejected, rows, training = Rejected(), 0, 0
        with self.progress.task("counting values", self.total_bytes, "B") as task:
            for examples in self.reader(rejected):
                rows += len(examples)
                train = splitter(examples) == 0
                training += int(train.sum())
                for count in counts:
                    count.add(examples.take(count.rule.name, train))
                task.advance(examples.chunk.bytes_read, f"{rows:,} rows")
        self._check_rejected(rejected, rows)
        if not training:
            raise UsageError(f"{self.log.paths[0]}: expected rows in the training split, found none of {rows:,}")
        self.rows = rows
        return fit_encoder(counts, base)

    def _check_rejected(self, rejected: Rejected, rows: int) -> None:
        limit, total = self.spec.source.max_rejected, rejected.total + rows
        if total == 0:
            raise UsageError(f"{self.log.paths[0]}: expected rows, found an empty file")
        if rejected.total > limit * total:
            raise UsageError(
                f"{self.log.paths[0]}: expected at most {limit:.1%} of the lines to be rejected, found "
                f"{rejected.total:,} of {total:,} ({rejected.total / total:.1%}): {rejected.describe()}. "
                "Mend the lines, or raise max_rejected in the spec"
            )

    def _encode(
        self, encoder: FieldEncoder, splitter: Splitter, catalogue: Catalogue | None
    ) -> dict[str, dict[str, Any]]:
        writers = [SplitWriter(self.folder / name, encoder) for name in SPLITS]
        rows = 0
        with self.progress.task("encoding", self.total_bytes, "B") as task:
            for examples in self.reader(self.rejected):
                encoded = encode_columns(encoder, encoder.fields, examples.columns, len(examples))
                assigned = splitter(examples)
                for number, writer in enumerate(writers):
                    index = np.flatnonzero(assigned == number)
                    if len(index):
                        writer.append(encoded.take(index), examples.label[index], examples.chunk.rows[index])
                if catalogue is not None and not self.log.own_items:
                    catalogue.add_examples(examples)
                rows += len(examples)
                task.advance(examples.chunk.bytes_read, f"{rows:,} rows")
        if rows != self.rows:
            raise UsageError(f"{self.log.paths[0]}: changed while it was read ({self.rows:,} rows, then {rows:,})")
        splits = {name: writer.close() for name, writer in zip(SPLITS, writers, strict=True)}
        self._check_splits({name: found["rows"] for name, found in splits.items()})
        return splits

    def _check_splits(self, rows: dict[str, int]) -> None:
        rule = self.spec.split
        for name, share in zip(SPLITS, rule.fractions, strict=True):
            if rule.kind != "files" and share > 0 and not rows[name]:
                raise UsageError(
                    f"split {rule.kind!r}: expected rows in every split that has a share, found no rows for {name} "
                    f"({rows}). Choose other fractions or another kind of split"
                )

    def _store_items(self, catalogue: Catalogue, encoder: FieldEncoder) -> dict[str, Any]:
        table = self.log.items() if self.log.own_items else None
        if table is not None:
            catalogue.add_table(table)
        items, titles = catalogue.build(encoder)
        write_tensors(self.folder / "items.safetensors", items.arrays())
        text = json.dumps(titles, ensure_ascii=False, indent=0)
        (self.folder / "titles.json").write_text(text + "\n", encoding="utf-8")
        source = "the file of items" if table is not None else "the log (all splits, fields as last seen)"
        return {"items": len(items), "source": source, "repeated": catalogue.repeated}

    def _notes(self, catalogue: Catalogue | None) -> tuple[str, ...]:
        notes = []
        if self.reader.dropped:
            notes.append(f"left out, the log lacks their column: {', '.join(self.reader.dropped)}")
        if catalogue and catalogue.repeated:
            notes.append(f"{catalogue.repeated:,} repeated ids in the file of items: the last row of each was taken")
        return tuple(notes)


def _previous_encoder(path: Path) -> FieldEncoder:
    if (path / "prepared.json").exists():
        return Prepared.open(path).encoder
    if (path / "manifest.json").exists():
        return read_artefact(path).encoder
    raise UsageError(f"previous {str(path)!r}: expected a prepared folder or an artefact, found neither")


__all__ = ["PrepareReport", "prepare"]
