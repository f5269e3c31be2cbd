# Compiled functions state their types in the decorator: mypy cannot read them there.
# mypy: disable-error-code="no-untyped-def"
"""The whole of a request for the best of a slate of catalogue ids, in one compiled call.

    text of ``item_ids`` -> catalogue indices -> best k -> probabilities -> text of ``items``

Each step is the kernel that also stands alone. Together they are spared three passages between Python and compiled
code and a dozen small arrays made there: 6 of 45 microseconds for a slate of 1,000.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import float64, int64, types

from service.kernels._jit import F32_1, F32_2, FLOAT32, I64_1, INT64, OUT_F32_1, OUT_I32_1, kernel
from service.kernels.catalogue import GROUP, gather_top_kernel
from service.kernels.finish import OUT_F64_1, sigmoid
from service.kernels.item_json import OUT_U8_1, write_items
from service.kernels.json_tokens import skip_space
from service.kernels.scan_fields import RAW, TABLES
from service.kernels.scan_known_ids import scan_known_ids, work_words

OTHERWISE = -1
"""What this path leaves to the separate steps: unusual JSON, unknown ids, a large share of a slate (or more than there
is), scores that overflow."""
SELECT_SHARE = 16
"""Share of the slate up to which selecting while scoring beats scoring and sorting."""
SELECT_FEW = 64
"""So few are selected while scoring whatever their share: one call beats the separate steps."""


@cache
def rank_ids_kernel(size: int) -> Any:
    """The kernel for an item side of ``size`` (D) floats per item."""
    top_index = gather_top_kernel(size)

    @kernel(
        types.UniTuple(int64, 2)(
            RAW, TABLES, RAW, I64_1, F32_2, F32_1, FLOAT32, F32_1, INT64, INT64, float64, float64,
            OUT_I32_1, OUT_F32_1, OUT_F64_1, OUT_U8_1,
        )
    )  # fmt: skip
    def rank_ids(
        raw, table, records, offsets, g, beta, alpha, a, limit, k, slope, shift, rows, scores, probabilities, text
    ):
        # Writes the best ``k`` (``rows``, ``scores``, ``probabilities``: empty for none) and their JSON (``text``);
        # returns (candidates, bytes of text), the first ``OTHERWISE`` where the separate steps have to do it.
        index = np.empty(limit + GROUP, np.int32)
        work = np.empty(work_words(len(raw)), np.int64)
        begin = int64(raw.ctypes.data)
        end = begin + len(raw)
        count, at = scan_known_ids(skip_space(begin, end), end, table, index[:limit], work)
        if count < k or (k > SELECT_FEW and count < k * SELECT_SHARE) or skip_space(at, end) != end:
            return OTHERWISE, 0
        padded = count + -count % GROUP
        for i in range(count, padded):
            index[i] = index[count - 1]
        group = np.empty(GROUP, np.float32)
        places = np.empty(k, np.int32)
        top_index(g, beta, alpha, a, index[:padded], count, k, group, scores, places, rows)
        if not sigmoid(scores, slope, shift, probabilities):
            return OTHERWISE, 0
        length = write_items(records, offsets, np.empty((0, 2), np.int32), rows, scores, probabilities, text)
        return (count, length) if length >= 0 else (int64(OTHERWISE), int64(0))

    return rank_ids
