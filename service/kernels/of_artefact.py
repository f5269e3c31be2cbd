"""A family's kernel over an artefact's arrays, in kernel order: what serves, and what training measures."""

from collections.abc import Callable

import numpy as np

from models_export.reader import Artefact
from service.kernels.dplr import DplrKernel
from service.kernels.fm import FmKernel
from service.kernels.fwfm import FwfmKernel
from service.kernels.rafm import RafmKernel

Kernel = FmKernel | FwfmKernel | DplrKernel | RafmKernel


def _fm(artefact: Artefact) -> Kernel:
    m = artefact.manifest
    bias = float(artefact.global_bias[0])
    return FmKernel(artefact.embedding_rows, m.kp, bias, m.n_multi("context"), m.n_multi("item"))


def _dplr(artefact: Artefact) -> Kernel:
    m = artefact.manifest
    if artefact.U is None or artefact.e is None:
        raise ValueError(f"artefact {artefact.path}: a dplr model needs low_rank_U and low_rank_e, found none")
    return DplrKernel(
        artefact.embedding_rows,
        m.kp,
        float(artefact.global_bias[0]),
        artefact.U[:, m.kernel_order("context")],
        artefact.U[:, m.kernel_order("item")],
        artefact.e,
        m.n_multi("context"),
        m.n_multi("item"),
    )


def _fwfm(artefact: Artefact) -> Kernel:
    m, matrix = artefact.manifest, artefact.field_matrix
    if matrix is None:
        raise ValueError(f"artefact {artefact.path}: a {m.family} model needs field_matrix, found none")
    context, item = m.kernel_order("context"), m.kernel_order("item")
    return FwfmKernel(
        artefact.embedding_rows,
        m.kp,
        float(artefact.global_bias[0]),
        matrix[np.ix_(context, context)],
        matrix[np.ix_(context, item)],
        matrix[np.ix_(item, item)],
        m.family == "pruned_fwfm",
        m.n_multi("context"),
        m.n_multi("item"),
    )


def _rafm(artefact: Artefact) -> Kernel:
    ragged = artefact.ragged
    if ragged is None:
        raise ValueError(f"artefact {artefact.path}: a rafm model needs ragged rows, found none")
    return RafmKernel(ragged.ranks, ragged.rows, ragged.records, ragged.linear, float(artefact.global_bias[0]))


KERNELS: dict[str, Callable[[Artefact], Kernel]] = {
    "fm": _fm,
    "fwfm": _fwfm,
    "pruned_fwfm": _fwfm,
    "dplr": _dplr,
    "rafm": _rafm,
}
"""Manifest family with a query form -> its kernel over the artefact's arrays."""
