"""Metrics of one split by loss: what ``fit`` stores, ``evaluate`` prints and the artefact's manifest carries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models_export.calibration import Calibration
from training.metrics import binary_metrics, log_loss, mean_squared_error, sigmoid

#: Among the metrics, numbers that say what they are over.
COUNTS = ("rows", "users")


def evaluate_split(
    loss: str, calibration: Calibration, label: NDArray[np.float32], score: NDArray[np.float32]
) -> dict[str, float]:
    """Metrics of scores. Logistic: of the calibrated probability, with the uncalibrated log loss beside it; squared:
    of the score. Values that the split does not define (the AUC of one class) are left out."""
    if loss == "squared":
        mse = mean_squared_error(label, score)
        found = {"mse": mse, "rmse": float(np.sqrt(mse))}
    else:
        found = binary_metrics(label, score, calibration.probability(score))
        found["log_loss_uncalibrated"] = log_loss(label, sigmoid(score))
    return {"rows": float(len(label))} | {name: value for name, value in found.items() if np.isfinite(value)}
