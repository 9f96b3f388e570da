"""Ranks, CORR and contributions, against pandas and numerai-tools."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numerai_tools import scoring
from scipy.stats import norm

OFFSETS = np.array([0, 0, 31, 63, 96, 351, 2000], dtype=np.int64)
ROWS = 2000
ULP = 2.0**-52


def predictions(rng):
    """Continuous, heavily tied, apart in their last bits alone, at both zeros, nearly all alike."""
    p_MN = rng.normal(size=(6, ROWS))
    p_MN[1] = np.round(p_MN[1])
    p_MN[2] = 1.0 + rng.integers(0, 3000, ROWS) * ULP
    p_MN[3] = rng.choice([0.0, -0.0, 1e-300, -1e-300, 3.0], ROWS)
    p_MN[4] = np.where(rng.random(ROWS) < 0.05, 2.0, 1.0)
    p_MN[4, OFFSETS[1:-1]] = 3.0
    return p_MN


def labels(rng, missing=0.0):
    y_N = rng.integers(0, 5, ROWS) / 4.0
    y_N[rng.random(ROWS) < missing] = np.nan
    return y_N


def by_era(score, *arrays):
    """Applies a numerai-tools score era by era; columns of the result are eras, the empty one is left out."""
    columns = []
    for first, last in pairwise(OFFSETS[1:]):
        parts = [array[..., first:last].T for array in arrays]
        columns.append(score(*[pd.DataFrame(p) if p.ndim == 2 else pd.Series(p, name="y") for p in parts]).to_numpy())
    return np.array(columns).T


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ranks_equal_pandas(ops, rng, dtype):
    p_MN = predictions(rng).astype(dtype)
    era = np.repeat(np.arange(6), np.diff(OFFSETS))
    groups = pd.DataFrame(p_MN.T).groupby(era)
    wanted = ((groups.rank() - 0.5) / groups.transform("count")).to_numpy().T
    np.testing.assert_array_equal(ops.rank(p_MN, OFFSETS), wanted)
    np.testing.assert_allclose(ops.gaussianize(p_MN, OFFSETS), norm.ppf(wanted), rtol=1e-12, atol=1e-13)


def test_ranks_at_the_edges(ops, rng, edge_offsets):
    p_MN = rng.normal(size=(2, edge_offsets[-1]))
    p_MN[1] = np.round(p_MN[1], 1)
    era = np.repeat(np.arange(len(edge_offsets) - 1), np.diff(edge_offsets))
    groups = pd.DataFrame(p_MN.T).groupby(era)
    wanted = ((groups.rank() - 0.5) / groups.transform("count")).to_numpy().T
    np.testing.assert_array_equal(ops.rank(p_MN, edge_offsets), wanted)


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_predictions_rank_as_in_pandas(ops, data):
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    rows = data.draw(st.integers(1, 90))
    width = 8 * np.dtype(dtype).itemsize
    near = st.integers(0, 4).map(lambda steps: 1.0 + steps * ULP)
    finite = st.floats(allow_nan=False, allow_infinity=False, width=width)
    numbers = st.one_of(finite, st.sampled_from([0.0, -0.0]), near)
    p_MN = data.draw(hnp.arrays(np.float64, (2, rows), elements=numbers)).astype(dtype)
    wanted = (pd.DataFrame(p_MN.T).rank().to_numpy().T - 0.5) / rows
    np.testing.assert_array_equal(ops.rank(p_MN, np.array([0, rows], dtype=np.int64)), wanted)


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("label_type", [np.float64, np.float32])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_corr_equals_numerai_tools(ops, rng, dtype, label_type, missing):
    p_MN = predictions(rng).astype(dtype)
    if dtype == np.float32:
        p_MN[2] = rng.normal(size=ROWS)
    y_N = labels(rng, missing).astype(label_type)
    wanted = by_era(lambda p, y: scoring.numerai_corr(p, y, max_filtered_index_ratio=0.5), p_MN, y_N)
    result = ops.numerai_corr(p_MN, y_N, OFFSETS)
    assert np.isnan(result[:, 0]).all()
    np.testing.assert_allclose(result[:, 1:], wanted, rtol=0, atol=1e-12)


def test_corr_is_undefined_for_constants_and_without_labels(ops, rng):
    p_MN, y_N = rng.normal(size=(2, ROWS)), labels(rng)
    p_MN[1, :351] = 0.1
    y_N[31:63], y_N[63:96] = 0.3, np.nan
    undefined = np.isnan(ops.numerai_corr(p_MN, y_N, OFFSETS))
    np.testing.assert_array_equal(undefined[0], [True, False, True, True, False, False])
    np.testing.assert_array_equal(undefined[1], [True, True, True, True, True, False])


def test_one_label_is_no_correlation(ops):
    p_MN, y_N = np.array([[1.0, 2.0, 3.0]]), np.array([0.5, np.nan, np.nan])
    assert np.isnan(ops.numerai_corr(p_MN, y_N, np.array([0, 3]))).all()


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("bins", [True, False])
def test_contribution_equals_numerai_tools(ops, rng, bins, missing):
    p_MN, y_N = predictions(rng), labels(rng, missing)
    if not bins:
        y_N = rng.normal(size=ROWS)
    reference_N = np.round(rng.normal(size=ROWS) + p_MN[0], 1)

    def score(p, reference, y):
        known = y.notna()
        return scoring.correlation_contribution(p[known], reference[known], y[known])

    result = ops.contribution(p_MN, reference_N, y_N, OFFSETS)
    assert np.isnan(result[:, 0]).all()
    np.testing.assert_allclose(result[:, 1:], by_era(score, p_MN, reference_N, y_N), rtol=0, atol=1e-12)


def test_contribution_leaves_out_rows_without_reference(ops, rng):
    p_MN, y_N, reference_N = rng.normal(size=(2, 100)), rng.integers(0, 5, 100) / 4.0, rng.normal(size=100)
    reference_N[60:] = np.nan
    shorter = ops.contribution(p_MN[:, :60].copy(), reference_N[:60], y_N[:60], np.array([0, 60]))
    whole = ops.contribution(p_MN, reference_N, y_N, np.array([0, 100]))
    np.testing.assert_allclose(whole, shorter, rtol=1e-13)


def test_contribution_of_constants(ops, rng):
    p_MN, y_N, reference_N = rng.normal(size=(2, 50)), rng.integers(0, 5, 50) / 4.0, rng.normal(size=50)
    p_MN[1] = 0.5
    np.testing.assert_array_equal(ops.contribution(p_MN, reference_N, y_N, np.array([0, 50]))[1], [0.0])
    assert np.isnan(ops.contribution(p_MN, np.full(50, 0.5), y_N, np.array([0, 50]))).all()
    assert np.isnan(ops.contribution(p_MN, np.full(50, np.nan), y_N, np.array([0, 50]))).all()


def test_a_block_of_models_ranks_as_each_alone(ops, rng):
    p_MN = rng.normal(size=(40, 5001))
    offsets = np.array([0, 5001], dtype=np.int64)
    wanted = (pd.DataFrame(p_MN.T).rank().to_numpy().T - 0.5) / 5001
    np.testing.assert_array_equal(ops.rank(p_MN, offsets), wanted)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["rank", "gaussianize", "numerai_corr", "contribution"])
def test_predictions_must_be_finite(ops, rng, name, value):
    p_MN, y_N = predictions(rng), labels(rng)
    p_MN[3, 77] = value
    y_N[77] = np.nan
    more = {"rank": (), "gaussianize": (), "numerai_corr": (y_N,), "contribution": (y_N, y_N)}[name]
    with pytest.raises(ValueError, match=rf"p_MN: .* given {value} at column 3, row 77\b"):
        getattr(ops, name)(p_MN, *more, OFFSETS)


def test_labels_must_not_be_infinite(ops, rng):
    p_MN, y_N = predictions(rng), labels(rng)
    y_N[8] = np.inf
    with pytest.raises(ValueError, match=r"y_N: .* given inf"):
        ops.numerai_corr(p_MN, y_N, OFFSETS)
    with pytest.raises(ValueError, match=r"reference_N: .* given inf"):
        ops.contribution(p_MN, y_N, labels(rng), OFFSETS)
