"""Attentional factorization machine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from training.models.base import F32, Along
from training.models.network import NetworkModel, scaled_normal


class AttentionalFM(NetworkModel):
    """score = b0 + sum x_i b_i + p^T sum_{f<g} a_fg (v_f * v_g) over field vectors v_f = sum x_i v_i, where the a_fg
    are the softmax over all pairs of q^T relu(W (v_f * v_g) + c). With single-valued fields this is the paper's sum
    over features; the values of one field do not interact. O(m^2 k t) per example with an attention of width t, and
    per item, since the softmax runs over all pairs. Dropout on the pooled pairs.

    Xiao et al., "Attentional Factorization Machines: Learning the Weight of Feature Interactions via Attention
    Networks", IJCAI 2017 (equations 4 to 6).
    """

    family = "afm"
    citation = "Xiao et al., Attentional Factorization Machines, IJCAI 2017"
    formula = "b0 + sum x b + p^T sum_{f<g} a_fg (v_f * v_g), a = softmax(q^T relu(W (v_f * v_g) + c))"
    cost = "m^2 k t"

    def initial(self, rng: np.random.Generator, std: float) -> dict[str, F32]:
        """``attention.weight`` W [t, k], ``attention.bias`` c [t], ``attention.out`` q [t], ``out.weight`` p [k]. The
        width t is ``hidden``'s one number, else k. q starts at 0 and p at the number of pairs: FM over field vectors.
        """
        k, width = self.shape.dim, (self.shape.dim, *self.shape.hidden)[-1]
        return {
            "attention.weight": scaled_normal(rng, (width, k), k),
            "attention.bias": np.zeros(width, np.float32),
            "attention.out": np.zeros(width, np.float32),
            "out.weight": np.full(k, math.comb(self.shape.n_fields, 2), np.float32),
        }

    def interaction(self, vectors: torch.Tensor, norms: torch.Tensor, training: bool) -> torch.Tensor:
        """P^T sum a_fg (v_f * v_g), [n]."""
        pairs: torch.Tensor = _PairProducts.apply(vectors)  # type: ignore[no-untyped-call]
        weight, bias, out = (self.tensors[name] for name in ("attention.weight", "attention.bias", "out.weight"))
        if training and self.shape.dropout > 0.0:
            attention = self._attention(torch.nn.functional.linear(pairs, weight, bias))
            return self.dropped((attention[:, :, None] * pairs).sum(0), training) @ out
        # p^T may be taken inside the sum, and then with W: the pairs, which are many, are read once.
        both = torch.nn.functional.linear(pairs, torch.cat([weight, out[None]]))
        return (self._attention(both[:, :, :-1] + bias) * both[:, :, -1]).sum(0)

    def _attention(self, hidden: torch.Tensor) -> torch.Tensor:
        """Weights [pairs, n] of hidden units [pairs, n, t] before the relu."""
        return torch.softmax(torch.relu(hidden) @ self.tensors["attention.out"], 0)

    def along_x(self, *gathered: torch.Tensor) -> Along:
        """See the base; the pairs' products are of degree 2, so W (v_f * v_g) and p^T (v_f * v_g) are."""
        vectors = gathered[0]
        pairs: torch.Tensor = _PairProducts.apply(vectors)  # type: ignore[no-untyped-call]
        both = torch.nn.functional.linear(
            pairs, torch.cat([self.tensors["attention.weight"], self.tensors["out.weight"][None]])
        )
        inner, value, query = both[:, :, :-1], both[:, :, -1], self.tensors["attention.out"]
        hidden = torch.relu(inner + self.tensors["attention.bias"])
        attention = torch.softmax(hidden @ query, 0)
        slope = (2.0 * inner * (hidden > 0.0)) @ query
        change = slope - (attention * slope).sum(0)
        return (attention * value).sum(0), (attention * value * (change + 2.0)).sum(0)


def _by_first(pairs: torch.Tensor, m: int) -> tuple[torch.Tensor, ...]:
    """The pairs of each first of ``m`` fields but the last (views)."""
    return torch.split(pairs, list(range(m - 1, 0, -1)))


class _PairProducts(torch.autograd.Function):
    """v_f * v_g for all f < g, [m (m - 1) / 2, n, k] of [m, n, k], in the order of ``np.triu_indices``. Indexing would
    copy both factors, and its backward pass adds element by element.
    """

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(vectors)
        m, n, k = vectors.shape
        out = vectors.new_empty((math.comb(m, 2), n, k))
        for f, part in enumerate(_by_first(out, m)):
            torch.mul(vectors[f], vectors[f + 1 :], out=part)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        (vectors,) = ctx.saved_tensors
        out, m = torch.zeros_like(vectors), len(vectors)
        for f, part in enumerate(_by_first(gradient, m)):
            out[f] += (part * vectors[f + 1 :]).sum(0)
            out[f + 1 :].addcmul_(part, vectors[f])
        return out
