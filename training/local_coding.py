# mypy: disable-error-code="no-untyped-def"
"""Local coding of a point: which anchors it has for neighbours and their coefficients gamma, which sum to 1.

With d_a the distance of anchor a, nearest first, and K neighbours:

    DO, APL:  gamma_a = exp(-beta d_a^2) / sum over the K nearest, K given
    JO:       gamma minimises |gamma|_2 + <gamma, u> on the simplex, u_a = (L/C) d_a (``squared``: (L/C) d_a^2):
              gamma_a = (lambda_K - u_a) / R,  R = sqrt(K + U^2 - K Q),  lambda_K = (U + R) / K,
              U = sum u, Q = sum u^2 over the K nearest; neighbours are added while lambda_K > u_{K+1}

(Locally Linear Factorization Machine, algorithms 1 to 3; the rule of JO is that of Anava and Levy, "k*-Nearest
Neighbors", NIPS 2016, algorithm 1.) A constant added to all u changes no gamma, so u is taken relative to the nearest.
``service/kernels/llfm.py`` does the same in float32.
"""

import numpy as np
from numba import njit

DO, APL, JO = 0, 1, 2
#: ``FitSettings.locality`` -> the number that compiled code takes.
CODES = {"do": DO, "apl": APL, "jo": JO}


@njit(inline="always")  # type: ignore[misc]
def _next_nearest(distances, taken):
    best, at = np.inf, -1
    for a in range(distances.size):
        if not taken[a] and distances[a] < best:
            best, at = distances[a], a
    return at


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def code(distances, scheme, neighbours, beta, ratio, squared, taken, chosen, gamma, u):
    """Writes the neighbours to ``chosen`` (int64), nearest first, ties by number, with their ``gamma`` (float64), and
    for JO their ``u`` relative to the nearest one's. ``distances``: d^2 float64 [m]; the rest is room for m. Returns
    (K, R); R is 0 but for JO.
    """
    m = distances.size
    taken[:] = False
    if scheme != JO:
        k = min(neighbours, m)
        total = 0.0
        for j in range(k):
            a = _next_nearest(distances, taken)
            if a < 0:  # not a number: nothing is near
                return 0, 0.0
            taken[a] = True
            chosen[j] = a
            gamma[j] = np.exp(-beta * (distances[a] - distances[chosen[0]]))
            total += gamma[j]
        for j in range(k):
            gamma[j] /= total
        return k, 0.0
    k, total, squares, root, bound, first = 0, 0.0, 0.0, 1.0, 1.0, 0.0
    while k < m:
        a = _next_nearest(distances, taken)
        if a < 0:
            return 0, 0.0
        far = distances[a] if squared else np.sqrt(max(distances[a], 0.0))
        if k == 0:
            first = far
        value = ratio * (far - first)
        if value >= bound:
            break
        taken[a] = True
        chosen[k] = a
        u[k] = value
        k += 1
        total += value
        squares += value * value
        root = np.sqrt(max(k + total * total - k * squares, 0.0))
        bound = (total + root) / k
    norm = 0.0
    for j in range(k):
        gamma[j] = bound - u[j]
        norm += gamma[j]
    for j in range(k):
        gamma[j] /= norm
    return k, root


@njit(cache=True, error_model="numpy")  # type: ignore[misc]
def slopes(distances, scheme, beta, ratio, squared, k, root, chosen, gamma, u, scores, out):
    """Df / d(d_a^2) of f = sum_a gamma_a f_a for the K neighbours, into ``out``; ``scores``: f_a, in their order.

    DO, APL: -beta gamma_a (f_a - f). JO: df/du_a = (mean f - f_a) / R - K e_a (f - mean f) / R^2 with
    e_a = U / K - u_a, times du_a / d(d_a^2).
    """
    score = 0.0
    for j in range(k):
        score += gamma[j] * scores[j]
    if scheme != JO:
        for j in range(k):
            out[j] = -beta * gamma[j] * (scores[j] - score)
        return
    mean, centre = 0.0, 0.0
    for j in range(k):
        mean += scores[j] / k
        centre += u[j] / k
    for j in range(k):
        slope = (mean - scores[j]) / root - k * (centre - u[j]) * (score - mean) / (root * root)
        if squared:
            out[j] = slope * ratio
        else:
            far = np.sqrt(max(distances[chosen[j]], 0.0))
            out[j] = slope * ratio / (2.0 * far) if far > 1e-6 else 0.0
