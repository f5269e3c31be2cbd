"""Encoded rows in which every field is missing: what warm-up runs on."""

import numpy as np

from models_export.encoded import EncodedSide
from models_export.manifest import Manifest, Side


def missing_side(manifest: Manifest, side: Side, n: int) -> EncodedSide:
    """``n`` rows of a side, each field's id 0."""
    first = [manifest.offsets[f] for f in manifest.kernel_order(side)]
    n_multi = manifest.n_multi(side)
    n_single = len(first) - n_multi
    rows = np.tile(np.array(first[:n_single], np.int32), (n, 1))
    multi = np.tile(np.array(first[n_single:], np.int32), n)
    indptr = np.arange(n * n_multi + 1, dtype=np.int64)
    return EncodedSide(rows, indptr, multi, np.ones(len(multi), np.float32))
