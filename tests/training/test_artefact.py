"""Export: what the trainer says is what the compiled kernels say; same run, same bytes."""

import numpy as np
import pytest

from models_export.encoded import EncodedSide
from models_export.errors import ArtefactError
from models_export.onnx_files import GRAPHS
from models_export.reader import read_artefact
from models_export.registry import Registry
from service.scorers.numba_scorer import make_scorer
from tests import oracle
from tests.training.prepared_log import prepare_log
from training.artefact import export_run, publish_run
from training.batches import Layout
from training.models import FAMILIES
from training.run import fit, labelled
from training.trainers.plain import predict
from training.trainers.settings import FitSettings


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_log(tmp_path_factory.mktemp("log"))


def halves(prepared, i):
    """Context and item side of one test row: context fields come first among single- and among multi-valued columns."""
    row = prepared.split("test").encoded.take(np.array([i]))
    fields = prepared.fields
    out, multi_at, single_at = [], 0, 0
    for side in ("context", "item"):
        single = sum(f.side == side and f.kind != "multi" for f in fields)
        multi = sum(f.side == side and f.kind == "multi" for f in fields)
        indptr = row.multi_indptr[multi_at : multi_at + multi + 1]
        values = slice(indptr[0], indptr[-1])
        rows = row.rows[:, single_at : single_at + single]
        out.append(
            EncodedSide(
                np.ascontiguousarray(rows), indptr - indptr[0], row.multi_rows[values], row.multi_weights[values]
            )
        )
        single_at, multi_at = single_at + single, multi_at + multi
    return out


@pytest.mark.parametrize("family", sorted(name for name, family in FAMILIES.items() if family.compiled))
def test_kernels_say_what_the_trainer_says(prepared, tmp_path, family):
    calibration = "isotonic" if family == "fm" else "platt"
    settings = FitSettings(
        model=family, dim=5, learning_rate=0.1, batch_size=64, epochs=4, init_std=0.2, field_init_std=0.3,
        calibration=calibration,
    )  # fmt: skip
    run = fit(prepared, settings, tmp_path / "run")
    manifest = export_run(run, prepared, "small", tmp_path / "artefact")
    assert manifest.calibration == run.calibration and run.calibration.kind == calibration
    artefact = read_artefact(tmp_path / "artefact")
    scorer = make_scorer(artefact)
    trainer = predict(*run.restore(Layout.of(prepared.fields)), labelled(prepared, "test"))
    expected = run.calibration.probability(trainer)
    assert np.ptp(expected) > 0.2
    for i in range(60):
        context, item = halves(prepared, i)
        score = scorer.score_items(scorer.context_state(context), item)
        assert artefact.manifest.calibration.probability(score)[0] == pytest.approx(expected[i], abs=1e-5)


@pytest.mark.parametrize("family", sorted(name for name, family in FAMILIES.items() if not family.compiled))
def test_an_exported_network_says_what_the_trainer_says(prepared, tmp_path, family):
    """The artefact's arrays in the oracle's formula, since no kernel is compiled for it."""
    settings = FitSettings(
        model=family, dim=5, rank=None, learning_rate=0.05, batch_size=64, epochs=4, init_std=0.2, dropout=0.1,
        hidden=(6,) if family == "afm" else (6, 4), cross_layers=2,
    )  # fmt: skip
    run = fit(prepared, settings, tmp_path / "run")
    export_run(run, prepared, "small", tmp_path / "artefact")
    artefact = read_artefact(tmp_path / "artefact")
    with pytest.raises(ValueError, match=f"no compiled kernel for family '{family}'"):
        make_scorer(artefact)
    rows = labelled(prepared, "test")
    trainer = predict(*run.restore(Layout.of(prepared.fields)), rows)
    assert np.ptp(trainer) > 0.5
    fields = prepared.fields
    order = sorted(range(len(fields)), key=lambda f: fields[f].kind == "multi")
    for i in range(60):
        values = [[] for _ in fields]
        oracle.place(values, order, rows.n_multi, rows.encoded, i)
        expected = oracle.FORMULAS[family](artefact.weights(), values)
        assert trainer[i] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_same_run_same_bytes_and_versions_count_up(prepared, tmp_path):
    run = fit(prepared, FitSettings(dim=3, epochs=1, batch_size=64), tmp_path / "run")
    registry = Registry(tmp_path / "registry")
    versions = [publish_run(run, prepared, registry, "small", activate=flag) for flag in (True, False)]
    assert versions == ["v000001", "v000002"] and registry.active("small") == "v000001"
    folders = [registry.path("small", v) for v in versions]
    names = sorted(p.name for p in folders[0].iterdir())
    others = ["items.safetensors", "manifest.json", "vocabulary.safetensors", "weights.safetensors"]
    assert names == sorted([*others, *GRAPHS])
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_manifest_tells_where_the_model_comes_from(prepared, tmp_path):
    run = fit(prepared, FitSettings(dim=3, epochs=1, batch_size=64), tmp_path / "run")
    manifest = export_run(run, prepared, "small", tmp_path / "artefact")
    assert manifest.training["fingerprint"] == prepared.fingerprint
    assert manifest.training["settings"]["learning_rate"] == run.settings.learning_rate
    assert manifest.metrics["test_auc"] == run.metrics["test"]["auc"]
    assert manifest.rank == 2 and manifest.item_id_field == "item"


def test_a_bad_name_is_refused(prepared, tmp_path):
    run = fit(prepared, FitSettings(dim=3, epochs=1, batch_size=64), tmp_path / "run")
    with pytest.raises(ArtefactError, match="model name"):
        publish_run(run, prepared, Registry(tmp_path), "../outside", activate=False)
