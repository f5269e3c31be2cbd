from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from tests.training.data.small_log import SPEC, changed
from training import spec_rules
from training.errors import UsageError
from training.spec import load_spec, parse_spec, shipped_specs
from training.spec_rules import FieldRule, ItemsRule, LabelRule, SourceRule, SplitRule, TimeRule


def parse(text: str) -> None:
    parse_spec(text.encode(), "spec.toml")


def test_a_spec_is_read_as_written() -> None:
    spec = parse_spec(SPEC.encode(), "spec.toml")
    assert [(f.name, f.side, f.kind) for f in spec.fields] == [
        ("user", "context", "categorical"),
        ("recent", "context", "multi"),
        ("item", "item", "categorical"),
        ("price", "item", "numeric"),
    ]
    assert spec.fields[1].separator == "|" and spec.fields[3].binning == "ln2"
    assert (spec.split.kind, spec.split.seed, spec.split.fractions) == ("random", 3, (0.8, 0.1, 0.1))
    assert spec.label.task == "binary" and spec.items is not None and spec.items.id_field == "item"


@pytest.mark.parametrize("name", shipped_specs())
def test_shipped_specs_parse_under_their_own_name(name: str) -> None:
    assert load_spec(name).name == name


def test_the_promised_specs_are_shipped() -> None:
    promised = {
        "movielens-1m",
        "movielens-1m-rating",
        "movielens-100k",
        "frappe",
        "criteo",
        "avazu",
        "obd",
        "synthetic",
        "gowalla",
        "movielens-1m-implicit",
    }
    assert promised <= set(shipped_specs())


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match=r"'movielens-2m'.*one of.*movielens-1m.*synthetic"):
        load_spec("movielens-2m")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml.*found none"):
        load_spec("nowhere.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "random"', 'kind = "randm"', r"\[split\] kind: expected one of random, .*found 'randm'"),
        ("seed = 3", 'seed = "3"', r"\[split\] seed: expected an integer of at least 0, found '3'"),
        ("seed = 3", "seed = -3", r"\[split\] seed: expected an integer of at least 0, found -3"),
        ("seed = 3", "seed = true", r"\[split\] seed: .*found True"),
        ("seed = 3", "seeds = 3", r"\[split\] seeds: expected one of .*seed.*found an unknown key"),
        ("seed = 3", "fractions = [0.9, 0.2, 0.1]", r"fractions: expected .*add up to 1"),
        ("seed = 3", "fractions = [0.9, 0.1]", r"fractions: expected a list of 3 numbers"),
        ("seed = 3", "fractions = [0.0, 0.5, 0.5]", r"fractions: expected .*train above 0"),
        ('kind = "random"', 'kind = "temporal"', r"\[split\] kind: expected a \[time\] table"),
        ('kind = "random"', 'kind = "by_user"', r"\[split\] column: expected a string, found no such key"),
        ('kind = "random"', 'kind = "files"', r"\[split\] kind: expected .*\[source.files\]"),
        ('files = ["log.csv"]', "files = []", r"\[source\] files: expected strings"),
        ('files = ["log.csv"]', "", r"\[source\] files: expected .*found no such key"),
        ('format = "csv"', 'format = "xml"', r"\[source\] format: expected one of csv, parquet"),
        ('format = "csv"', 'format = "csv"\ndelimiter = ";;"', r"delimiter: expected one character, found ';;'"),
        ('format = "csv"', 'format = "csv"\nheader = "no"', r"columns: expected the column names"),
        ('format = "csv"', 'format = "csv"\nmax_rejected = 2', r"max_rejected: expected a number from 0 to 1, found 2"),
        (
            'kind = "binary"',
            'kind = "count"',
            r"\[label\] kind: expected one of binary, rating, implicit, found 'count'",
        ),
        ('kind = "binary"', 'kind = "rating"\npositive = "about 4"', r"positive: expected a threshold .*'about 4'"),
        ('kind = "binary"', 'kind = "binary"\npositive = ">= 1"', r"positive: expected a threshold on a rating"),
        (
            'column = "click"\nkind = "binary"',
            'column = "click"\nkind = "implicit"',
            r"\[label\] column: expected one of kind, found an unknown key",
        ),
        (
            "[items]",
            '[users]\nid_field = "item"\n[items]',
            r"\[users\] id_field: .*context field \(user\), found 'item'",
        ),
        ('id_field = "item"', 'id_field = "user"', r"\[items\] id_field: expected a categorical item field \(item\)"),
        ('side = "context"', 'side = "user"', r"\[fields 'user'\] side: expected one of context, item, found 'user'"),
        ('name = "recent"', 'name = "user"', r"fields: expected distinct names, found 'user' twice"),
        ('name = "recent"', 'name = "re/cent"', r"name: expected .*ASCII letters.*found 're/cent'"),
        ('separator = "|"', 'separator = "|"\nmin_count = 0', r"\[fields 'recent'\] min_count: expected .*at least 1"),
        (
            'binning = "ln2"',
            'binning = "log"',
            r"\[fields 'price'\] binning: expected one of ln2, quantile, found 'log'",
        ),
        ('binning = "ln2"', "", r"\[fields 'price'\] binning: expected one of ln2, quantile, found none"),
        ('binning = "ln2"', 'binning = "ln2"\nbins = 4', r"bins: expected none without binning = \"quantile\""),
        ('binning = "ln2"', 'binning = "ln2"\nseparator = ","', r"separator: expected none for a numeric field"),
        ('name = "user"', 'name = "user"\nderive = "hour"', r"derive: expected a \[time\] table"),
        ('name = "user"', 'name = "user"\nsize = 4', r"\[fields 'user'\] size: .*found an unknown key"),
        ("[label]", "[labels]", r"label: expected a table \[label\], found no such key"),
        ("[label]", "[label", r"spec\.toml: expected TOML"),
        ('name = "small"', 'name = "../small"', r"name: expected .*found '../small'"),
        ("[split]", "[time]\nformat='julian'\n[split]", r"\[time\] format: expected .*'julian'"),
    ],
)
def test_a_bad_spec_names_key_expectation_and_value(old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(changed(SPEC, (old, new)))
    assert str(caught.value).startswith("spec.toml: ") and "\n" not in str(caught.value)


def test_fields_are_required() -> None:
    with pytest.raises(UsageError, match=r"fields: expected one \[\[fields\]\] table or more"):
        parse(SPEC[: SPEC.index("[items]")])


def test_overlapping_ranges_are_refused() -> None:
    text = changed(SPEC, ('format = "csv"', 'format = "libfm"\nranges = {user = [0, 5], item = [5, 9]}'))
    with pytest.raises(UsageError, match="ranges that do not overlap"):
        parse(text)


def test_every_key_and_shipped_spec_is_documented() -> None:
    text = (Path(spec_rules.__file__).parent / "specs" / "README.md").read_text()
    for rule in (FieldRule, LabelRule, SplitRule, SourceRule, TimeRule, ItemsRule):
        for key in fields(rule):
            assert f"`{key.name}`" in text, f"{rule.__name__}.{key.name}"
    for word in (*spec_rules.FORMATS, *spec_rules.SPLIT_KINDS, *spec_rules.TIME_PARTS, *shipped_specs()):
        assert f"`{word}`" in text, word
