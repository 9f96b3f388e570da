"""Era context, against NumPy and pandas."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from eravane_kernels.cpu import levelproducts
from eravane_kernels.cpu.levelproducts import BY_BYTES

OFFSETS = np.array([0, 0, 1, 34, 290], dtype=np.int64)
ROWS = 290
GROUPS = tuple(np.array(group, dtype=np.int64) for group in (range(10), [1, 2], [5, 7], [], [3], [4, 8, 9]))


def columns(rng, kind):
    """Ten columns: one constant, one missing throughout, one the reflection of another."""
    if kind == "levels":
        x_CN = rng.integers(0, 5, (10, ROWS)).astype(np.int8)
        x_CN[5], x_CN[2], x_CN[8] = 2, 4 - x_CN[1], np.maximum(x_CN[8], x_CN[4])
        return x_CN
    if kind == "levels with missing":
        x_CN = columns(rng, "levels")
        x_CN[(rng.random(x_CN.shape) < 0.1) & (np.arange(10) != 5)[:, None]] = -1
        x_CN[3] = -1
        return x_CN
    x_CN = (rng.normal(size=(10, ROWS)) + rng.normal(size=ROWS)).astype(np.float32)
    x_CN[5], x_CN[2] = 0.1, -x_CN[1]
    x_CN[rng.random(x_CN.shape) < 0.05] = np.nan
    x_CN[3] = np.nan
    return x_CN


def imputed(x_CN, first, last):
    """Columns of an era that vary, missing cells at the mean, as a frame that keeps their positions."""
    frame = pd.DataFrame(x_CN[:, first:last].T.astype(np.float64))
    if x_CN.dtype == np.int8:
        frame = frame.where(frame >= 0)
    frame = frame.fillna(frame.mean())
    return frame.loc[:, frame.nunique() > 1]


@pytest.mark.parametrize("kind", ["levels", "levels with missing", "floats"])
def test_structure_equals_the_correlation_matrix(ops, rng, kind):
    x_CN = columns(rng, kind)
    result = ops.group_structure(x_CN, OFFSETS, GROUPS)
    assert result.shape == (4, 6, 5 + 6)
    result = result[:, :, :5]
    for era, (first, last) in enumerate(pairwise(OFFSETS)):
        frame = imputed(x_CN, first, last)
        for number, group in enumerate(GROUPS):
            corr = frame[[column for column in group if column in frame]].corr().to_numpy()
            if len(corr) < 2:
                np.testing.assert_array_equal(result[era, number], [0, 0, 0, 1, 0])
                continue
            pairs = corr[~np.eye(len(corr), dtype=bool)]
            values = np.sort(np.linalg.eigvalsh(corr))[::-1] / len(corr)
            wanted = [pairs.mean(), np.abs(pairs).mean(), (pairs**2).mean(), values[0], values[1]]
            np.testing.assert_allclose(result[era, number], wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["levels", "levels with missing", "floats"])
def test_between_groups_equals_the_correlation_of_mean_columns(ops, rng, kind):
    x_CN = columns(rng, kind)
    result = ops.group_structure(x_CN, OFFSETS, GROUPS)[:, :, 5:]
    for era, (first, last) in enumerate(pairwise(OFFSETS)):
        frame = imputed(x_CN, first, last)
        standard = (frame - frame.mean()) / frame.std(ddof=0)
        means = pd.DataFrame({n: standard[[c for c in g if c in frame]].mean(axis=1) for n, g in enumerate(GROUPS)})
        varying = means.loc[:, means.std() > 1e-6].corr()
        wanted = varying.reindex(index=range(6), columns=range(6)).fillna(0.0).to_numpy(copy=True)
        np.fill_diagonal(wanted, 1.0)
        np.testing.assert_allclose(result[era], wanted, rtol=1e-9, atol=1e-9)
    assert (result[:, 3] == np.eye(6)[3]).all()


def test_columns_that_cancel_have_no_mean_column(ops, rng):
    x_CN = columns(rng, "levels")
    np.testing.assert_array_equal(ops.group_structure(x_CN, OFFSETS, [GROUPS[1], GROUPS[5]])[3, :, 5:], np.eye(2))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gram_and_dispersion_equal_numpy(ops, rng, dtype):
    p_MN = (rng.normal(size=(4, ROWS)) + 10).astype(dtype)
    p_MN[2] = 0.1
    gram_EMM, spread_ME = ops.gram(p_MN, OFFSETS), ops.dispersion(p_MN, OFFSETS)
    assert np.isnan(gram_EMM[0]).all()
    assert np.isnan(spread_ME[:, 0]).all()
    for era, (first, last) in list(enumerate(pairwise(OFFSETS)))[1:]:
        part = p_MN[:, first:last].astype(np.float64)
        np.testing.assert_allclose(gram_EMM[era], np.einsum("in,jn->ij", part, part) / (last - first), rtol=1e-12)
        np.testing.assert_allclose(spread_ME[:, era], np.std(part, axis=1), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_mean_products_equal_sums(ops, rng, dtype):
    z_MN, y_N = rng.normal(size=(4, ROWS)).astype(dtype), rng.normal(size=ROWS)
    found_ME = ops.mean_products(z_MN, y_N, OFFSETS)
    assert np.isnan(found_ME[:, 0]).all()
    for era, (first, last) in list(enumerate(pairwise(OFFSETS)))[1:]:
        wanted = [math.fsum(z * y for z, y in zip(row, y_N[first:last], strict=True)) for row in z_MN[:, first:last]]
        np.testing.assert_allclose(found_ME[:, era] * (last - first), wanted, rtol=1e-11, atol=1e-11)
    with pytest.raises(ValueError, match="y_N: expected finite values, given nan"):
        ops.mean_products(z_MN, np.where(np.arange(ROWS) == ROWS - 1, np.nan, y_N), OFFSETS)
    with pytest.raises(ValueError, match="y_N"):
        ops.mean_products(z_MN, y_N[1:], OFFSETS)


def test_mixes_are_exact_sums_rounded(ops, rng):
    """Against fractions; rows that are alike tie, models without weight are not read."""
    z_MN = rng.normal(size=(30, 400))
    z_MN[:, 200:] = z_MN[:, :200]
    z_MN[7] = np.nan
    weight_KM = rng.dirichlet(np.ones(30), 3)
    weight_KM[:, 7] = 0.0
    weight_KM[1, 5:] = 0.0
    mixed_KN = ops.mix(z_MN, weight_KM)
    for number, row in [(0, 0), (1, 11), (2, 199)]:
        pairs = [(w, z) for w, z in zip(weight_KM[number], z_MN[:, row], strict=True) if w > 0]
        exact = sum(Fraction(w) * Fraction(z) for w, z in pairs)
        assert abs(Fraction(mixed_KN[number, row]) - exact) < Fraction(1, 10**12)
    np.testing.assert_array_equal(mixed_KN, np.round(mixed_KN, 12))
    np.testing.assert_array_equal(mixed_KN[:, :200], mixed_KN[:, 200:])
    assert (ops.mix(z_MN, np.zeros((1, 30))) == 0.0).all()
    assert ops.mix(z_MN, weight_KM[:0]).shape == (0, 400)
    with pytest.raises(ValueError, match="weight_KM"):
        ops.mix(z_MN, weight_KM[:, 1:].copy())


@pytest.mark.parametrize(
    "by_bytes", [False, pytest.param(True, marks=pytest.mark.skipif(not BY_BYTES, reason="no VNNI"))]
)
@pytest.mark.parametrize(("width", "rows"), [(0, 5), (1, 1), (3, 64), (4, 63), (9, 2048), (13, 4_200), (8, 0)])
def test_products_of_levels_are_whole_numbers(rng, monkeypatch, by_bytes, width, rows):
    monkeypatch.setattr(levelproducts, "BY_BYTES", by_bytes)
    x_CN = rng.integers(0, 5, (width + 2, rows + 3)).astype(np.int8)
    column_U = rng.permutation(width + 2)[:width]
    start_U, value_UN = column_U * (rows + 3) + 1, x_CN[column_U, 1 : rows + 1].astype(np.int64)
    found_UU, total_U = levelproducts.level_products(x_CN.ravel(), start_U, rows)
    np.testing.assert_array_equal(found_UU[:width, :width], value_UN @ value_UN.T)
    np.testing.assert_array_equal(total_U, value_UN.sum(axis=1))
    if value_UN.size:
        x_CN[column_U[-1], rows] = -1
        assert levelproducts.level_products(x_CN.ravel(), start_U, rows) is None


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([[0, 10]], r"groups\[0\]: expected positions within 0..9, given \[0, 10\]"),
        ([[0], [-1]], r"groups\[1\]: expected positions within 0..9"),
        ([[0.5, 1.0]], r"groups\[0\]: expected column positions, given float64"),
        ([[[0, 1]]], r"groups\[0\]: expected column positions"),
        ([[1, 2, 1]], r"groups\[0\]: expected every position once"),
    ],
)
def test_bad_groups_are_refused(ops, rng, groups, words):
    with pytest.raises(ValueError, match=words):
        ops.group_structure(columns(rng, "levels"), OFFSETS, groups)
