"""One optimiser step on the parameters of one feature, ``[factors..., b]``, for tables of any layout.

The gradient of the penalty 1/2 (l2 |factors|^2 + l2_linear b^2) is added, and the gradient cleared.
"""

# Compiled functions state their types at the call: mypy cannot read them here.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

EPS_ADAGRAD, EPS_ADAM = 1e-10, 1e-8


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def adagrad_row(row, g, h, lr, eps, l2, l2_linear):
    """Adagrad on float32 arrays of one length: parameters, gradient, sum of squares."""
    last = row.size - 1
    g[last] += (l2_linear - l2) * row[last]
    for c in range(row.size):
        d = g[c] + l2 * row[c]
        h[c] += d * d
        row[c] -= lr * d / (np.sqrt(h[c]) + eps)
        g[c] = np.float32(0.0)


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def adam_row(row, g, m, s, step_size, eps, beta1, beta2, root2, l2, l2_linear):
    """Adam on float32 arrays of one length: parameters, gradient, mean, mean square. ``step_size`` is the learning rate
    over 1 - beta1^t, ``root2`` the root of 1 - beta2^t."""
    one = np.float32(1.0)
    last = row.size - 1
    g[last] += (l2_linear - l2) * row[last]
    for c in range(row.size):
        d = g[c] + l2 * row[c]
        m[c] = beta1 * m[c] + (one - beta1) * d
        s[c] = beta2 * s[c] + (one - beta2) * d * d
        row[c] -= step_size * m[c] / (np.sqrt(s[c]) / root2 + eps)
        g[c] = np.float32(0.0)


def adam_constants(learning_rate: float, number: int) -> tuple[np.float32, ...]:
    """``step_size, eps, beta1, beta2, root2`` of :func:`adam_row` at step ``number``, counted from 1."""
    root2 = np.float32(np.sqrt(1 - 0.999**number))
    return (
        np.float32(learning_rate / (1 - 0.9**number)),
        np.float32(EPS_ADAM),
        np.float32(0.9),
        np.float32(0.999),
        root2,
    )
