"""Projections within the era on the device, by cuBLAS and cuSOLVER: neutralisation, exposure, contribution.

Formulas as in `eravane_kernels.spec.cross_section`.
"""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.cross_section import gaussianize, known_rows, labels, numerai_corr, predictions
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import FINITE, PRESENT, Runs
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.spec.cross_section import SINGULAR, centred_label, check_proportion

ROUNDS = 2
"""Projections in a row: the second takes away what rounding left of the first."""


def contribution(p_MN: Array, reference_N: Array, y_N: Array, offsets_E1: Integers) -> Array:
    """Contribution of every prediction beyond a reference: MMC against the meta-model, BMC against a benchmark.

    Arguments as `spec.contribution`. Returns float64 [M, E] on the device, NaN without rows or with a constant
    reference. Raises: ValueError.
    """
    p_MN, eras = predictions(p_MN, offsets_E1)
    reference_N, y_N = labels(reference_N, "reference_N", p_MN), labels(y_N, "y_N", p_MN)
    p_MN, known_N, left = known_rows(p_MN, ~(np.isnan(y_N) | np.isnan(reference_N)), eras)
    reference_N, y_N = reference_N[known_N], y_N[known_N]
    offsets_E1 = np.concatenate([np.zeros(1, np.int64), left.end_E])
    gauss_MN, base_N = gaussianize(p_MN, offsets_E1), gaussianize(reference_N[None], offsets_E1)[0]
    result_ME = active().xp.full(eras.shape[::-1], np.nan)
    for era, rows in left.slices():
        if reference_N[rows].min() < reference_N[rows].max():
            part_MN, base, label = gauss_MN[:, rows], base_N[rows], upload(centred_label(y_N[rows]))
            share = (base @ label) / (base @ base)
            result_ME[:, era] = (part_MN @ label - part_MN @ base * share) / len(base)
    return result_ME


def neutralize(p_MN: Array, f_FN: Array, offsets_E1: Integers, proportion: float = 1.0) -> Array:
    """Predictions less `proportion` of their least-squares projection on the features and a constant, per era.

    Arguments as `spec.neutralize`. Centred features leave the constant out; their Gram matrix is solved by Cholesky,
    or by its eigenvectors where it is singular (eigenvalues below 1e-12 of the largest, the square of the
    specification's share of singular values). Returns float64 [M, N] on the device; a prediction constant in the era is
    NaN there. Raises: ValueError.
    """
    p_MN, eras = predictions(p_MN, offsets_E1)
    f_FN = features(f_FN, eras)
    check_proportion(proportion)
    eras.check(p_MN, "p_MN", FINITE)
    xp = active().xp
    result_MN = p_MN.astype(np.float64)
    for _, rows in eras.slices():
        part_MN = result_MN[:, rows]
        constant_M = part_MN.min(axis=1) == part_MN.max(axis=1)
        centred_MN = part_MN - part_MN.mean(axis=1, keepdims=True)
        left_MN = _residual(centred_MN, _centred(f_FN[:, rows]))
        neutral_MN = part_MN - proportion * (part_MN - left_MN)
        result_MN[:, rows] = xp.where(constant_M[:, None], np.nan, neutral_MN)
    return result_MN


def _residual(p_MN: Array, f_FN: Array) -> Array:
    """Centred predictions less their projection on centred features."""
    gram_FF = f_FN @ f_FN.T
    factor_FF = _factor(gram_FF)
    for _ in range(ROUNDS):
        product_FM = f_FN @ p_MN.T
        p_MN = p_MN - _solve(gram_FF, factor_FF, product_FM).T @ f_FN
    return p_MN


def _factor(gram_FF: Array) -> Array | None:
    """Lower Cholesky factor; None for a matrix that is singular to rounding."""
    if len(gram_FF) == 0:
        return None
    try:
        factor_FF = active().cholesky(gram_FF)
    except np.linalg.LinAlgError:
        return None
    pivot_F = factor_FF.diagonal() ** 2
    return factor_FF if bool(pivot_F.min() > len(gram_FF) * SINGULAR**2 * gram_FF.diagonal().max()) else None


def _solve(gram_FF: Array, factor_FF: Array | None, right_FM: Array) -> Array:
    runtime = active()
    if len(gram_FF) == 0:
        return right_FM
    if factor_FF is not None:
        half_FM = runtime.solve_triangular(factor_FF, right_FM, lower=True)
        return runtime.solve_triangular(factor_FF, half_FM, lower=True, trans="T")
    value_F, vector_FF = runtime.xp.linalg.eigh(gram_FF)
    kept_F = value_F > SINGULAR**2 * value_F[-1]
    inverse_F = runtime.xp.where(kept_F, 1.0 / runtime.xp.where(kept_F, value_F, 1.0), 0.0)
    return vector_FF @ (inverse_F[:, None] * (vector_FF.T @ right_FM))


def feature_neutral_corr(p_MN: Array, f_FN: Array, y_N: Array, offsets_E1: Integers) -> Array:
    """CORR of the gaussianised predictions after neutralisation to the features (FNC).

    Arguments and errors as `neutralize` and `numerai_corr`. Returns float64 [M, E] on the device, NaN as there.
    """
    p_MN, _ = predictions(p_MN, offsets_E1)
    labels(y_N, "y_N", p_MN)
    neutral_MN = neutralize(gaussianize(p_MN, offsets_E1), f_FN, offsets_E1)
    return numerai_corr(active().xp.nan_to_num(neutral_MN), y_N, offsets_E1)


def exposure(p_MN: Array, f_FN: Array, offsets_E1: Integers) -> Array:
    """Pearson's correlation of every prediction with every feature in every era.

    Arguments as `spec.exposure`. Returns float64 [M, F, E] on the device, NaN where either is constant.
    Raises: ValueError.
    """
    p_MN, eras = predictions(p_MN, offsets_E1)
    f_FN = features(f_FN, eras)
    eras.check(p_MN, "p_MN", FINITE)
    result_MFE = active().xp.full((len(p_MN), len(f_FN), eras.shape[0]), np.nan)
    for era, rows in eras.slices():
        result_MFE[:, :, era] = standard(p_MN[:, rows]) @ standard(f_FN[:, rows]).T
    return result_MFE


def features(f_FN: Array, eras: Runs) -> Array:
    """Features on the device, checked: int8 levels without missing, or finite floats, one column per row."""
    rows = int(eras.end_E.max(initial=0))
    f_FN = inputs.columns(f_FN, "f_FN", "int8", "float32", "float64")
    if f_FN.shape[1] != rows:
        raise ValueError(f"f_FN: expected the {rows} rows of p_MN, given {f_FN.shape[1]}")
    Runs(eras.begin_E, eras.end_E, len(f_FN)).check(f_FN, "f_FN", PRESENT if f_FN.dtype == np.int8 else FINITE)
    return f_FN


def _centred(x_AN: Array) -> Array:
    value_AN = x_AN.astype(np.float64)
    return value_AN - value_AN.mean(axis=1, keepdims=True)


def standard(x_AN: Array) -> Array:
    """Rows centred and scaled to length 1; NaN for a constant row."""
    xp = active().xp
    centred_AN = _centred(x_AN)
    length_A = xp.sqrt((centred_AN**2).sum(axis=1))
    varies_A = x_AN.min(axis=1) < x_AN.max(axis=1)
    return centred_AN / xp.where(varies_A, length_A, np.nan)[:, None]
