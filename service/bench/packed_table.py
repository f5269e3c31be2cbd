"""Random tables of packed rows, as the kernels of FM, FwFM and DPLR read them."""

import numpy as np
import numpy.typing as npt


def packed_table(rng: np.random.Generator, n: int, k: int) -> npt.NDArray[np.float32]:
    """Random packed rows: vectors, folded scalars, linear weights."""
    from service.kernels._jit import aligned
    from service.kernels._simd import stride_of

    kp = -(-k // 8) * 8
    table = aligned((n, stride_of(kp)))
    table[:, :k] = rng.standard_normal((n, k), dtype=np.float32) * 0.1
    table[:, kp : kp + 2] = rng.standard_normal((n, 2), dtype=np.float32) * 0.1
    return table
