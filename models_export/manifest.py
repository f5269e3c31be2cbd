"""The manifest: what an artefact is, field by field, validated strictly when read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import accumulate
from typing import Any, Literal, NoReturn, TypeVar

from models_export.calibration import Calibration
from models_export.errors import ArtefactError
from models_export.locality import Locality

FORMAT_VERSION = 1
COMPILED_FAMILIES = ("fm", "fwfm", "pruned_fwfm", "dplr", "rafm", "llfm")
NETWORK_FAMILIES = ("nfm", "afm", "dcn", "deepfm")
FAMILIES = (*COMPILED_FAMILIES, *NETWORK_FAMILIES)
LOSSES = ("logistic", "squared", "pairwise")
SIDES = ("context", "item")
KINDS = ("categorical", "multi", "numeric", "dense")
#: Keys that are written only where they say something, so that what does not use them keeps its bytes.
OPTIONAL = ("centre", "scale", "locality")
BINNINGS = ("ln2", "quantile")
MAX_NAME = 128
MAX_RANKS = 16

Side = Literal["context", "item"]


@dataclass(frozen=True)
class FieldSpec:
    """One field: its side, how raw values become ids, and how many ids it has.

    ``size`` counts id 0 (missing), id 1 (rare or unknown) and the known values from 2. A ``dense`` field's known value
    is the number itself: feature id 2 with the value x = (number - ``centre``) / ``scale``.
    """

    name: str
    side: str
    kind: str
    size: int
    binning: str | None = None
    edges: tuple[float, ...] = ()
    min_count: int = 1
    centre: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        culprit = f"field {self.name!r}"
        check_name(self.name, "field name")
        _check_choice(f"{culprit}: side", self.side, SIDES)
        _check_choice(f"{culprit}: kind", self.kind, KINDS)
        if self.size < 2:
            raise ArtefactError(f"{culprit}: size", "at least 2 (missing and rare)", str(self.size))
        if self.min_count < 1:
            raise ArtefactError(f"{culprit}: min_count", "at least 1", str(self.min_count))
        self._check_dense(culprit)
        if self.kind == "numeric":
            _check_choice(f"{culprit}: binning", self.binning, BINNINGS)
        elif self.binning is not None or self.edges:
            raise ArtefactError(f"{culprit}: binning", f"none for a {self.kind} field", str(self.binning))
        if self.binning == "quantile" and not self.edges:
            raise ArtefactError(f"{culprit}: edges", "at least one quantile edge", "none")
        if self.binning != "quantile" and self.edges:
            raise ArtefactError(f"{culprit}: edges", "none without quantile binning", f"{len(self.edges)} edges")
        if not all(math.isfinite(e) for e in self.edges) or list(self.edges) != sorted(set(self.edges)):
            raise ArtefactError(f"{culprit}: edges", "finite, strictly ascending numbers", str(self.edges[:8]))

    def _check_dense(self, culprit: str) -> None:
        if self.kind != "dense":
            if (self.centre, self.scale) != (0.0, 1.0):
                raise ArtefactError(
                    f"{culprit}: scale", f"none for a {self.kind} field", f"{self.centre}, {self.scale}"
                )
        elif not (math.isfinite(self.centre) and math.isfinite(self.scale) and self.scale > 0):
            raise ArtefactError(
                f"{culprit}: scale", "a finite centre and a finite scale above 0", f"{self.centre}, {self.scale}"
            )

    @property
    def weighted(self) -> bool:
        """Whether rows hold a list of (feature row, value x) for the field, as of several values or of a number."""
        return self.kind in ("multi", "dense")

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        data = asdict(self)
        return data if self.kind == "dense" else {k: v for k, v in data.items() if k not in OPTIONAL}


@dataclass(frozen=True)
class Manifest:
    """Everything about a model but its arrays. Context fields come before item fields.

    ``files`` maps each other file of the artefact to its SHA-256; the digest of the manifest's own bytes is
    therefore the digest of the whole artefact.
    """

    name: str
    family: str
    loss: str
    dim: int
    fields: tuple[FieldSpec, ...]
    rank: int | None = None
    item_id_field: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    files: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    locality: Locality | None = None

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ArtefactError(
                "manifest: format_version",
                str(FORMAT_VERSION),
                str(self.format_version),
                "Export the model again with this version of ctrank",
            )
        check_name(self.name, "model name")
        _check_choice("manifest: family", self.family, FAMILIES)
        _check_choice("manifest: loss", self.loss, LOSSES)
        if not 1 <= self.dim <= 1024:
            raise ArtefactError("manifest: dim", "1 to 1024", str(self.dim))
        if (self.family == "dplr") != (self.rank is not None) or (self.rank is not None and self.rank < 1):
            expected = "at least 1" if self.family == "dplr" else f"none for {self.family}"
            raise ArtefactError("manifest: rank", expected, str(self.rank))
        if (self.family == "llfm") != (self.locality is not None):
            expected = "an object" if self.family == "llfm" else f"none for {self.family}"
            raise ArtefactError("manifest: locality", expected, str(self.locality))
        if self.loss != "logistic" and self.calibration.kind != "none":
            raise ArtefactError("manifest: calibration", f"none for {self.loss} loss", self.calibration.kind)
        names = [f.name for f in self.fields]
        sides = [f.side for f in self.fields]
        if not names:
            raise ArtefactError("manifest: fields", "at least one field", "none")
        if len(set(names)) != len(names):
            raise ArtefactError("manifest: fields", "distinct names", f"{max(names, key=names.count)!r} twice")
        if sides != sorted(sides):  # "context" < "item"
            raise ArtefactError("manifest: fields", "all context fields before all item fields", str(sides))
        if self.n_features >= 2**31:
            raise ArtefactError("manifest: fields", "fewer than 2^31 ids in all", str(self.n_features))
        if self.item_id_field is not None and self.item_id_field not in names[sides.count("context") :]:
            raise ArtefactError("manifest: item_id_field", "the name of an item field", repr(self.item_id_field))
        for key, value in self.metrics.items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ArtefactError(f"manifest: metrics[{key!r}]", "a finite number", repr(value))

    @property
    def offsets(self) -> tuple[int, ...]:
        """First feature row of each field, and the number of rows last: ``m + 1`` numbers."""
        return tuple(accumulate((f.size for f in self.fields), initial=0))

    @property
    def n_features(self) -> int:
        """Rows of the embedding table."""
        return sum(f.size for f in self.fields)

    @property
    def kp(self) -> int:
        """Vector width in floats: ``dim`` rounded up to whole SIMD vectors of 8."""
        return -(-self.dim // 8) * 8

    @property
    def stride(self) -> int:
        """Floats per embedding row (vector, folded scalar, linear weight), rounded up to 64 bytes."""
        return -(-(self.kp + 2) // 16) * 16

    def field_index(self, name: str) -> int:
        """Position of the field called ``name``; ``KeyError`` if there is none."""
        for index, spec in enumerate(self.fields):
            if spec.name == name:
                return index
        raise KeyError(name)

    def side_fields(self, side: Side | None) -> list[int]:
        """Field indices of a side (of both sides for ``None``), in manifest order."""
        return [i for i, f in enumerate(self.fields) if side in (None, f.side)]

    def kernel_order(self, side: Side | None) -> list[int]:
        """Field indices of a side as kernels see them: single-valued fields first, then those with lists of values."""
        return sorted(self.side_fields(side), key=lambda i: self.fields[i].weighted)

    def n_multi(self, side: Side | None) -> int:
        """Number of fields of a side with lists of values (multi-valued and dense ones)."""
        return sum(self.fields[i].weighted for i in self.side_fields(side))

    def n_single(self, side: Side | None) -> int:
        """Number of single-valued fields of a side."""
        return len(self.side_fields(side)) - self.n_multi(side)

    def with_files(self, files: Mapping[str, str]) -> Manifest:
        """The same manifest over other files."""
        return replace(self, files=dict(files))

    def to_json(self) -> bytes:
        """Canonical bytes: sorted keys, two-space indent, no timestamp; equal manifests give equal bytes."""
        data = asdict(self) | {"fields": [f.to_json() for f in self.fields]}
        if self.locality is None:
            del data["locality"]
        return (json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Parse and validate; an unknown, missing or mistyped key is an ``ArtefactError`` that names it."""
        try:
            raw = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ArtefactError("manifest.json", "a JSON object", f"unreadable bytes ({error})") from error
        if isinstance(raw, dict) and raw.get("format_version") != FORMAT_VERSION:
            cls._refuse_version(raw.get("format_version"))
        kwargs = _checked("manifest", raw, cls)
        kwargs["fields"] = tuple(
            FieldSpec(**_checked(f"manifest: fields[{i}]", entry, FieldSpec))
            for i, entry in enumerate(kwargs["fields"])
        )
        if "locality" in kwargs:
            kwargs["locality"] = Locality(**_checked("manifest: locality", kwargs["locality"], Locality))
        kwargs["calibration"] = Calibration(**_checked("manifest: calibration", kwargs["calibration"], Calibration))
        for name, digest in kwargs["files"].items():
            if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise ArtefactError(f"manifest: files[{name!r}]", "a SHA-256 in 64 hex digits", repr(digest))
        return cls(**kwargs)

    @staticmethod
    def _refuse_version(found: object) -> NoReturn:
        raise ArtefactError(
            "manifest: format_version",
            str(FORMAT_VERSION),
            repr(found),
            "Export the model again with this version of ctrank",
        )


T = TypeVar("T")
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "tuple[float, ...]": (list,),
    "tuple[FieldSpec, ...]": (list,),
    "Mapping[str, Any]": (dict,),
    "Mapping[str, float]": (dict,),
    "Mapping[str, str]": (dict,),
    "Calibration": (dict,),
    "Locality | None": (dict,),
    "bool": (bool,),
}


def _checked(culprit: str, raw: object, cls: type) -> dict[str, Any]:
    """The JSON object ``raw`` as keyword arguments of dataclass ``cls``: every key there, no other, right types."""
    if not isinstance(raw, dict):
        raise ArtefactError(culprit, "an object", type(raw).__name__)
    declared = {f.name: str(f.type) for f in fields(cls)}
    missing, unknown = sorted(set(declared) - set(raw) - set(OPTIONAL)), sorted(set(raw) - set(declared))
    if missing or unknown:
        raise ArtefactError(culprit, f"the keys {sorted(declared)}", f"missing {missing}, unknown {unknown}")
    out = {}
    for key, kind in declared.items():
        if key not in raw:
            continue
        value: Any = raw[key]
        if type(value) not in _JSON_TYPES[kind]:  # exact: True is not an int here
            raise ArtefactError(f"{culprit}: {key}", kind, f"{type(value).__name__} {str(value)[:80]!r}")
        if kind == "tuple[float, ...]":
            if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
                raise ArtefactError(f"{culprit}: {key}", "a list of numbers", str(value)[:80])
            value = tuple(float(v) for v in value)
        out[key] = value
    return out


def check_name(name: object, what: str) -> str:
    """A name that is safe as a path component and a metric label; ``ArtefactError`` otherwise."""
    allowed = isinstance(name, str) and 0 < len(name) <= MAX_NAME and name[0] not in ".-"
    if not allowed or not all(c.isalnum() or c in "._-" for c in str(name)) or not str(name).isascii():
        raise ArtefactError(
            what, f"1 to {MAX_NAME} ASCII letters, digits, '.', '_' or '-', not starting with '.' or '-'", repr(name)
        )
    return str(name)


def _check_choice(culprit: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ArtefactError(culprit, "one of " + ", ".join(choices), repr(value))


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
