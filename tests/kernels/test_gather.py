"""Copies of runs of rows against NumPy's slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane_kernels.cpu.gather import gather, place


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_runs_of_columns_lie_one_after_the_other(dtype, seed):
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(1, 300)), int(rng.integers(1, 6))
    x_CN = rng.integers(-128, 128, (columns, rows + 7)).astype(dtype)[:, 3 : rows + 3]
    position_K = rng.integers(0, columns, int(rng.integers(1, 8)))
    edges = np.unique(rng.integers(0, rows + 1, 8))
    run_R2 = np.stack([edges[:-1], edges[1:]], axis=1)[::2]
    place_R = np.cumsum([0, *(run_R2[:, 1] - run_R2[:, 0])])
    out_KN = np.full((position_K.size, place_R[-1]), 99, dtype=dtype)
    gather(x_CN, position_K, np.column_stack([run_R2, place_R[:-1]]).reshape(-1, 3), out_KN)
    parts = [x_CN[position_K, first:last] for first, last in run_R2]
    np.testing.assert_array_equal(out_KN, np.concatenate([out_KN[:, :0], *parts], axis=1))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_columns_at_addresses_are_placed_and_nothing_beside_them(seed):
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(1, 200)), int(rng.integers(1, 6))
    source = [rng.integers(0, 5, rows + 4).astype(np.int8) for _ in range(columns)]
    whole_CN = np.full((columns + 2, rows + 6), 77, dtype=np.int8)
    expected_CN = whole_CN.copy()
    expected_CN[1:-1, 2 : rows + 2] = [values[3 : rows + 3] for values in source]
    address_C = np.array([values.ctypes.data for values in source], dtype=np.int64) + 3
    assert place(address_C, whole_CN[1:-1, 2 : rows + 2], 4)
    np.testing.assert_array_equal(whole_CN, expected_CN)
    source[-1][3 + int(rng.integers(rows))] = rng.choice([-128, -1, 5, 127])
    assert not place(address_C, whole_CN[1:-1, 2 : rows + 2], 4)
    np.testing.assert_array_equal(whole_CN[-2, 2 : rows + 2], source[-1][3 : rows + 3])
