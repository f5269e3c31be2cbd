"""Factorization machine."""

from __future__ import annotations

import numpy as np
import torch

from training.models.base import F32, FactorModel


class FactorizationMachine(FactorModel):
    """score = b0 + sum x_i b_i + 1/2 (|sum x_i v_i|^2 - sum x_i^2 |v_i|^2), over *features* (equations 1, 2b of the
    DPLR paper): two values of one multi-valued field interact. O(m k) per example; O(|I| k) per item once the
    context is known.

    Rendle, "Factorization Machines", ICDM 2010.
    """

    family = "fm"
    citation = "Rendle, Factorization Machines, ICDM 2010"
    formula = "b0 + sum x b + 1/2 (|sum x v|^2 - sum x^2 |v|^2)"
    cost = "|I| k"
    quadratic = True
    takes_norms = True

    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """None besides the bias."""
        return {}

    def interaction(self, vectors: torch.Tensor, norms: torch.Tensor, training: bool) -> torch.Tensor:
        """1/2 (|sum v|^2 - norms), [n]."""
        total = vectors.sum(0)
        return 0.5 * ((total * total).sum(1) - norms)
