"""What a registered family, method or experiment must have; each function returns what is missing, in words.

The tests that exist are read off pytest's own collection: a family is covered by a test when it is one of the values
that the test is parametrised with (by ``parametrize`` or by a fixture), or when the test is named after it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import oracle
from tests.data_folder import ROOT
from training.commands.fit_options import METHODS as OFFERED_METHODS
from training.commands.fit_options import MODELS as OFFERED_MODELS
from training.experiment import Experiment

RESULTS = ROOT / "training" / "experiments" / "results"
TESTED_IN = (
    "tests/training", "tests/models_export", "tests/service/kernels", "tests/service/scorers", "tests/service/ranking",
    "tests/service/http",
)  # fmt: skip


@dataclass(frozen=True)
class CollectedTest:
    """A test as pytest sees it: file below the root, function, the words among its parameters."""

    file: str
    name: str
    words: frozenset[str]

    def about(self, subject: str) -> bool:
        return subject in self.words or bool(
            re.search(rf"(^|_){subject}(_|$|\.)", f"{self.name} {Path(self.file).stem}")
        )


@dataclass(frozen=True)
class World:
    """What the checks look at, so that a test can take something away."""

    tests: tuple[CollectedTest, ...]
    readme: str
    format_page: str
    oracles: Mapping[str, Any]
    kernels: Mapping[str, Any]
    graphs: Mapping[str, Any]
    exported: tuple[str, ...]
    offered_models: tuple[str, ...]
    offered_methods: tuple[str, ...]

    @classmethod
    def real(cls) -> World:
        from models_export.manifest import FAMILIES as EXPORTED
        from models_export.onnx_writer import FAMILIES as GRAPHS
        from service.scorers.numba_scorer import FAMILIES as KERNELS

        return cls(
            collect(), (ROOT / "README.md").read_text(), (ROOT / "models_export" / "FORMAT.md").read_text(),
            oracle.FORMULAS, KERNELS, GRAPHS, EXPORTED, OFFERED_MODELS, OFFERED_METHODS,
        )  # fmt: skip

    def has_test(self, folder: str, subject: str, *words: str) -> bool:
        """A test below ``folder`` about ``subject`` with one of the ``words`` in its name."""
        return any(
            test.file.startswith(f"tests/{folder}") and test.about(subject) and any(w in test.name for w in words)
            for test in self.tests
        )


def collect() -> tuple[CollectedTest, ...]:
    """The tests of the folders that are about families and methods, collected but not run."""
    found: list[CollectedTest] = []

    class Collector:
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            for item in session.items:
                values = getattr(item, "callspec", None)
                words = {str(v) for v in values.params.values()} if values else set()
                file = Path(item.path).relative_to(ROOT).as_posix()
                found.append(CollectedTest(file, getattr(item, "originalname", item.name), frozenset(words)))

    options = ["--collect-only", "-qq", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    with redirect_stdout(io.StringIO()) as said:
        code = pytest.main([*options, *(str(ROOT / folder) for folder in TESTED_IN)], plugins=[Collector()])
    assert code == 0 and found, f"the tests cannot be collected: {said.getvalue()[-2000:]}"
    return tuple(found)


def missing_of_family(name: str, family: type, world: World) -> list[str]:
    """What the model family ``name`` lacks."""
    doc = " ".join((family.__doc__ or "").split())
    exported = getattr(family, "exported_as", None) or name
    citation = str(getattr(family, "citation", ""))
    checks = {
        "its own name": getattr(family, "family", None) == name,
        "citation": bool(re.search(r"(19|20)\d\d", citation)) and citation.split(",")[0].split()[0] in doc,
        "formula": bool(getattr(family, "formula", "")) and "score =" in doc,
        "cost": bool(getattr(family, "cost", "")) and "per item" in doc,
        "oracle formula": exported in world.oracles,
        "oracle test": world.has_test("training", name, "oracle"),
        "learning test": world.has_test("training", name, "learn", "train"),
        "a place in the manifest": exported in world.exported,
        "artefact round trip": world.has_test("training", name, "says", "export", "round_trip", "artefact"),
        "--model": name in world.offered_models,
        "README": f"`{name}`" in world.readme,
        "FORMAT.md": f"`{name}`" in world.format_page,
        "scorer twin test": world.has_test("service/scorers/test_twin_scorers", exported, "twin"),
        "ranking test": world.has_test("service/ranking", exported, "oracle", "one_answer"),
        "HTTP test": world.has_test("service/http", exported, "oracle"),
        "HTTP twin test": world.has_test("service/http", exported, "twin"),
        "ONNX graphs": exported in world.graphs,
        "ONNX oracle test": world.has_test("models_export/test_onnx_writer", exported, "oracle"),
    }
    if getattr(family, "compiled", True):
        checks |= {
            "kernel": exported in world.kernels,
            "kernel oracle test": world.has_test("service/kernels", exported, "oracle"),
            "twin test": world.has_test("service/kernels", exported, "precomputed", "cached", "twin"),
            "scorer test": world.has_test("service/scorers", exported, "oracle"),
        }
    else:
        checks["no kernel"] = exported not in world.kernels
    return [what for what, there in checks.items() if not there]


def missing_of_method(name: str, trainer: type, world: World) -> list[str]:
    """What the training method ``name`` lacks."""
    module = __import__(trainer.__module__, fromlist=["__doc__"]).__doc__ or ""
    checks = {
        "--method": name in world.offered_methods,
        "docstring": bool(trainer.__doc__) and bool(module),
        "citation": name == "plain" or bool(re.search(r"(19|20)\d\d", f"{module} {trainer.__doc__}")),
        "test": any(test.file.startswith("tests/training") and test.about(name) for test in world.tests),
        "test of resumption": name == "plain" or world.has_test("training", name, "resume"),
        "README": f"`{name}`" in world.readme,
    }
    return [what for what, there in checks.items() if not there]


def missing_of_experiment(experiment: Experiment, shown: Iterable[str], folder: Path = RESULTS) -> list[str]:
    """What the experiment lacks; ``shown``: pages of which one must name it."""
    checks = {
        "<author><year>_<model>_<dataset>": bool(re.fullmatch(r"[a-z]+\d{4}_[a-z0-9]+_[a-z0-9_]+", experiment.name)),
        "paper with year": bool(re.search(r"(19|20)\d\d", experiment.paper)),
        "published figures": any(row.figures for row in experiment.rows),
        "claims": bool(experiment.claims),
        "notes": bool(experiment.notes),
        "a page that names it": any(experiment.name in page for page in shown),
    }
    return [what for what, there in checks.items() if not there] + _missing_results(experiment, folder)


def _missing_results(experiment: Experiment, folder: Path) -> list[str]:
    """What its committed results lack."""
    # A tree with changes must be explained by a note.
    commit = r"[0-9a-f]{12}" + (r"(\+changes)?" if any("+changes" in note for note in experiment.notes) else "")
    names = [f"{experiment.name}.{kind}" for kind in ("json", "md", "png")]
    absent = [f"results/{name}" for name in names if not (folder / name).exists()]
    if absent:
        return absent
    found = json.loads((folder / f"{experiment.name}.json").read_text())
    runs = [run for row in found["rows"] for run in row["runs"]]
    of_rows = {row["label"]: row for row in found["rows"]}
    checks = {
        "results of the whole experiment": not found["quick"]
        and [row.label for row in experiment.rows] == list(of_rows)
        and all(len(of_rows[row.label]["runs"]) == row.seeds for row in experiment.rows),
        "results of these metrics": found["metrics"] == list(experiment.metrics),
        "results of these settings": all(
            _same(row.settings.to_json(), of_rows.get(row.label, {}).get("settings", {})) for row in experiment.rows
        ),
        "a verdict for each claim": len(found["verdicts"]) == len(experiment.claims),
        "commit": bool(runs) and all(re.fullmatch(commit, run["commit"] or "") for run in runs),
        "data fingerprint": all(re.fullmatch(r"[0-9a-f]{64}", f) for f in found["data"]["fingerprints"] or [""]),
        "machine": bool(found["machine"].get("processor")) and found["machine"].get("cores", 0) > 0,
        "no path of a machine in the results": "/work/" not in json.dumps(found) and "/home/" not in json.dumps(found),
    }
    return [what for what, there in checks.items() if not there]


def _same(settings: dict[str, Any], measured: dict[str, Any]) -> bool:
    """Whether the results were measured with these settings; ones that came later are as they were by default."""
    now = json.loads(json.dumps(settings))
    return bool(measured) and all(now.get(name) == value for name, value in measured.items() if name != "seed")
