"""Run by `test_machines.py` in a process that compiles for another machine: every family against the oracle."""

from __future__ import annotations

import sys

import numpy as np

from models_export.manifest import COMPILED_FAMILIES
from service.kernels._simd import host
from service.kernels.catalogue import CatalogueKernel
from tests import oracle
from tests.service.kernels.cases import arrays, make_case


def main() -> int:
    for family in sorted(COMPILED_FAMILIES):
        for dim in (8, 16):
            case = make_case(family, dim=dim, rank=3, singles=(2, 6), n_items=7, scale=0.3)
            state = case.kernel.context_state(arrays(case.context))
            expected = oracle.scores(case.manifest, case.weights, case.context, case.items)
            np.testing.assert_allclose(
                case.kernel.score_items(state, arrays(case.items)), expected, rtol=1e-4, atol=1e-4
            )
    g = np.random.default_rng(0).standard_normal((21, 8)).astype(np.float32)
    places, _ = CatalogueKernel(8).top(g, g[:, 0].copy(), 0.0, g[0], 5)
    assert places.tolist() == np.argsort(-(g @ g[0] + g[:, 0]), kind="stable")[:5].tolist()
    print(host().lanes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
