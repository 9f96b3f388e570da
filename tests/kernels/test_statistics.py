"""Statistics per (era, column), against pandas and NumPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.777, 0.95, 1.0)


def expected(values_CN, offsets, quantiles=QUANTILES):
    """Statistics of float64 columns with NaN, one era and column at a time."""
    shape = (len(offsets) - 1, len(values_CN))
    names = ("count", "missing", "mean", "std", "min", "max", "mode")
    result = {name: np.full(shape, np.nan) for name in names}
    result["quantiles"] = np.full((len(quantiles), *shape), np.nan)
    for era in range(shape[0]):
        for column in range(shape[1]):
            cell = pd.Series(values_CN[column, offsets[era] : offsets[era + 1]], dtype=float)
            result["count"][era, column], result["missing"][era, column] = cell.count(), cell.isna().sum()
            if cell.count():
                result["mean"][era, column], result["std"][era, column] = cell.mean(), cell.std(ddof=0)
                result["min"][era, column], result["max"][era, column] = cell.min(), cell.max()
                result["mode"][era, column] = cell.mode().min()
                result["quantiles"][:, era, column] = cell.quantile(list(quantiles))
    return result


def check(stats, values_CN, offsets):
    for name, wanted in expected(values_CN, offsets).items():
        suffix = "QEC" if name == "quantiles" else "EC"
        given_ = getattr(stats, f"{name}_{suffix}")
        assert given_.dtype == (np.int64 if name in ("count", "missing") else np.float64)
        np.testing.assert_allclose(given_, wanted, rtol=1e-12, atol=1e-13, err_msg=name)


def as_float(levels_CN):
    return np.where(levels_CN == -1, np.nan, levels_CN)


def levels_of(rng, columns, rows):
    x_CN = rng.integers(-1, 5, (columns, rows)).astype(np.int8)
    x_CN[0], x_CN[1] = -1, 2
    return x_CN


def test_level_counts_equal_a_count_of_every_value(ops, rng, edge_offsets):
    x_CN = levels_of(rng, 4, edge_offsets[-1])
    counts_ECL = ops.level_counts(x_CN, edge_offsets)
    assert counts_ECL.dtype == np.uint32
    for slot, level in enumerate([0, 1, 2, 3, 4, -1]):
        sums = [(x_CN[:, a:b] == level).sum(axis=1) for a, b in pairwise(edge_offsets)]
        np.testing.assert_array_equal(counts_ECL[..., slot], sums)


def test_level_statistics_equal_pandas(ops, rng, edge_offsets):
    x_CN = levels_of(rng, 5, edge_offsets[-1])
    x_CN[2] = np.where(rng.random(edge_offsets[-1]) < 0.999, 4, 0)
    stats = ops.level_stats(ops.level_counts(x_CN, edge_offsets), QUANTILES)
    check(stats, as_float(x_CN), edge_offsets)


def test_float_statistics_equal_pandas(ops, rng, edge_offsets):
    rows = edge_offsets[-1]
    x_CN = rng.normal(size=(8, rows)).astype(np.float32)
    x_CN[rng.random(x_CN.shape) < 0.1] = np.nan
    x_CN[0], x_CN[1] = np.nan, 0.1
    x_CN[2] = np.round(x_CN[2])
    x_CN[3] = rng.choice([0.0, -0.0], rows)
    x_CN[4] += 1e5
    x_CN[5, edge_offsets[:-1]] = 1e6
    check(ops.float_stats(x_CN, edge_offsets, QUANTILES), x_CN.astype(np.float64), edge_offsets)


def test_era_statistics_choose_by_dtype(ops, rng):
    offsets = np.array([0, 40, 100], dtype=np.int64)
    x_CN = levels_of(rng, 3, 100)
    check(ops.era_stats(x_CN, offsets, QUANTILES), as_float(x_CN), offsets)
    values = as_float(x_CN).astype(np.float32)
    check(ops.era_stats(values, offsets, QUANTILES), as_float(x_CN), offsets)


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_levels_and_eras(ops, data):
    sizes = data.draw(st.lists(st.integers(0, 70), max_size=5))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    shape = (data.draw(st.integers(1, 3)), int(offsets[-1]))
    x_CN = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(-1, 4)))
    check(ops.era_stats(x_CN, offsets, QUANTILES), as_float(x_CN), offsets)


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_floats_and_eras(ops, data):
    sizes = data.draw(st.lists(st.integers(0, 20), max_size=5))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    numbers = st.one_of(st.just(np.nan), st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, -0.0, 1.0]))
    x_CN = data.draw(hnp.arrays(np.float32, (2, int(offsets[-1])), elements=numbers))
    stats = ops.float_stats(x_CN, offsets, QUANTILES)
    wanted = expected(x_CN.astype(np.float64), offsets)
    scale = np.nan_to_num(np.maximum(np.abs(wanted["min"]), np.abs(wanted["max"])))
    assert (np.abs(np.nan_to_num(stats.mean_EC - wanted["mean"])) <= 1e-12 * scale).all()
    assert (np.abs(np.nan_to_num(stats.std_EC - wanted["std"])) <= 1e-7 * scale).all()
    np.testing.assert_array_equal(stats.mode_EC, wanted["mode"])
    np.testing.assert_allclose(stats.quantiles_QEC, wanted["quantiles"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
def test_parts_of_larger_arrays_need_no_copy(ops, rng, dtype):
    whole = rng.integers(0, 5, (9, 301)).astype(dtype)
    offsets = np.array([0, 13, 100], dtype=np.int64)
    for part in (whole[2:7, 5:105], whole[::2, 1:101], whole[::-1, 3:103], np.broadcast_to(whole[4, 7:107], (6, 100))):
        check(ops.era_stats(part, offsets, QUANTILES), part.astype(np.float64), offsets)


@pytest.mark.parametrize(("columns", "sizes"), [(0, [3, 4]), (3, []), (3, [0, 0]), (1, [1])])
def test_nothing_to_count(ops, columns, sizes):
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    for dtype in (np.int8, np.float32):
        x_CN = np.zeros((columns, int(offsets[-1])), dtype=dtype)
        check(ops.era_stats(x_CN, offsets, QUANTILES), x_CN.astype(np.float64), offsets)


def test_columns_that_begin_beyond_two_to_the_31(ops):
    if ops.name == "cuda":
        pytest.skip("the GPU uploads what it is given; its own test makes the array there")
    far = np.zeros(2**31 + 4000, dtype=np.int8)
    far[-4000:] = np.arange(4000) % 5
    x_CN = np.lib.stride_tricks.as_strided(far, (2, 4000), (2**31, 1))
    counts_ECL = ops.level_counts(x_CN, np.array([0, 1000, 4000], dtype=np.int64))
    np.testing.assert_array_equal(counts_ECL[:, 0, 0], [1000, 3000])
    np.testing.assert_array_equal(counts_ECL[:, 1, :5], [[200] * 5, [600] * 5])


def test_more_than_two_to_the_31_cells(ops, rng):
    if ops.name != "cpu":
        pytest.skip("the specification takes minutes; the GPU has test_results_beyond_2_31_cells_on_a_gpu")
    column = rng.integers(-1, 5, 31_000).astype(np.int8)
    x_CN = np.broadcast_to(column, (70_000, 31_000))
    offsets = np.array([0, 30_001, 31_000], dtype=np.int64)
    counts_ECL = ops.level_counts(x_CN, offsets)
    for era, (first, last) in enumerate(pairwise(offsets)):
        wanted = [(column[first:last] == level).sum() for level in (0, 1, 2, 3, 4, -1)]
        np.testing.assert_array_equal(counts_ECL[era], np.broadcast_to(wanted, (70_000, 6)))


@pytest.mark.parametrize("row", [0, 7, 8, 50, 98])
@pytest.mark.parametrize("value", [-128, -2, 5, 6, 7, 8, 16, 64, 127])
def test_a_value_that_is_no_level_is_named(ops, row, value):
    x_CN = np.ones((3, 99), dtype=np.int8)
    x_CN[2, row] = value
    with pytest.raises(ValueError, match=rf"given {value} at column 2, row {row}\b"):
        ops.level_counts(x_CN, np.array([0, 20, 99], dtype=np.int64))


def test_only_levels_pass(ops):
    offsets = np.array([0, 300], dtype=np.int64)
    for value in np.arange(-128, 128, dtype=np.int8):
        x_CN = np.full((1, 300), value)
        if -1 <= value <= 4:
            assert ops.level_counts(x_CN, offsets)[0, 0, value] == 300
        else:
            with pytest.raises(ValueError, match=rf"given {value} at column 0, row 0\b"):
                ops.level_counts(x_CN, offsets)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinity_is_named(ops, value):
    x_CN = np.ones((3, 99), dtype=np.float32)
    x_CN[:, 5] = np.nan
    x_CN[1, 70] = value
    with pytest.raises(ValueError, match=rf"given {value} at column 1, row 70\b"):
        ops.float_stats(x_CN, np.array([0, 20, 99], dtype=np.int64))
