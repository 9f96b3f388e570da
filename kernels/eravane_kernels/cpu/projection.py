"""Neutralisation and exposure: matrix products per era, over all predictions at once."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack, solve_triangular

from eravane_kernels.arrays import LEVELS, Columns, Double, Floats, Integers
from eravane_kernels.cpu.centring import centre
from eravane_kernels.cpu.inputs import check_features, check_predictions
from eravane_kernels.cpu.layout import flat
from eravane_kernels.cpu.scores import gaussianize, numerai_corr
from eravane_kernels.eras import spans
from eravane_kernels.spec.cross_section import SINGULAR, check_labels, check_proportion

EXACT = 1 << 24
"""Whole numbers up to here, and sums of them that stay below, are exact in float32."""
NOISE = 1e-13
"""Share of the largest product below which a pivot is rounding; its direction is left out."""
UNCLEAR = 1e-9
"""Least pivot over the largest below which singular values decide which directions count."""
REFINED = 1e-6
"""Least pivot over the largest below which a projection is repeated on what it left."""


def neutralize(p_MN: Floats, f_FN: Columns, offsets_E1: Integers, proportion: float = 1.0) -> Double:
    """See `spec.neutralize`: by a pivoted Cholesky factor of the products of the features and a constant.

    Where their conditioning leaves open which directions count, singular values decide, as in the specification.
    """
    check_predictions(p_MN, offsets_E1)
    check_features(p_MN, f_FN)
    check_proportion(proportion)
    result_MN = p_MN.astype(np.float64)
    for rows in spans(offsets_E1):
        if rows.stop > rows.start:
            part_MN = result_MN[:, rows]
            constant_M = part_MN.min(axis=1, initial=np.inf) == part_MN.max(axis=1, initial=-np.inf)
            part_MN -= proportion * _fitted(part_MN, f_FN[:, rows])
            part_MN[constant_M] = np.nan
    return result_MN


def feature_neutral_corr(p_MN: Floats, f_FN: Columns, y_N: Floats, offsets_E1: Integers) -> Double:
    """See `spec.feature_neutral_corr`."""
    check_predictions(p_MN, offsets_E1)
    check_labels(p_MN, y_N)
    neutral_MN = neutralize(gaussianize(p_MN, offsets_E1), f_FN, offsets_E1)
    return numerai_corr(np.nan_to_num(neutral_MN, copy=False), y_N, offsets_E1)


def exposure(p_MN: Floats, f_FN: Columns, offsets_E1: Integers) -> Double:
    """See `spec.exposure`."""
    check_predictions(p_MN, offsets_E1)
    check_features(p_MN, f_FN)
    result_MFE = np.full((len(p_MN), len(f_FN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        if rows.stop > rows.start:
            unit_FN = np.empty((len(f_FN), rows.stop - rows.start))
            length_F = centre(*flat(f_FN[:, rows]), np.nan, unit_FN)
            unit_MN = np.empty((len(p_MN), rows.stop - rows.start))
            length_M = centre(*flat(p_MN[:, rows]), np.nan, unit_MN)
            result_MFE[:, :, era] = unit_MN @ unit_FN.T / length_M[:, None] / length_F
    return result_MFE


def _fitted(p_MN: Double, f_FN: Columns) -> Double:
    """Least-squares projection of predictions on the features and a constant."""
    base_BN = _with_constant(f_FN, np.float64)
    whole = f_FN.dtype == np.int8
    exact = whole and f_FN.shape[1] * (LEVELS - 1) ** 2 < EXACT
    factor_RR, kept_R = _factor(_with_constant(f_FN, np.float32) if exact else base_BN)
    share = (factor_RR[-1, -1] / factor_RR[0, 0]) ** 2
    if share < UNCLEAR or not (whole or len(kept_R) == len(base_BN)):
        weight_BM = np.linalg.lstsq(base_BN.T, p_MN.T, rcond=SINGULAR)[0]
        return np.asarray(weight_BM.T @ base_BN)
    fitted_MN = _weights(p_MN @ base_BN.T, factor_RR, kept_R) @ base_BN
    if share < REFINED:
        fitted_MN += _weights((p_MN - fitted_MN) @ base_BN.T, factor_RR, kept_R) @ base_BN
    return np.asarray(fitted_MN)


def _with_constant(f_FN: Columns, dtype: type) -> Floats:
    """Features and a last row of ones."""
    base_BN: Floats = np.empty((len(f_FN) + 1, f_FN.shape[1]), dtype=dtype)
    base_BN[:-1], base_BN[-1] = f_FN, 1
    return base_BN


def _factor(base_BN: Floats) -> tuple[Double, Integers]:
    """Lower Cholesky factor of the products of rows that span all others, and which those are, largest pivot first."""
    gram_BB = (base_BN @ base_BN.T).astype(np.float64)
    factor_BB, pivots_B, rank, _ = lapack.dpstrf(gram_BB, tol=NOISE * gram_BB.diagonal().max(), lower=1)
    return factor_BB[:rank, :rank], pivots_B[:rank] - 1


def _weights(product_MB: Double, factor_RR: Double, kept_R: Integers) -> Double:
    """Least-squares weights of the rows, 0 for those that others span."""
    weight_MB = np.zeros(product_MB.shape)
    half_RM = solve_triangular(factor_RR, product_MB[:, kept_R].T, lower=True, check_finite=False)
    weight_MB[:, kept_R] = solve_triangular(factor_RR, half_RM, lower=True, trans=1, check_finite=False).T
    return weight_MB
