"""The places of quotes against a plain search."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import int64, types

from service.kernels._jit import kernel
from service.kernels.quotes import SLACK, find_quotes
from service.kernels.scan_fields import OUT_I64_1, RAW


@kernel(types.Tuple((int64, types.boolean))(RAW, OUT_I64_1))
def quotes_of(raw, out):  # type: ignore[no-untyped-def]
    base = int64(raw.ctypes.data)
    return find_quotes(base, base + len(raw), int64(out.ctypes.data))


@given(st.text(st.sampled_from('"a,\u00e9'), max_size=400) | st.text(st.sampled_from('"\\a'), max_size=200))
def test_every_quote_is_found(text: str) -> None:
    data = text.encode()
    out = np.full((len(data) + SLACK) // 2 + 2, -1, np.int64)
    out[-1] = 12345
    count, plain = quotes_of(np.frombuffer(data, np.uint8), out)
    assert out.view(np.int32)[:count].tolist() == [i for i, c in enumerate(data) if c == ord('"')]
    assert plain == (b"\\" not in data)
    assert out[-1] == 12345
