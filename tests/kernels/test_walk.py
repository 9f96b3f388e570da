"""Rows walked down complete trees, against the specification: any depth, segments, missing values on either side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane_kernels.cpu.forest import add_leaves
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.cpu.walk import BLOCK_ROWS, DEEPEST, keys, walk
from eravane_kernels.spec.walk import walk as specified


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    depth=st.integers(1, DEEPEST),
    width=st.integers(1, 20),
    rows=st.lists(st.integers(0, 3 * BLOCK_ROWS // 2), min_size=1, max_size=3),
    missing=st.sampled_from(["none", "lowest", "learned", "left"]),
)
def test_rows_end_where_the_specification_says(
    seed: int, depth: int, width: int, rows: list[int], missing: str
) -> None:
    rng, total = np.random.default_rng(seed), sum(rows)
    x_CN = rng.integers(0 if missing == "none" else -1, 5, (width, total)).astype(np.int8)
    column_TK = rng.integers(-1, width, (3, 2**depth - 1)).astype(np.int32)
    below_TK = rng.integers(-1, 7, column_TK.shape).astype(np.int8)
    share = {"learned": 0.5, "left": 0.0}.get(missing)
    right_TK = None if share is None else rng.random(column_TK.shape) < share
    if right_TK is not None:
        below_TK = np.maximum(below_TK, 1).astype(np.int8)  # a split of levels
    leaf_TL = rng.normal(size=(3, 2**depth)).astype(np.float32)
    expected_N = rng.normal(size=total).astype(np.float32)
    found_N, unfolded_N = expected_N.copy(), expected_N.copy()
    specified(x_CN, column_TK, below_TK, right_TK, leaf_TL, expected_N)
    columns = LevelColumns.of([np.ascontiguousarray(part) for part in np.split(x_CN, np.cumsum(rows)[:-1], axis=1)])
    assert walk(columns.address_SC, columns.row_S, keys(column_TK, below_TK, right_TK), leaf_TL, found_N)
    np.testing.assert_array_equal(found_N, expected_N)
    if right_TK is None and depth <= 7:
        add_leaves(x_CN, column_TK, below_TK, leaf_TL, unfolded_N)
        np.testing.assert_array_equal(unfolded_N, expected_N)


@pytest.mark.parametrize("value", [-2, 14, 100, -128])
def test_values_that_fit_no_word_are_reported(value: int) -> None:
    x_CN = np.zeros((9, 600), dtype=np.int8)
    x_CN[8, 599] = value
    columns, total_N = LevelColumns(*_lying(x_CN), False), np.zeros(600, np.float32)
    key_TK = keys(np.zeros((1, 1), np.int32), np.ones((1, 1), np.int8), None)
    assert not walk(columns.address_SC, columns.row_S, key_TK, np.zeros((1, 2), np.float32), total_N)


def _lying(x_CN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    address_SC = (x_CN.ctypes.data + np.arange(len(x_CN)) * x_CN.strides[0])[None].astype(np.int64)
    return address_SC, np.array([x_CN.shape[1]]), x_CN
