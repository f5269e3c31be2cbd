"""DiFacto: one vector per feature, as long as the feature is frequent."""

from __future__ import annotations

import numpy as np

from models_export.weights import Weights
from training.models.ragged import RaggedModel
from training.ragged_table import RaggedTable


class DiFacto(RaggedModel):
    """score = b0 + sum x_i b_i + sum_{i<j} x_i x_j sum_{c < min(K_i, K_j)} v_ic v_jc over *features*: an FM in which
    feature i has the first K_i coordinates only, K_i one of the ranks. O(sum_i K_i) per example; as FM, |I| k per item
    once the context is known.

    Trained ragged; exported as family ``fm`` with vectors padded by zeros, which is the same function.

    Li et al., "DiFacto: Distributed Factorization Machines", WSDM 2016 (its frequency-adaptive dimension; not its
    L1 penalty and its asynchronous optimiser).
    """

    family = "difacto"
    citation = "Li et al., DiFacto: Distributed Factorization Machines, WSDM 2016"
    formula = "b0 + sum x b + sum_{i<j} x_i x_j sum_{c < min(K_i, K_j)} v_ic v_jc"
    cost = "|I| k"
    nested = False
    exported_as = "fm"

    @classmethod
    def level_sizes(cls, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Level p continues the vector from D_{p-1} to D_p coordinates."""
        return tuple(b - a for a, b in zip((0, *ranks), ranks, strict=False))

    def weights(self, table: RaggedTable) -> Weights:
        """The FM of the zero-padded vectors."""
        length = np.cumsum(table.sizes)[table.groups - 1]
        vectors = np.zeros((len(table.groups), sum(table.sizes)), dtype=np.float32)
        vectors[np.arange(vectors.shape[1]) < length[:, None]] = table.factors
        return Weights("fm", vectors, table.linear, float(self.parameters["bias"][0]))
