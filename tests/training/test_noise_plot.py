"""The picture of robustness: what it draws is the loss of AUC under noise on x."""

import re

import matplotlib.pyplot as plt
import pytest

from tests.training.prepared_log import write_log
from training.experiment import load_experiment
from training.plots import PLOTS
from training.progress import Progress
from training.reproduction import reproduce

TOML = """
name = "noise"
title = "Noise"
paper = "Nobody"
spec = "spec.toml"
metrics = ["auc"]
seeds = [1, 2]
notes = []
[settings]
model = "fm"
dim = 4
epochs = 6
batch_size = 64
learning_rate = 0.1
[[rows]]
label = "FM"
[[rows]]
label = "MixFM"
method = "mixfm"
[[plots]]
kind = "noise"
rows = ["FM", "MixFM"]
sizes = [0.1, 3.0]
"""


def test_noise_costs_auc_and_none_costs_none(tmp_path):
    write_log(tmp_path)
    (tmp_path / "noise.toml").write_text(TOML)
    experiment = load_experiment(str(tmp_path / "noise.toml"))
    result = reproduce(experiment, tmp_path, tmp_path / "out", seeds=None, quick=False, jobs=1, progress=Progress())
    figure = plt.figure()
    caption = PLOTS["noise"](result, figure, rows=["FM", "MixFM"], sizes=[0.0, 0.1, 3.0])
    lost = {
        label: [float(x) for x in re.search(rf"\b{label} ([-+.\d, ]+)", caption)[1].rstrip(", ").split(", ")]
        for label in ("FM", "MixFM")
    }
    for none, little, much in lost.values():
        assert none == 0.0 and much < -0.02 and much < little
    assert [line.get_label() for line in figure.axes[0].containers] == ["FM", "MixFM"]
    assert figure.axes[0].get_ylabel() == "change of test AUC"
    plt.close(figure)
    found = result.values("FM", "auc")
    from training.plots.noise import _areas

    assert _areas(result, "FM", 1, [])[0] == pytest.approx(found[1], abs=1e-6)
