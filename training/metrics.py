"""Metrics of predictions: AUC, log loss, mean squared error, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]

#: Probabilities are clipped to [CLIP, 1 - CLIP] in the log loss, so that one certain error cannot make it infinite.
CLIP = 1e-7


def sigmoid(score: ArrayLike) -> F64:
    """1 / (1 + exp(-score)), without overflow."""
    s = np.asarray(score, dtype=np.float64)
    e = np.exp(-np.abs(s))
    return np.where(s >= 0, 1.0, e) / (1.0 + e)


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """P(score of a positive > score of a negative) + 1/2 P(equal), exact; NaN when one class is absent."""
    y = np.asarray(label) > 0.5
    s = np.asarray(score, dtype=np.float64)
    _, group, size = np.unique(s, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(size) - (size - 1) / 2.0
    positives = int(y.sum())
    negatives = len(y) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    rank_sum = float(mean_rank[group[y]].sum())
    return (rank_sum - positives * (positives + 1) / 2.0) / (positives * negatives)


def log_loss(label: ArrayLike, probability: ArrayLike) -> float:
    """Mean of -y ln p - (1 - y) ln(1 - p), in nats."""
    y = np.asarray(label, dtype=np.float64)
    p = np.clip(np.asarray(probability, dtype=np.float64), CLIP, 1.0 - CLIP)
    return float(-np.mean(y * np.log(p) + (1.0 - y) * np.log1p(-p)))


def accuracy(label: ArrayLike, probability: ArrayLike) -> float:
    """Share of examples whose class is the more probable one; a probability of exactly 1/2 counts as class 1."""
    return float(np.mean((np.asarray(label) > 0.5) == (np.asarray(probability, dtype=np.float64) >= 0.5)))


def mean_squared_error(label: ArrayLike, prediction: ArrayLike) -> float:
    """Mean of (y - prediction)^2."""
    error = np.asarray(label, dtype=np.float64) - np.asarray(prediction, dtype=np.float64)
    return float(np.mean(error * error))


@dataclass(frozen=True)
class ReliabilityBin:
    """Examples whose probability lies in [low, high): their number, mean probability and share of positives."""

    low: float
    high: float
    count: int
    mean_probability: float
    positive_rate: float


def reliability(label: ArrayLike, probability: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Reliability table over ``bins`` equally wide bins of [0, 1]; the last bin includes 1; empty bins are left out."""
    y = np.asarray(label, dtype=np.float64)
    p = np.asarray(probability, dtype=np.float64)
    which = np.minimum((p * bins).astype(np.int64), bins - 1)
    count = np.bincount(which, minlength=bins)
    p_sum, y_sum = np.bincount(which, p, bins), np.bincount(which, y, bins)
    return [
        ReliabilityBin(b / bins, (b + 1) / bins, int(count[b]), float(p_sum[b] / count[b]), float(y_sum[b] / count[b]))
        for b in range(bins)
        if count[b]
    ]


def expected_calibration_error(table: list[ReliabilityBin]) -> float:
    """Mean of |mean probability - share of positives| over the bins, weighted by their counts."""
    total = sum(b.count for b in table)
    return sum(b.count * abs(b.mean_probability - b.positive_rate) for b in table) / total


def binary_metrics(label: ArrayLike, score: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """What ``evaluate`` reports for logistic loss. ``bias`` is mean probability over share of positives, minus 1."""
    table = reliability(label, probability)
    rate = float(np.mean(np.asarray(label, dtype=np.float64)))
    result = {
        "auc": auc(label, score),
        "log_loss": log_loss(label, probability),
        "accuracy": accuracy(label, probability),
        "brier": mean_squared_error(label, probability),
        "ece": expected_calibration_error(table),
        "positive_rate": rate,
    }
    if rate > 0:
        result["bias"] = float(np.mean(np.asarray(probability, dtype=np.float64))) / rate - 1.0
    return result
