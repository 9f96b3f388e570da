"""Bounds, clipping, tables of levels and outlier rows, against NumPy one cell at a time."""

from __future__ import annotations

import numpy as np
import pytest

OFFSETS = np.array([0, 0, 1, 33, 34, 160, 400], dtype=np.int64)
ROWS = 400


def oracle_bounds(values, method, low=0.01, high=0.99, k=3.0):
    held = values[~np.isnan(values)].astype(np.float64)
    if len(held) == 0:
        return np.nan, np.nan
    if method == "winsorize":
        return tuple(np.quantile(held, [low, high]))
    centre = held.mean() if method == "std" else np.median(held)
    spread = held.std() if method == "std" else np.median(np.abs(held - centre))
    return centre - k * spread, centre + k * spread


def columns(rng, kind):
    if kind == "levels":
        x_CN = rng.integers(-1, 5, (6, ROWS)).astype(np.int8)
        x_CN[0], x_CN[1] = -1, 3
        x_CN[2] = np.where(rng.random(ROWS) < 0.02, 4, 1)
        return x_CN, np.where(x_CN == -1, np.nan, x_CN).astype(np.float64)
    x_CN = rng.standard_t(3, (6, ROWS)).astype(np.float32)
    x_CN[rng.random(x_CN.shape) < 0.1] = np.nan
    x_CN[0], x_CN[1] = np.nan, -0.0
    x_CN[2] = np.round(x_CN[2])
    return x_CN, x_CN.astype(np.float64)


@pytest.mark.parametrize("window", [0, 1, 3, 50])
@pytest.mark.parametrize("method", ["winsorize", "std", "mad"])
@pytest.mark.parametrize("kind", ["levels", "floats"])
def test_bounds_equal_numpy_over_the_pooled_eras(ops, rng, kind, method, window):
    x_CN, values_CN = columns(rng, kind)
    low_EC, high_EC = ops.clip_bounds(x_CN, OFFSETS, method, low=0.07, high=0.9, k=1.5, window=window)
    for era in range(len(OFFSETS) - 1):
        pooled = slice(OFFSETS[max(0, era - window)], OFFSETS[era + 1])
        for column in range(len(x_CN)):
            wanted = oracle_bounds(values_CN[column, pooled], method, 0.07, 0.9, 1.5)
            given = low_EC[era, column], high_EC[era, column]
            np.testing.assert_allclose(given, wanted, rtol=1e-12, atol=1e-12)


def test_defaults_are_one_percent_three_deviations_and_the_era_alone(ops, rng):
    x_CN, values_CN = columns(rng, "floats")
    for method in ("winsorize", "std"):
        low_EC, high_EC = ops.clip_bounds(x_CN, OFFSETS, method)
        np.testing.assert_allclose((low_EC[5, 3], high_EC[5, 3]), oracle_bounds(values_CN[3, 160:], method), rtol=1e-12)


def test_small_deviations_far_from_zero(ops, rng):
    x_CN = (1e6 + rng.normal(size=(1, ROWS))).astype(np.float32)
    x_CN[0, OFFSETS[:-1]] = np.nan
    low_EC, high_EC = ops.clip_bounds(x_CN, OFFSETS, "std", k=1.0)
    wanted = [np.nanstd(x_CN[0, a:b].astype(np.float64)) for a, b in ((34, 160), (160, 400))]
    np.testing.assert_allclose((high_EC - low_EC)[4:, 0] / 2, wanted, rtol=1e-9)


def test_later_eras_do_not_move_earlier_bounds(ops, rng):
    x_CN, _ = columns(rng, "floats")
    changed = x_CN.copy()
    changed[:, 160:] = 7.0
    for method in ("winsorize", "std", "mad"):
        before = ops.clip_bounds(x_CN, OFFSETS, method, window=2)
        after = ops.clip_bounds(changed, OFFSETS, method, window=2)
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old[:5], new[:5])


def test_clip_equals_numpy_and_keeps_nan(ops, rng):
    x_CN, _ = columns(rng, "floats")
    low_EC = np.quantile(rng.normal(size=(9, 6, 6)), 0.3, axis=0)
    high_EC = low_EC + rng.random((6, 6))
    low_EC[5, 3], high_EC[4, 4] = np.nan, np.nan
    result = ops.clip(x_CN, OFFSETS, low_EC, high_EC)
    assert result.dtype == np.float32
    for era in range(6):
        part = slice(OFFSETS[era], OFFSETS[era + 1])
        low, high = np.nan_to_num(low_EC[era], nan=-np.inf), np.nan_to_num(high_EC[era], nan=np.inf)
        wanted = np.clip(x_CN[:, part], low[:, None].astype(np.float32), high[:, None].astype(np.float32))
        np.testing.assert_array_equal(result[:, part], wanted)


def test_a_table_replaces_every_level(ops, rng):
    x_CN, _ = columns(rng, "levels")
    table_ECL = rng.integers(-1, 5, (6, 6, 6)).astype(np.int8)
    result = ops.apply_table(x_CN, OFFSETS, table_ECL)
    assert result.dtype == np.int8
    for era in range(6):
        for column in range(6):
            part = slice(OFFSETS[era], OFFSETS[era + 1])
            wanted = [table_ECL[era, column, value if value >= 0 else 5] for value in x_CN[column, part]]
            np.testing.assert_array_equal(result[column, part], np.array(wanted, dtype=np.int8))


def test_clip_table_limits_levels_like_clip_and_round(ops):
    low_EC = np.array([[-2.0, 0.4, 0.5, 1.5, 2.0, np.nan, 9.0]])
    high_EC = np.array([[7.0, 3.6, 3.5, 2.5, 2.0, 1.2, 9.0]])
    table_ECL = ops.clip_table(low_EC, high_EC)
    wanted = [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2, 2, 2, 2, 2]]
    wanted += [[2, 2, 2, 2, 2], [0, 1, 1, 1, 1], [4, 4, 4, 4, 4]]
    np.testing.assert_array_equal(table_ECL[0, :, :5], wanted)
    np.testing.assert_array_equal(table_ECL[..., 5], -1)


def test_tables_compose_to_one_pass(ops, rng):
    x_CN, _ = columns(rng, "levels")
    first = ops.clip_table(*ops.clip_bounds(x_CN, OFFSETS, "winsorize", low=0.3, high=0.7))
    then = ops.fill_table(ops.fill_values(x_CN, OFFSETS, "median"))
    at_once = ops.apply_table(x_CN, OFFSETS, ops.compose_tables(first, then))
    in_turn = ops.apply_table(ops.apply_table(x_CN, OFFSETS, first), OFFSETS, then)
    np.testing.assert_array_equal(at_once, in_turn)
    assert (first[5, 3] != [0, 1, 2, 3, 4, -1]).any()


def test_an_infinity_is_named(ops, rng):
    x_CN, _ = columns(rng, "floats")
    x_CN[4, 200] = np.inf
    bound_EC = np.zeros((6, 6))
    for call in (
        lambda: ops.clip_bounds(x_CN, OFFSETS),
        lambda: ops.clip_bounds(x_CN, OFFSETS, "std"),
        lambda: ops.clip_bounds(x_CN, OFFSETS, "mad"),
        lambda: ops.clip(x_CN, OFFSETS, bound_EC, bound_EC),
    ):
        with pytest.raises(ValueError, match=r"given inf at column 4, row 200\b"):
            call()


def test_values_that_are_no_levels_are_named(ops):
    x_CN = np.full((2, 100), 7, dtype=np.int8)
    table_ECL = np.zeros((1, 2, 6), dtype=np.int8)
    with pytest.raises(ValueError, match=r"given 7 at column 0, row 0\b"):
        ops.apply_table(x_CN, np.array([0, 100]), table_ECL)
