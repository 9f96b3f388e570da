"""No eras, no rows, no columns, no models: empty results of the right shape, as the specification gives them."""

from __future__ import annotations

import numpy as np
import pytest

from eravane_kernels import spec

OFFSETS = ([0], [0, 0], [0, 0, 5])


def calls(offsets, columns, models):
    """Arguments for every operation that returns one array, and the shape of its result."""
    eras, rows = len(offsets) - 1, int(offsets[-1])
    p_MN, y_N = np.arange(float(models * rows)).reshape(models, rows), np.arange(float(rows))
    x_CN, cells = np.ones((columns, rows), dtype=np.int8), np.zeros((eras, columns))
    f_CN, groups = x_CN.astype(np.float32), [np.arange(columns), []]
    table = np.zeros((eras, columns, 6), dtype=np.int8)
    return {
        "level_counts": ((x_CN, offsets), (eras, columns, 6)),
        "apply_table": ((x_CN, offsets, table), (columns, rows)),
        "clip": ((f_CN, offsets, cells, cells), (columns, rows)),
        "fill": ((f_CN, offsets, cells), (columns, rows)),
        "fill_values": ((x_CN, offsets), (eras, columns)),
        "knn_impute": ((f_CN, offsets), (columns, rows)),
        "missing_indicators": ((x_CN,), (columns, rows)),
        "rank": ((p_MN, offsets), (models, rows)),
        "gaussianize": ((p_MN, offsets), (models, rows)),
        "numerai_corr": ((p_MN, y_N, offsets), (models, eras)),
        "contribution": ((p_MN, y_N, y_N, offsets), (models, eras)),
        "neutralize": ((p_MN, x_CN, offsets), (models, rows)),
        "feature_neutral_corr": ((p_MN, x_CN, y_N, offsets), (models, eras)),
        "exposure": ((p_MN, x_CN, offsets), (models, columns, eras)),
        "gram": ((p_MN, offsets), (eras, models, models)),
        "dispersion": ((p_MN, offsets), (models, eras)),
        "group_structure": ((x_CN, offsets, groups), (eras, 2, 5 + 2)),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("models", [0, 2])
@pytest.mark.parametrize("columns", [0, 3])
@pytest.mark.parametrize("offsets", OFFSETS, ids=str)
@pytest.mark.parametrize("name", calls(np.array([0]), 0, 0))
def test_nothing_gives_nothing(ops, name, offsets, columns, models):
    arguments, shape = calls(np.array(offsets, dtype=np.int64), columns, models)[name]
    result = getattr(ops, name)(*arguments)
    assert result.shape == shape
    np.testing.assert_allclose(result, getattr(spec, name)(*arguments), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize("method", ["winsorize", "std", "mad"])
def test_eras_without_rows_have_no_bounds(ops, method, dtype):
    for bound in ops.clip_bounds(np.ones((2, 0), dtype=dtype), np.array([0, 0, 0]), method, window=3):
        np.testing.assert_array_equal(bound, np.full((2, 2), np.nan))


def test_no_groups(ops):
    x_CN, offsets = np.ones((2, 4), dtype=np.int8), np.array([0, 4])
    assert ops.group_structure(x_CN, offsets, []).shape == (1, 0, 5)
