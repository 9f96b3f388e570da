"""Missing values, against pandas and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import KNNImputer

OFFSETS = np.array([0, 0, 1, 32, 65, 220], dtype=np.int64)
ROWS = 220


def floats(rng, columns=6):
    x_CN = rng.normal(size=(columns, ROWS)).astype(np.float32)
    x_CN[rng.random(x_CN.shape) < 0.2] = np.nan
    return x_CN


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("method", ["mean", "median", "mode"])
@pytest.mark.parametrize("kind", ["levels", "floats"])
def test_fills_equal_pandas_over_the_pooled_eras(ops, rng, kind, method, window):
    values = floats(rng)
    values[0], values[1] = np.nan, np.round(values[1])
    x_CN = values
    if kind == "levels":
        x_CN = rng.integers(-1, 5, (6, ROWS)).astype(np.int8)
        x_CN[0] = -1
        values = np.where(x_CN == -1, np.nan, x_CN)
    value_EC = ops.fill_values(x_CN, OFFSETS, method, window=window)
    for era in range(5):
        pooled = slice(OFFSETS[max(0, era - window)], OFFSETS[era + 1])
        for column in range(6):
            cell = pd.Series(values[column, pooled].astype(np.float64)).dropna()
            wanted = np.nan if cell.empty else cell.mode().min() if method == "mode" else getattr(cell, method)()
            np.testing.assert_allclose(value_EC[era, column], wanted, rtol=1e-12, atol=1e-13)


def test_a_constant_fills_every_cell_alike(ops, rng):
    np.testing.assert_array_equal(ops.fill_values(floats(rng), OFFSETS, "constant", constant=2.5), np.full((5, 6), 2.5))


def test_fill_equals_pandas_fillna(ops, rng):
    x_CN = floats(rng)
    x_CN[2] = np.nan
    result = ops.fill(x_CN, OFFSETS, ops.fill_values(x_CN, OFFSETS, "median"))
    frame = pd.DataFrame(x_CN.T)
    era = np.repeat(np.arange(5), np.diff(OFFSETS))
    wanted = frame.fillna(frame.groupby(era).transform("median").astype(np.float32))
    np.testing.assert_allclose(result, wanted.to_numpy().T, rtol=1e-6)
    assert np.isnan(result[2]).all()
    np.testing.assert_array_equal(result[~np.isnan(x_CN)], x_CN[~np.isnan(x_CN)])


def test_fill_table_rounds_half_to_even_and_leaves_nan(ops):
    value_EC = np.array([[0.5, 1.5, 2.4, 7.0, -3.0, np.nan]])
    table_ECL = ops.fill_table(value_EC)
    np.testing.assert_array_equal(table_ECL[0, :, 5], [0, 2, 2, 4, 0, -1])
    np.testing.assert_array_equal(table_ECL[0, :, :5], np.broadcast_to([0, 1, 2, 3, 4], (6, 5)))


def test_indicators_mark_missing_cells(ops, rng):
    x_CN = floats(rng)
    levels_CN = rng.integers(-1, 5, (3, ROWS)).astype(np.int8)
    for given, wanted in ((x_CN, np.isnan(x_CN)), (levels_CN, levels_CN < 0)):
        result = ops.missing_indicators(given)
        assert result.dtype == np.int8
        np.testing.assert_array_equal(result, wanted.astype(np.int8))


def test_an_era_of_twos_throughout_is_missing(ops, rng):
    x_CN = rng.integers(0, 5, (4, ROWS)).astype(np.int8)
    x_CN[1, 32:65] = 2
    x_CN[2, 65:] = 2
    x_CN[2, 100] = -1
    wanted = np.zeros((5, 4), dtype=bool)
    wanted[3, 1] = True
    wanted[1] = x_CN[:, 0] == 2
    np.testing.assert_array_equal(ops.missing_eras(ops.level_counts(x_CN, OFFSETS)), wanted)


@pytest.mark.parametrize("k", [1, 5, 40, 1000])
def test_neighbours_equal_scikit_learn(ops, rng, k):
    x_CN = floats(rng)
    x_CN[3, 65:] = np.nan
    x_CN[:, 150] = np.nan
    result = ops.knn_impute(x_CN, OFFSETS, k)
    assert result.dtype == np.float32
    for era in range(5):
        part = x_CN[:, OFFSETS[era] : OFFSETS[era + 1]]
        held = ~np.isnan(part).all(axis=1)
        given = result[:, OFFSETS[era] : OFFSETS[era + 1]]
        assert np.isnan(given[~held]).all()
        if part.shape[1] and held.any():
            wanted = KNNImputer(n_neighbors=k).fit_transform(part.T.astype(np.float64)).T
            np.testing.assert_allclose(given[held], wanted, rtol=2e-7, atol=1e-9)


def test_equal_distances_go_to_the_lower_row(ops):
    x_CN = np.array([[0.0, 1.0, -1.0, 1.0, 5.0], [np.nan, 10.0, 20.0, 40.0, 80.0]], dtype=np.float32)
    offsets = np.array([0, 5], dtype=np.int64)
    for k, wanted in ((1, 10.0), (2, 15.0), (3, 70.0 / 3.0), (9, 37.5)):
        np.testing.assert_allclose(ops.knn_impute(x_CN, offsets, k)[1, 0], wanted, rtol=1e-7)


def test_a_nearer_row_found_later_displaces_the_higher_of_equal_ones(ops):
    x_CN = np.array([[0.0, 1.0, -1.0, 0.5], [np.nan, 10.0, 20.0, 40.0]], dtype=np.float32)
    assert ops.knn_impute(x_CN, np.array([0, 4], dtype=np.int64), 2)[1, 0] == 25.0


def test_a_row_without_comparable_rows_gets_the_mean(ops):
    x_CN = np.array([[1.0, np.nan, np.nan], [np.nan, 3.0, 6.0]], dtype=np.float32)
    result = ops.knn_impute(x_CN, np.array([0, 3]), 1)
    np.testing.assert_array_equal(result, np.array([[1.0, 1.0, 1.0], [4.5, 3.0, 6.0]], dtype=np.float32))


def test_an_infinity_is_named(ops, rng):
    x_CN = floats(rng)
    x_CN[4, 100] = -np.inf
    methods = ("mean", "median", "mode")
    for call in [
        lambda: ops.knn_impute(x_CN, OFFSETS),
        *(lambda m=m: ops.fill_values(x_CN, OFFSETS, m) for m in methods),
    ]:
        with pytest.raises(ValueError, match=r"given -inf at column 4, row 100\b"):
            call()
