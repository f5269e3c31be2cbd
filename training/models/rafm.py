"""Rank-aware factorization machine."""

from __future__ import annotations

import torch

from models_export.weights import Weights
from training.models.ragged import RaggedModel
from training.ragged_table import RaggedTable


class RankAwareFM(RaggedModel):
    """score = b0 + sum x_i b_i + sum_{i<j} x_i x_j <v_i^(k_ij), v_j^(k_ij)> with k_ij = min(k_i, k_j), over *features*
    (equations 1, 4, 5); v^(p) has D_p coordinates. Computed as B_{1,m} = A_{1,1} + sum_{p>=2} (A_{p,p} - A_{p-1,p})
    (theorem 3). O(sum_p D_p n(F_p)) per example; sum_p D_p n(F_p in I) per item once the context is known.

    Feature i stores v_i^(1) to v_i^(k_i). Trained by Algorithm 1: v_i^(k_i), b and b0 on L(B_{1,m}, y), the lower
    v_i^(p) on L(B_{1,p}, B_{1,p+1}) with the second held fixed. (For log loss B_{1,p+1}'s probability is the label.)

    Chen et al., "RaFM: Rank-Aware Factorization Machines", ICML 2019.
    """

    family = "rafm"
    citation = "Chen et al., RaFM: Rank-Aware Factorization Machines, ICML 2019"
    formula = "b0 + sum x b + sum_{i<j} x_i x_j <v_i^(k_ij), v_j^(k_ij)>, k_ij = min(k_i, k_j)"
    cost = "sum_p D_p n(F_p in I)"
    nested = True

    @classmethod
    def level_sizes(cls, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Level p is v^(p)."""
        return ranks

    def side_loss(self, loss: str, *gathered: torch.Tensor) -> torch.Tensor | None:
        """Sum over p < m of the mean L(B_{1,p}, B_{1,p+1}): the dependent factors' objective (equation 12b)."""
        levels = gathered[0] + (gathered[1] + self.tensors["bias"]).detach()[:, None]
        if levels.shape[1] == 1:
            return None
        score, target = levels[:, :-1], levels[:, 1:].detach()
        if loss == "squared":
            return (score - target).square().mean(0).sum()
        probability = torch.sigmoid(target)
        each = torch.nn.functional.binary_cross_entropy_with_logits(score, probability, reduction="none")
        return each.mean(0).sum()

    def weights(self, table: RaggedTable) -> Weights:
        """Ragged vectors, as stored."""
        return Weights(
            self.family,
            table.factors,
            table.linear,
            float(self.parameters["bias"][0]),
            ranks=table.sizes,
            groups=table.groups.copy(),
        )
