"""Field-weighted factorization machine."""

from __future__ import annotations

import numpy as np
import torch

from training.models.base import F32, FactorModel, truncated_normal


class FieldWeightedFM(FactorModel):
    """score = b0 + sum x_i b_i + sum_{f<g} R_fg <v_f, v_g> over field vectors v_f = sum x_i v_i, R symmetric with a
    zero diagonal (equation 3 of the DPLR paper). O(m^2 k) per example; |I| k + nnz(R_II) k per item once the context
    is known.

    The m(m-1)/2 entries above the diagonal are the parameters (``pairs``, row by row).

    Pan et al., "Field-weighted Factorization Machines for Click-Through Rate Prediction in Display Advertising", WWW
    2018.
    """

    family = "fwfm"
    citation = "Pan et al., Field-weighted Factorization Machines for CTR Prediction in Display Advertising, WWW 2018"
    formula = "b0 + sum x b + sum_{f<g} R_fg <v_f, v_g>"
    cost = "|I| k + nnz(R_II) k"
    quadratic = True

    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """``pairs``: R above the diagonal. Normal; with ``cross`` around 1 for a context and an item field, else 0."""
        m = self.shape.n_fields
        self._upper = np.triu_indices(m, 1)
        place = np.zeros((m, m), dtype=np.int64)
        place[self._upper] = np.arange(len(self._upper[0])) + 1
        self._place = torch.from_numpy(place + place.T)
        pairs = truncated_normal(rng, (m * (m - 1) // 2,), std)
        if self.shape.cross:
            first, second = self._upper
            n = self.shape.n_context
            pairs += ((first < n) & (second >= n)) if self.shape.two_sided else True
        return {"pairs": pairs}

    def used_pairs(self, training: bool) -> torch.Tensor:
        """The entries that the score uses, [m(m-1)/2]."""
        return self.tensors["pairs"]

    def interaction(self, vectors: torch.Tensor, norms: torch.Tensor, training: bool) -> torch.Tensor:
        """1/2 sum_f <v_f, (R V)_f>, [n]."""
        m, n, k = vectors.shape
        pairs = self.used_pairs(training)
        matrix = torch.cat([pairs.new_zeros(1), pairs])[self._place]
        mixed = (matrix @ vectors.reshape(m, n * k)).view(m, n, k)
        return 0.5 * (mixed * vectors).sum((0, 2))

    def small_weights(self) -> dict[str, F32]:
        """``field_matrix`` as scored."""
        m = self.shape.n_fields
        matrix = np.zeros((m, m), dtype=np.float32)
        matrix[self._upper] = self.used_pairs(training=False).detach().numpy()
        return {"field_matrix": matrix + matrix.T}
