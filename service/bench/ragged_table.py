"""Random RaFM rows for the kernel benchmark: two ranks, of which a share of the features has the longer."""

from __future__ import annotations

import numpy as np

from models_export.ragged_rows import RaggedRows, RaggedShape

RANKS = (8, 32)
LONG_SHARE = 0.25
"""Share of the table's rows that are of group 2."""


def ragged_table(rng: np.random.Generator, n: int) -> RaggedRows:
    """Packed rows of ``n`` features, in memory aligned to cache lines, in huge pages where there are some."""
    from service.kernels._jit import aligned

    shape = RaggedShape(RANKS, (1 + (rng.random(n) < LONG_SHARE)).astype(np.int32))
    rows = aligned((shape.packed_floats,))
    rng.standard_normal(out=rows, dtype=np.float32)
    rows *= 0.1
    if shape.padding_used(rows):
        rows[:] = shape.pack(shape.unpack(rows))
    linear = rng.standard_normal(n, dtype=np.float32) * np.float32(0.1)
    records = aligned((n, 2)).view(np.int32)
    records[:, 0] = shape.row_at
    records.view(np.float32)[:, 1] = shape.folded(rows, linear)
    return RaggedRows(RANKS, rows, records, linear)
