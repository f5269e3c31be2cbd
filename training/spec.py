"""The spec: a TOML file that says what a log's rows are, which columns are fields, what the label is, how to split.

Parsed strictly: an unknown key, a wrong type or a bad value is a ``UsageError`` that names the file, the key, the
value and what was expected. ``load_spec`` takes a path or the name of a spec shipped in ``training/specs``.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from itertools import pairwise
from pathlib import Path

from models_export.errors import ArtefactError
from models_export.manifest import BINNINGS, KINDS, SIDES, check_name
from training.errors import UsageError
from training.spec_rules import (
    FORMATS,
    LABEL_KINDS,
    SPLIT_KINDS,
    SPLITS,
    TIME_PARTS,
    FieldRule,
    ItemsRule,
    LabelRule,
    SourceRule,
    Spec,
    SplitRule,
    TimeRule,
)
from training.spec_table import SpecTable


def shipped_specs() -> list[str]:
    """Names of the specs in ``training/specs``."""
    folder = resources.files("training") / "specs"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def load_spec(spec: str | Path) -> Spec:
    """Parse the TOML file at ``spec``, or the shipped spec of that name; ``UsageError`` says what is wrong with it."""
    path = Path(spec)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise UsageError(f"spec {str(path)!r}: expected a TOML file, found none there")
        return parse_spec(path.read_bytes(), str(path), path)
    known = shipped_specs()
    if str(spec) not in known:
        raise UsageError(f"spec {str(spec)!r}: expected a .toml file or one of {', '.join(known)}; found neither")
    shipped = resources.files("training") / "specs" / f"{spec}.toml"
    return parse_spec(shipped.read_bytes(), f"shipped spec {str(spec)!r}")


def parse_spec(text: bytes, where: str, path: Path | None = None) -> Spec:
    """Parse spec bytes; ``where`` names them in errors."""
    try:
        raw = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: expected TOML in UTF-8, found otherwise: {error}") from error
    top = SpecTable(where, "", raw)
    name = _name(top, top.text("name"))
    source = _source(top.table("source"))
    label = _label(top.table("label"))
    time = _time(top.table("time")) if "time" in raw else None
    fields = tuple(_field(t, time) for t in top.tables("fields"))
    split = _split(top.table("split"), source, time)
    items = _items(top.table("items"), fields) if "items" in raw else None
    users = _users(top.table("users"), fields) if "users" in raw else None
    top.finish()
    names = [f.name for f in fields]
    if len(set(names)) != len(names):
        top.refuse("fields", "distinct names", f"{max(names, key=names.count)!r} twice")
    return Spec(name, source, label, split, fields, time, items, users, text, path)


def _name(table: SpecTable, name: str) -> str:
    try:
        return check_name(name, "name")
    except ArtefactError as error:
        return table.refuse("name", error.expected, error.found)


def _source(t: SpecTable) -> SourceRule:
    form = t.choice("format", FORMATS)
    files = t.raw.get("files")
    if isinstance(files, dict):
        sub = t.table("files")
        by_split = {s: sub.texts(s) for s in SPLITS if s in files}
        sub.finish()
        if "train" not in by_split:
            sub.refuse("train", "the files of the training split", "none")
    else:
        default = {"movielens-1m": ("ratings.dat",), "movielens-100k": ("u.data",)}.get(form)
        by_split = {"": t.texts("files", default)}
    ranges = {}
    if "ranges" in t.raw:
        sub = t.table("ranges")
        for key in sub.raw:
            ranges[key] = sub.integer_pair(key)
        taken = sorted(ranges.values())
        if any(a[1] >= b[0] for a, b in pairwise(taken)):
            t.refuse("ranges", "ranges that do not overlap", str(ranges))
    rule = SourceRule(
        format=form,
        files=by_split,
        folder=t.text("folder", ""),
        max_rejected=t.number("max_rejected", 0.01, 0.0, 1.0),
        delimiter=t.text("delimiter", ","),
        quoted=t.flag("quoted", True),
        header=t.choice("header", ("auto", "yes", "no"), "auto"),
        columns=t.texts("columns", ()),
        encoding=t.choice("encoding", ("utf-8", "latin-1"), "utf-8"),
        ranges=ranges,
    )
    t.finish()
    if len(rule.delimiter) != 1:
        t.refuse("delimiter", "one character", repr(rule.delimiter))
    if rule.header == "no" and not rule.columns:
        t.refuse("columns", "the column names of a file without a header", "none")
    return rule


def _label(t: SpecTable) -> LabelRule:
    kind = t.choice("kind", LABEL_KINDS)
    if kind == "implicit":
        t.finish()
        return LabelRule(None, kind)
    positive = t.text("positive", "")
    rule: tuple[str, float] | None = None
    if positive:
        operator, _, bound = positive.strip().partition(" ")
        try:
            rule = (operator, float(bound))
        except ValueError:
            rule = None
        if rule is None or operator not in (">=", ">") or kind == "binary":
            t.refuse("positive", 'a threshold on a rating such as ">= 4"', repr(positive))
    out = LabelRule(t.text("column", "label"), kind, rule)
    t.finish()
    return out


def _time(t: SpecTable) -> TimeRule:
    rule = TimeRule(t.text("column", "timestamp"), t.text("format", "unix"))
    t.finish()
    if rule.format not in ("unix", "iso") and "%" not in rule.format:
        t.refuse("format", '"unix", "iso" or a strptime format such as "%y%m%d%H"', repr(rule.format))
    return rule


def _field(t: SpecTable, time: TimeRule | None) -> FieldRule:
    name = _name(t, t.text("name"))
    kind = t.choice("kind", KINDS, "categorical")
    derive = t.choice("derive", TIME_PARTS, "") or None
    if derive and (time is None or kind != "categorical" or "column" in t.raw):
        t.refuse("derive", "a [time] table, kind categorical and no column of its own", repr(derive))
    binning = t.choice("binning", BINNINGS, "") or None
    if (binning is not None) != (kind == "numeric"):
        expected = f"one of {', '.join(BINNINGS)}" if kind == "numeric" else f"none for a {kind} field"
        t.refuse("binning", expected, repr(binning) if binning else "none")
    if "bins" in t.raw and binning != "quantile":
        t.refuse("bins", 'none without binning = "quantile"', repr(t.raw["bins"]))
    if "separator" in t.raw and kind != "multi":
        t.refuse("separator", f"none for a {kind} field", repr(t.raw["separator"]))
    if "standardise" in t.raw and kind != "dense":
        t.refuse("standardise", f"none for a {kind} field", repr(t.raw["standardise"]))
    rule = FieldRule(
        name=name,
        side=t.choice("side", SIDES),
        kind=kind,
        column=t.text("column", name),
        min_count=t.integer("min_count", 1, 1),
        binning=binning,
        bins=t.integer("bins", 32, 2),
        separator=t.text("separator", "") or None,
        derive=derive,
        optional=t.flag("optional", False),
        in_catalogue=t.flag("in_catalogue", True),
        standardise=t.flag("standardise", kind == "dense"),
    )
    t.finish()
    return rule


def _split(t: SpecTable, source: SourceRule, time: TimeRule | None) -> SplitRule:
    kind = t.choice("kind", SPLIT_KINDS)
    given = "" not in source.files
    if (kind == "files") != given:
        expected = "files" if given else "a kind other than files, or [source.files] with train, valid and test"
        t.refuse("kind", expected, repr(kind))
    if kind == "temporal" and time is None:
        t.refuse("kind", "a [time] table, which a temporal split needs", repr(kind))
    fractions = t.numbers("fractions", (0.8, 0.1, 0.1), 3)
    if min(fractions) < 0 or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-9:
        t.refuse("fractions", "train, valid and test shares that add up to 1, train above 0", str(list(fractions)))
    column = t.text("column") if kind == "by_user" else None
    rule = SplitRule(
        kind=kind,
        fractions=(fractions[0], fractions[1], fractions[2]),
        seed=t.integer("seed", 0, 0),
        column=column,
        valid_from_train=t.number("valid_from_train", 0.0, 0.0, 0.9) if kind == "files" else 0.0,
    )
    if rule.valid_from_train and "valid" in source.files:
        t.refuse("valid_from_train", "none, since [source.files] gives valid", str(rule.valid_from_train))
    t.finish()
    return rule


def _items(t: SpecTable, fields: tuple[FieldRule, ...]) -> ItemsRule:
    rule = ItemsRule(t.text("id_field"), t.text("title", "") or None, t.text("file", "") or None)
    t.finish()
    known = [f.name for f in fields if f.side == "item" and f.kind == "categorical" and not f.optional]
    if rule.id_field not in known:
        t.refuse("id_field", f"a categorical item field ({', '.join(known) or 'there is none'})", repr(rule.id_field))
    return rule


def _users(t: SpecTable, fields: tuple[FieldRule, ...]) -> str:
    name = t.text("id_field")
    t.finish()
    known = [f.name for f in fields if f.side == "context" and f.kind == "categorical" and not f.optional]
    if name not in known:
        t.refuse("id_field", f"a categorical context field ({', '.join(known) or 'there is none'})", repr(name))
    return name
