"""How much each row's loss changes with its features: the weighted saliency (dL/dx)^T x of SMFM, for any model.

Wu et al., "Boosting Factorization Machines via Saliency-Guided Mixup", equation 5. Its second form, f dL/df, holds for
functions of degree 1 in x only. An FM's pairwise term is of degree 2, so that x^T df/dx = linear + 2 pairwise (Euler);
what is computed here is (dL/dx)^T x itself.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import Batch
from training.models import Model, Table

F32 = NDArray[np.float32]


def row_losses(loss: str, score: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Log loss of logits, or squared error of predictions, of each row [n]."""
    if loss == "logistic":
        return torch.nn.functional.binary_cross_entropy_with_logits(score, label, reduction="none")
    return torch.nn.functional.mse_loss(score, label, reduction="none")


def losses(model: Model, table: Table, batch: Batch, loss: str) -> F32:
    """Each row's loss [n]."""
    with torch.inference_mode():
        score = model.logits(*table.gather(batch, needs_grad=False))
        return row_losses(loss, score, torch.from_numpy(batch.label)).numpy()


def weighted_saliency(model: Model, table: Table, batch: Batch, loss: str) -> F32:
    """(dL/dx)^T x of each row [n]: by ``Model.along_x`` where the family has it, which needs no backward pass, else by
    dL/dx of each feature.
    """
    with torch.inference_mode():
        gathered = table.gather(batch, needs_grad=False)
        found = model.along_x(*gathered)
        if found is not None:
            linear, (pairwise, slope) = gathered[1], found
            score = model.tensors["bias"] + linear + pairwise
            predicted = torch.sigmoid(score) if loss == "logistic" else 2.0 * score
            target = torch.from_numpy(batch.label) * (1.0 if loss == "logistic" else 2.0)
            return ((predicted - target) * (linear + slope)).numpy()
    return feature_saliency(model, table, batch, loss)[2]


def feature_saliency(model: Model, table: Table, batch: Batch, loss: str) -> tuple[F32, F32, F32]:
    """DL/dx of each active feature of each row's own loss, and its product with x: see ``Table.saliency``."""
    gathered = tuple(tensor.requires_grad_() for tensor in table.gather(batch, needs_grad=False))
    total = row_losses(loss, model.logits(*gathered), torch.from_numpy(batch.label)).sum()
    return table.saliency(batch, *torch.autograd.grad(total, gathered, allow_unused=True))
