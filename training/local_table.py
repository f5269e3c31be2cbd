# mypy: disable-error-code="no-untyped-def"
"""LLFM's parameters and its compiled per-sample gradient step.

Anchor a has a place z_a in feature space and a factorization machine of its own over all n features:

    f_a(x) = bias_a + sum x_i w_ia + 1/2 (|sum x_i v_ia|^2 - sum x_i^2 |v_ia|^2)
    f(x) = b0 + sum_a gamma_a(x) f_a(x)

gamma as ``local_coding`` says. A step costs O(nnz m + K nnz k) for m anchors, K neighbours, whatever n is: moving an
anchor towards or away from x, z <- (1 - c) z + c x, is a change of its scale and of nnz numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from training.batches import Batch, Layout
from training.local_coding import CODES, DO, code, slopes
from training.sparse_rows import SparseRows
from training.trainers.settings import FitSettings

F32 = NDArray[np.float32]
#: Steps between two shrinkings of the weights by the L2.
SHRINK_EVERY = 1000
#: Largest share of its way to (or from) a point that an anchor moves in one step.
MOST_MOVE = 0.5


@njit(inline="always")  # type: ignore[misc]
def _distances(index, x, begin, end, anchors, scale, norms, out):
    """Squared distances of the anchors ``scale[a] anchors[:, a]`` of squared norm ``norms[a]``."""
    out[:] = 0.0
    square = 0.0
    for p in range(begin, end):
        value, row = np.float64(x[p]), anchors[index[p]]
        square += value * value
        for a in range(out.size):
            out[a] += value * row[a]
    for a in range(out.size):
        out[a] = square - 2.0 * scale[a] * out[a] + norms[a]


@njit(inline="always")  # type: ignore[misc]
def _machine(index, x, begin, end, vectors, linear, bias, a, total):
    """f_a, and sum x_i v_ia in ``total``."""
    score, norms = np.float64(bias[a]), 0.0
    total[:] = 0.0
    for p in range(begin, end):
        i, value = index[p], np.float64(x[p])
        score += value * linear[i, a]
        row = vectors[i, a]
        for c in range(total.size):
            part = value * row[c]
            total[c] += part
            norms += part * part
    square = 0.0
    for c in range(total.size):
        square += total[c] * total[c]
    return score + 0.5 * (square - norms)


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def _scores(indptr, index, x, vectors, linear, bias, anchors, scheme, neighbours, beta, ratio, squared, out):
    m, k = linear.shape[1], vectors.shape[2]
    scale, norms = np.ones(m), np.zeros(m)
    for i in range(anchors.shape[0]):
        for a in range(m):
            norms[a] += np.float64(anchors[i, a]) ** 2
    far, gamma, u, total = np.empty(m), np.empty(m), np.empty(m), np.empty(k)
    taken, chosen = np.zeros(m, np.bool_), np.empty(m, np.int64)
    for r in range(out.size):
        begin, end = indptr[r], indptr[r + 1]
        _distances(index, x, begin, end, anchors, scale, norms, far)
        count, _ = code(far, scheme, neighbours, beta, ratio, squared, taken, chosen, gamma, u)
        score = 0.0 if count else np.nan
        for j in range(count):
            score += gamma[j] * _machine(index, x, begin, end, vectors, linear, bias, chosen[j], total)
        out[r] = score


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def _train(
    indptr, index, x, label, order, logistic, b0, vectors, linear, bias, anchors,
    scheme, neighbours, beta, ratio, squared, rate, anchor_rate, l2, l2_linear, first_step,
):  # fmt: skip
    """One sample after the other, in ``order``; returns the sum of their losses before their step. ``anchors`` float64
    [n, m] is changed in place like the rest.
    """
    m, k = linear.shape[1], vectors.shape[2]
    scale, norms = np.ones(m), np.zeros(m)
    for i in range(anchors.shape[0]):
        for a in range(m):
            norms[a] += anchors[i, a] ** 2
    far, gamma, u, slope, parts = np.empty(m), np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    totals = np.empty((m, k))
    taken, chosen = np.zeros(m, np.bool_), np.empty(m, np.int64)
    losses = 0.0
    for t in range(order.size):
        r = order[t]
        begin, end = indptr[r], indptr[r + 1]
        step = first_step + t
        eta = rate / (1.0 + l2 * rate * step)
        _distances(index, x, begin, end, anchors, scale, norms, far)
        count, root = code(far, scheme, neighbours, beta, ratio, squared, taken, chosen, gamma, u)
        if count == 0:
            return np.nan
        score = b0
        for j in range(count):
            parts[j] = _machine(index, x, begin, end, vectors, linear, bias, chosen[j], totals[j])
            score += gamma[j] * parts[j]
        y = np.float64(label[r])
        if logistic:
            e = np.exp(-abs(score))
            losses += np.log1p(e) + max(score, 0.0) - y * score
            g = (1.0 / (1.0 + e) if score >= 0.0 else e / (1.0 + e)) - y
        else:
            g = score - y
            losses += g * g
        if scheme != DO:
            slopes(far, scheme, beta, ratio, squared, count, root, chosen, gamma, u, parts, slope)
        for j in range(count):
            a = chosen[j]
            pull = eta * g * gamma[j]
            total = totals[j]
            bias[a] -= pull
            for p in range(begin, end):
                i, value = index[p], np.float64(x[p])
                linear[i, a] -= pull * value
                row = vectors[i, a]
                for c in range(k):
                    row[c] -= pull * value * (total[c] - value * row[c])
        if scheme != DO:
            square = 0.0
            for p in range(begin, end):
                square += np.float64(x[p]) ** 2
            for j in range(count):
                a = chosen[j]
                move = 2.0 * eta * anchor_rate * g * slope[j]
                move = min(max(move, -MOST_MOVE), MOST_MOVE)
                product = 0.5 * (square + norms[a] - far[a])
                keep = 1.0 - move
                norms[a] = keep * keep * norms[a] + 2.0 * keep * move * product + move * move * square
                scale[a] *= keep
                for p in range(begin, end):
                    anchors[index[p], a] += move * x[p] / scale[a]
                if not 1e-6 < abs(scale[a]) < 1e6:
                    norms[a] = 0.0
                    for i in range(anchors.shape[0]):
                        anchors[i, a] *= scale[a]
                        norms[a] += anchors[i, a] ** 2
                    scale[a] = 1.0
        if (step + 1) % SHRINK_EVERY == 0 and (l2 > 0.0 or l2_linear > 0.0):
            shrink = np.float32(max(1.0 - SHRINK_EVERY * eta * l2, 0.0))
            shrink_linear = np.float32(max(1.0 - SHRINK_EVERY * eta * l2_linear, 0.0))
            flat, flat_linear = vectors.reshape(-1), linear.reshape(-1)
            for i in range(flat.size):
                flat[i] *= shrink
            for i in range(flat_linear.size):
                flat_linear[i] *= shrink_linear
    for i in range(anchors.shape[0]):
        for a in range(m):
            anchors[i, a] *= scale[a]
    return losses


class LocalTable:
    """``vectors`` float32 [n, m, k], ``linear`` [n, m], ``anchor_bias`` [m] and ``anchors`` [n, m] of n features, m
    anchors. The optimiser has no state: plain gradient steps."""

    def __init__(self, layout: Layout, arrays: Mapping[str, NDArray[Any]], settings: FitSettings) -> None:
        self.layout = layout
        n, m, k = layout.n_features, settings.anchors, settings.dim
        shapes = {"vectors": (n, m, k), "linear": (n, m), "anchor_bias": (m,), "anchors": (n, m)}
        for name, shape in shapes.items():
            if name not in arrays or arrays[name].shape != shape:
                found = arrays[name].shape if name in arrays else "none"
                raise ValueError(f"expected {name} of shape {shape}, found {found}")
        self.vectors, self.linear, self.anchor_bias, self.anchors = (np.array(arrays[n], np.float32) for n in shapes)
        self._coding = (
            CODES[settings.locality], settings.neighbours, settings.beta, settings.lipschitz, settings.paper_compat,
        )  # fmt: skip
        self.settings = settings

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(array.size for array in self.arrays().values())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The parameters by name (views)."""
        return {
            "vectors": self.vectors,
            "linear": self.linear,
            "anchor_bias": self.anchor_bias,
            "anchors": self.anchors,
        }

    def state_arrays(self) -> dict[str, F32]:
        """None."""
        return {}

    def gather(self, batch: Batch, needs_grad: bool) -> tuple[torch.Tensor, ...]:
        """Nothing, and sum_a gamma_a f_a [n]; there are no gradients to be had."""
        if needs_grad:
            raise NotImplementedError("llfm is trained sample by sample, not through torch")
        rows, out = SparseRows.of(batch, self.layout.n_features), np.empty(len(batch), np.float32)
        _scores(*rows, self.vectors, self.linear, self.anchor_bias, self.anchors, *self._coding, out)
        return torch.zeros(0), torch.from_numpy(out)

    def saliency(self, batch: Batch, *gradients: torch.Tensor | None) -> tuple[F32, F32, F32]:
        """Not to be had either."""
        raise NotImplementedError("llfm is trained by the plain method alone")

    def step(self, learning_rate: float, l2: float, l2_linear: float, number: int) -> None:
        """Not to be had either: see :meth:`train`."""
        raise NotImplementedError("llfm is trained sample by sample")

    def train(
        self, rows: SparseRows, label: F32, order: NDArray[np.int64], b0: float, learning_rate: float, first_step: int
    ) -> float:
        """Visit the rows ``order`` one by one, as steps ``first_step``, ...; the sum of their losses before
        their own step. Step t has the rate eta = learning_rate / (1 + l2 learning_rate t) (Bottou), and every
        ``SHRINK_EVERY`` steps the weights shrink by the L2 of so many: 1 - SHRINK_EVERY eta l2.
        """
        s = self.settings
        anchors = self.anchors.astype(np.float64)
        total = _train(
            *rows, label, order, s.loss == "logistic", b0, self.vectors, self.linear, self.anchor_bias, anchors,
            *self._coding, learning_rate, s.anchor_lr_scale, s.l2, s.l2_linear, first_step,
        )  # fmt: skip
        self.anchors[...] = anchors
        return float(total)
