"""Projections within the era on the device, by cuBLAS and cuSOLVER: neutralisation, exposure, contribution.

Formulas as in `eravane_kernels.spec.cross_section`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eravane_kernels.arrays import Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.cross_section import gaussianize, known_rows, labels, numerai_corr, predictions
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import FINITE, PRESENT, Runs
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.spec.cross_section import SINGULAR, centred_label, check_proportion

NOISE = 1e-13
"""Share of the largest eigenvalue of a Gram matrix below which another is rounding; its direction is left out."""
UNCLEAR = 1e-9
"""Share of the largest eigenvalue, or pivot, below which rounding may hide whether the singular value counts."""


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

    Arguments as `spec.neutralize`. The features' Gram matrix is solved by Cholesky, or by its eigenvectors where it is
    singular; where eigenvalues do not decide which directions count, singular values do. Returns float64
    [M, N] on the device; a prediction constant in the era is NaN there. Raises: ValueError.
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
        base_BN = xp.concatenate([f_FN[:, rows].astype(np.float64), xp.ones((1, part_MN.shape[1]))])
        neutral_MN = part_MN - proportion * _fitted(part_MN, base_BN)
        result_MN[:, rows] = xp.where(constant_M[:, None], np.nan, neutral_MN)
    return result_MN


def _fitted(p_MN: Array, base_BN: Array) -> Array:
    """Least-squares projection of predictions on the rows of base_BN."""
    solve, rest_KN = _solver(base_BN @ base_BN.T, base_BN)
    fitted_MN = solve(base_BN @ p_MN.T).T @ base_BN
    fitted_MN = fitted_MN + solve(base_BN @ (p_MN - fitted_MN).T).T @ base_BN
    return fitted_MN if rest_KN is None else fitted_MN + p_MN @ rest_KN.T @ rest_KN


def _solver(gram_BB: Array, base_BN: Array) -> tuple[Callable[[Array], Array], Array | None]:
    """Multiplication by the (pseudo)inverse of a Gram matrix, and directions of the rows that it leaves out.

    The latter, orthonormal, are those whose eigenvalues rounding may hide while their singular values count; None
    where there is no doubt.
    """
    runtime = active()
    factor_BB = _factor(gram_BB)
    if factor_BB is not None:
        solve = runtime.solve_triangular
        return lambda right_BM: solve(factor_BB, solve(factor_BB, right_BM, lower=True), lower=True, trans="T"), None
    value_B, vector_BB = runtime.xp.linalg.eigh(gram_BB)
    share_B = value_B / value_B[-1]
    kept_B = share_B >= UNCLEAR
    vector_BR, value_R = vector_BB[:, kept_B], value_B[kept_B]
    rest_KN = None
    if bool(((share_B > NOISE) & (share_B < UNCLEAR)).any()):
        rest_KN = _rest(vector_BB[:, ~kept_B], vector_BR, value_R, base_BN)
    return lambda right_BM: vector_BR @ ((vector_BR.T @ right_BM) / value_R[:, None]), rest_KN


def _rest(doubtful_BK: Array, clear_BR: Array, value_R: Array, base_BN: Array) -> Array:
    """Right singular vectors of the few doubtful directions, of those whose singular values count.

    What rounding has mixed into them of the clear ones is taken out first, so that they are decided at the precision of
    the features, and not of their squares; a decomposition of all features would take tens of seconds at 3,556.
    """
    xp = active().xp
    clear_RN, rest_KN = clear_BR.T @ base_BN, doubtful_BK.T @ base_BN
    for _ in range(2):
        rest_KN = rest_KN - ((rest_KN @ clear_RN.T) / value_R) @ clear_RN
    _, singular_K, right_KN = xp.linalg.svd(rest_KN, full_matrices=False)
    return right_KN[singular_K > SINGULAR * xp.sqrt(value_R[-1])]


def _factor(gram_BB: Array) -> Array | None:
    """Lower Cholesky factor; None for a matrix that is singular to rounding, or nearly."""
    try:
        factor_BB = active().cholesky(gram_BB)
    except np.linalg.LinAlgError:
        return None
    pivot_B = factor_BB.diagonal() ** 2
    return factor_BB if bool(pivot_B.min() >= UNCLEAR * gram_BB.diagonal().max()) else None


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
