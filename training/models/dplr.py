"""FwFM whose field matrix is diagonal plus low rank."""

from __future__ import annotations

import numpy as np
import torch

from training.models.base import F32, FactorModel, truncated_normal


class DiagonalPlusLowRankFM(FactorModel):
    """score = b0 + sum x_i b_i + 1/2 (sum_f d_f |v_f|^2 + sum_r e_r |(U V)_r|^2) with d = -diag(U^T diag(e) U),
    which is FwFM with R = U^T diag(e) U + diag(d) (equations 5, 9, 10; the paper's Algorithm 1 leaves the 1/2 out).
    O(rho m k) per example; O(rho |I| k) per item once the context is known.

    Shtoff et al., "Low Rank Field-Weighted Factorization Machines for Low Latency Item Recommendation", RecSys 2024.
    """

    family = "dplr"
    citation = (
        "Shtoff et al., Low Rank Field-Weighted Factorization Machines for Low Latency Item Recommendation, RecSys 2024"
    )
    formula = "b0 + sum x b + 1/2 (sum_f d_f |v_f|^2 + sum_r e_r |(U V)_r|^2), d = -diag(U^T diag(e) U)"
    cost = "rho |I| k"
    quadratic = True
    ranked = True

    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """``U`` [rho, m] and ``e`` [rho]. Normal; with ``cross`` R starts around 1 for a context and an item field
        and 0 else: 1/2 (a a^T - b b^T) with a = 1 and b = 1 on context, -1 on item fields. Rank 1 starts as FM (R = 1).
        """
        rank = self.shape.rank or 1
        U = truncated_normal(rng, (rank, self.shape.n_fields), std)
        if not self.shape.cross:
            return {"U": U, "e": truncated_normal(rng, (rank,), std)}
        if rank > 1 and self.shape.two_sided:
            half = np.float32(0.5**0.5)
            U[0] += half
            U[1] += np.where(np.arange(self.shape.n_fields) < self.shape.n_context, half, -half)
        else:
            U[0] += 1
        return {"U": U, "e": np.where(np.arange(rank) % 2, -1, 1).astype(np.float32)}

    def interaction(self, vectors: torch.Tensor, norms: torch.Tensor, training: bool) -> torch.Tensor:
        """1/2 (sum_r e_r |(U V)_r|^2 + sum_f d_f |v_f|^2), [n]."""
        m, n, k = vectors.shape
        u, e = self.tensors["U"], self.tensors["e"]
        diagonal = -(e @ (u * u))
        projected = (u @ vectors.reshape(m, n * k)).view(len(e), n, k)
        low_rank = e @ (projected * projected).sum(2)
        return 0.5 * (low_rank + diagonal @ (vectors * vectors).sum(2))

    def small_weights(self) -> dict[str, F32]:
        """``U`` and ``e``."""
        return {"U": self.parameters["U"].copy(), "e": self.parameters["e"].copy()}
