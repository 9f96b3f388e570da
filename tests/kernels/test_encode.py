"""Values as levels, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane_kernels.cpu.encode import MOST, OTHER, collect, encode, held
from eravane_kernels.cpu.levelcolumns import LevelColumns

VALUES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -3.0, 7.5, np.nan, 2.0**-130, -1.0])


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, max_size=60), st.sampled_from([np.nan, -1.0]), st.integers(0, 60))
def test_values_become_levels_that_order_them(values: list[float], missing: float, cut: int) -> None:
    x_N = np.array(values, dtype=np.float32)
    here_N = ~np.isnan(x_N) & (x_N != missing)
    known = np.unique(x_N[here_N])
    value_V, many, first = np.zeros(MOST, np.float32), 0, 0
    for part in (x_N[:cut], x_N[cut:]):
        many, row = collect(part, missing, value_V, many)
        if row >= 0:
            break
        first += len(part)
    if len(known) > MOST:
        seen = np.unique(x_N[: first + row + 1][here_N[: first + row + 1]])
        assert row >= 0
        assert len(seen) == MOST + 1
        return
    assert row == -1
    np.testing.assert_array_equal(np.sort(value_V[:many]), known)
    value_L = np.full(MOST, np.inf, np.float32)
    value_L[: len(known)] = known
    code_N = np.empty(len(x_N), np.int8)
    encode(x_N, missing, value_L, code_N)
    np.testing.assert_array_equal(code_N, np.where(here_N, np.searchsorted(known, x_N), -1))


def test_unseen_values_go_where_every_split_sends_them() -> None:
    value_L = np.array([0.0, 0.25, 0.5, np.inf, np.inf], np.float32)
    x_N = np.array([-9.0, 0.1, 0.25, 0.3, 0.5, 99.0, np.nan], np.float32)
    code_N = np.empty(7, np.int8)
    encode(x_N, np.nan, value_L, code_N)
    assert code_N.tolist() == [0, 0, 1, 1, 2, 2, -1]
    for level in (1, 2):
        np.testing.assert_array_equal(code_N[:-1] < level, x_N[:-1] < value_L[level])


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_value_is_reported(value: float) -> None:
    x_N = np.array([1, 2, value], np.float32)
    assert collect(x_N, np.nan, np.zeros(MOST, np.float32), 0) == (2, 2)


def test_levels_held_are_those_that_occur() -> None:
    rng = np.random.default_rng(1)
    x_CN = rng.choice(np.array([-2, -1, 0, 1, 2, 3, 4, 5], np.int8), (30, 4)).astype(np.int8)
    address_SC = (x_CN.ctypes.data + np.arange(30) * x_CN.strides[0]).reshape(1, 30).astype(np.int64)
    columns = LevelColumns(address_SC, np.array([4]), x_CN, True)
    expected = [sum({1 << (int(v) + 1) if -1 <= v <= 4 else OTHER for v in row}) for row in x_CN]
    assert held(columns.address_SC, columns.row_S).tolist() == expected
