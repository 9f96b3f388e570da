"""Neutralisation, FNC and exposure, against numerai-tools and pandas."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from numerai_tools import scoring

OFFSETS = np.array([0, 0, 33, 256, 900], dtype=np.int64)
ROWS = 900


def features(rng, kind):
    """Levels with duplicates, reflections, a constant and a nearly constant column; or floats on several scales."""
    f_FN = rng.integers(0, 5, (20, ROWS)).astype(np.int8)
    f_FN[3], f_FN[5], f_FN[7] = f_FN[4], 4 - f_FN[6], 2
    f_FN[8] = 0
    f_FN[8, ::30] = 1
    if kind == "levels":
        return f_FN
    values = rng.normal(size=(20, ROWS)) * np.logspace(-2, 1, 20)[:, None] + 0.5
    values[3], values[7] = values[4], 2.0
    return values.astype(kind)


def by_era(score, *arrays):
    """Applies a numerai-tools function to frames of every era but the first, which is empty; results side by side."""
    results = []
    for first, last in pairwise(OFFSETS[1:]):
        parts = [array[..., first:last].T for array in arrays]
        frames = [pd.DataFrame(part) if part.ndim == 2 else pd.Series(part, name="y") for part in parts]
        results.append(score(*frames).to_numpy().T)
    return np.column_stack(results)


@pytest.mark.parametrize("proportion", [1.0, 0.4])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["levels", "float32", "float64"])
def test_neutralize_equals_numerai_tools(ops, rng, kind, dtype, proportion):
    p_MN, f_FN = rng.normal(size=(4, ROWS)).astype(dtype), features(rng, kind)
    p_MN[1, 33:256] = 0.25
    result = ops.neutralize(p_MN, f_FN, OFFSETS, proportion)
    assert result.dtype == np.float64
    wanted = by_era(lambda p, f: scoring.neutralize(p, f, proportion), p_MN.astype(np.float64), f_FN)
    np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-9)
    assert np.isnan(result[1, 33:256]).all()


def test_neutral_predictions_are_orthogonal_to_every_feature(ops, rng):
    p_MN, f_FN = rng.normal(size=(3, ROWS)), features(rng, "levels")
    neutral_MN = ops.neutralize(p_MN, f_FN, OFFSETS)
    assert np.nanmax(np.abs(ops.exposure(neutral_MN, f_FN, OFFSETS)[:, :, 2:])) < 1e-12


def test_as_many_features_as_rows_leave_nothing(ops, rng):
    f_FN = rng.integers(0, 5, (60, 40)).astype(np.int8)
    neutral_MN = ops.neutralize(rng.normal(size=(2, 40)), f_FN, np.array([0, 40]))
    np.testing.assert_allclose(neutral_MN, 0.0, atol=1e-9)


def distort(f_FN, rng, how):
    """Floats whose directions a solver may or may not tell apart."""
    if how == "far from zero":
        f_FN[11] += 1000
    if how == "a copy but for rounding":
        f_FN[9] = (f_FN[10] * 2 + 1).astype(np.float32)
    if how == "nearly a copy":
        f_FN[12] = f_FN[13] + 3e-4 * rng.normal(size=ROWS)
    if how == "hardly more than a copy":
        f_FN[12] = f_FN[13] + 1e-7 * rng.normal(size=ROWS)


@pytest.mark.parametrize(
    "how", ["far from zero", "a copy but for rounding", "nearly a copy", "hardly more than a copy"]
)
def test_ill_conditioned_floats_keep_the_directions_numerai_tools_keeps(ops, rng, how):
    p_MN, f_FN = rng.normal(size=(3, ROWS)), rng.normal(size=(20, ROWS))
    distort(f_FN, rng, how)
    result = ops.neutralize(p_MN, f_FN, OFFSETS)
    np.testing.assert_allclose(result, by_era(scoring.neutralize, p_MN, f_FN), rtol=0, atol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["levels", "float32"])
def test_feature_neutral_corr_equals_numerai_tools(ops, rng, kind, missing):
    p_MN, f_FN = rng.normal(size=(4, ROWS)), features(rng, kind)
    y_N = rng.integers(0, 5, ROWS) / 4.0
    y_N[rng.random(ROWS) < missing] = np.nan
    result = ops.feature_neutral_corr(p_MN, f_FN, y_N, OFFSETS)
    wanted = by_era(scoring.feature_neutral_corr, p_MN, f_FN.astype(np.float64), y_N)
    assert np.isnan(result[:, 0]).all()
    np.testing.assert_allclose(result[:, 1:], wanted, rtol=0, atol=1e-9)


def test_feature_neutral_corr_of_a_constant_is_undefined(ops, rng):
    p_MN = np.vstack([rng.normal(size=ROWS), np.full(ROWS, 0.3)])
    result = ops.feature_neutral_corr(p_MN, features(rng, "levels"), rng.integers(0, 5, ROWS) / 4.0, OFFSETS)
    np.testing.assert_array_equal(np.isnan(result), [[True, False, False, False], [True] * 4])


@pytest.mark.parametrize("kind", ["levels", "float32", "float64"])
def test_exposure_equals_pandas(ops, rng, kind):
    p_MN, f_FN = rng.normal(size=(4, ROWS)), features(rng, kind)
    if kind != "levels":
        f_FN[11] += 1000
    result = ops.exposure(p_MN, f_FN, OFFSETS)
    assert result.shape == (4, 20, 4)
    assert np.isnan(result[:, :, 0]).all()
    for era, (first, last) in enumerate(pairwise(OFFSETS[1:]), start=1):
        frame = pd.DataFrame(f_FN[:, first:last].T.astype(np.float64))
        for model in range(4):
            wanted = frame.corrwith(pd.Series(p_MN[model, first:last]))
            np.testing.assert_allclose(result[model, :, era], wanted, rtol=0, atol=1e-11)


def test_largest_exposure_equals_numerai_tools(ops, rng):
    p_MN, f_FN = rng.normal(size=(2, ROWS)), features(rng, "levels")
    result = np.abs(ops.exposure(p_MN, f_FN, OFFSETS))
    frame = pd.DataFrame(np.delete(f_FN, 7, axis=0)[:, 256:].T)
    for model in range(2):
        _, wanted = scoring.max_feature_correlation(pd.Series(p_MN[model, 256:]), frame)
        np.testing.assert_allclose(np.nanmax(result[model, :, 3]), wanted, rtol=1e-12)


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 1e-3, np.pi, 1e6 / 7])
def test_constants_have_no_exposure(ops, rng, constant):
    alike = np.full((1, ROWS), constant)
    assert np.isnan(ops.exposure(alike, features(rng, "levels"), OFFSETS)).all()
    assert np.isnan(ops.exposure(rng.normal(size=(1, ROWS)), alike, OFFSETS)).all()


def test_parts_of_larger_arrays_need_no_copy(ops, rng):
    p_MN, f_FN = rng.normal(size=(9, ROWS)), features(rng, "levels")
    offsets = np.array([0, 100, 300], dtype=np.int64)
    rows = slice(400, 700)
    for p_part, f_part in ((p_MN[1:4, rows], f_FN[2:15, rows]), (p_MN[::-2, rows], f_FN[::-1, rows])):
        for name in ("neutralize", "exposure"):
            wanted = getattr(ops, name)(p_part.copy(), f_part.copy(), offsets)
            np.testing.assert_array_equal(getattr(ops, name)(p_part, f_part, offsets), wanted)


@pytest.mark.parametrize("name", ["neutralize", "exposure"])
def test_missing_features_are_refused_by_name(ops, rng, name):
    p_MN = rng.normal(size=(1, ROWS))
    f_FN = features(rng, "levels")
    f_FN[6, 500] = -1
    with pytest.raises(ValueError, match=r"f_FN: .* given -1 at column 6, row 500\b"):
        getattr(ops, name)(p_MN, f_FN, OFFSETS)
    f_FN = features(rng, "float32")
    f_FN[6, 500] = np.nan
    with pytest.raises(ValueError, match=r"f_FN: .* given nan at column 6, row 500\b"):
        getattr(ops, name)(p_MN, f_FN, OFFSETS)
