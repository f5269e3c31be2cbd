"""Experiment files are parsed strictly: each mistake is named."""

import pytest

from tests.training.test_reproduction import SMALL
from training.errors import UsageError
from training.experiment import load_experiment, parse_experiment


def test_a_file_becomes_rows_claims_and_plots(tmp_path):
    experiment = parse_experiment(SMALL, "small")
    fm, dplr, pruned = experiment.rows
    assert (fm.settings.model, fm.settings.dim, fm.settings.rank, fm.quick.dim, fm.quick.epochs) == (
        "fm",
        3,
        None,
        2,
        2,
    )
    assert fm.settings.calibration == "none"
    assert fm.figures == {"published": {"mse": 0.5}, "BARS": {"rmse": 0.7}}
    assert (dplr.seeds, pruned.seeds, dplr.note) == (2, 1, "one of rank 1")
    assert experiment.columns == ["published", "BARS"] and experiment.split_seed == 0
    assert [(c.kind, c.metric) for c in experiment.claims] == [("better", "mse"), ("over", "parameters")]
    assert experiment.plots[0].kind == "curve"


def test_a_spec_is_found_beside_the_experiment_file(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    assert load_experiment(str(tmp_path / "small.toml")).spec == "spec.toml"
    (tmp_path / "spec.toml").touch()
    assert load_experiment(str(tmp_path / "small.toml")).spec == str(tmp_path / "spec.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("metrics =", "measures ="), "missing ['metrics'], unknown ['measures']"),
        (('"mse", "rmse"', '"mse", "f1"'), "metric 'f1': expected one of auc"),
        (('"mse", "rmse"', '"recall@0", "rmse"'), "metric 'recall@0': expected one of auc"),
        (("dim = 3", "dimension = 3"), "row 'FM': unknown setting 'dimension'"),
        (("dim = 3", "dim = 0"), "row 'FM': dim: expected at least 1, found 0"),
        (('than = "pruned rank 1"', 'than = "nobody"'), "claim: expected labels of rows, found 'nobody'"),
        (('metric = "parameters"', 'metric = "auc"'), "claim: expected a metric of the experiment, found 'auc'"),
        (("at_most = 1.0", ""), "expected the keys of one kind of claim"),
        (("at_most = 1.0", "at_mots = 1.0"), "expected the keys of one kind of claim"),
        (("seeds = [1, 2]", "seeds = 1 2"), "expected an experiment file"),
        (("seeds = [1, 2]", "seeds = [1, 1]"), "seeds: expected distinct numbers"),
        (("seeds = 1\n", "seeds = 3\n"), "row 'pruned rank 1': seeds: expected 1 to 2"),
        (('label = "FM"', 'label = "dplr RANK-1"'), "rows: expected labels that differ"),
        (("published = { mse = 0.5 }", "published = { auc = 0.5 }"), "published: expected figures of mse"),
        (('kind = "curve"', 'kind = "pie"'), "plot 'pie': expected one of table, curve"),
        (('x = "dim"', 'y = "dim"'), "plot 'curve': missing a required argument: 'x'"),
        (('name = "small', 'best_epoch = "last"\nname = "small'), "best_epoch: expected one of loss, each metric"),
        (('name = "small', 'split_seed = -1\nname = "small'), "split_seed: expected a number, or 'seed'"),
    ],
)
def test_a_bad_experiment_file_is_refused(change, message):
    assert change[0] in SMALL
    with pytest.raises(UsageError) as error:
        parse_experiment(SMALL.replace(*change, 1), "small.toml")
    assert "small.toml: " in str(error.value) and message in str(error.value)
