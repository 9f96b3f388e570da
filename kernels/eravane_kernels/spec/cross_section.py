"""Scoring within the era: ranks, correlations, contributions, exposures, neutralisation.

Formulas: numerai-tools 0.7.2, `numerai_tools.scoring`, the function of the same name where there is one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtri

from eravane_kernels import checks
from eravane_kernels.arrays import Columns, Double, Floats, Integers
from eravane_kernels.eras import spans

Finite = Callable[[Floats, str], None]

SINGULAR = 1e-6
"""Singular values below this share of the largest are no direction, as in `numerai_tools.scoring.neutralize`."""


def rank(p_MN: Floats, offsets_E1: Integers) -> Double:
    """Tie-kept rank within the era, `(average rank - 0.5) / n`, in (0, 1).

    p_MN: float32 or float64, finite. Returns float64 [M, N].
    Raises: ValueError for other dtypes, strides or offsets, and for NaN or an infinity, naming column and row.
    """
    check_predictions(p_MN, offsets_E1)
    result = np.empty(p_MN.shape)
    for rows in spans(offsets_E1):
        result[:, rows] = _ranked(p_MN[:, rows])
    return result


def gaussianize(p_MN: Floats, offsets_E1: Integers) -> Double:
    """Normal quantile of the tie-kept rank within the era. Arguments and errors as `rank`; float64 [M, N]."""
    return np.asarray(ndtri(rank(p_MN, offsets_E1)))


def numerai_corr(p_MN: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
    """Numerai's CORR of every prediction in every era.

    Gaussianised ranks and centred labels, both to the power 1.5 with sign kept, then Pearson's correlation; rows
    with a NaN label are left out first. p_MN: finite; y_N: float32 or float64, NaN for unknown. Returns float64
    [M, E], NaN for a constant prediction, a constant label or fewer than two labels. Raises: ValueError.
    """
    check_predictions(p_MN, offsets_E1)
    check_labels(p_MN, y_N)
    result = np.full((len(p_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        labelled = ~np.isnan(y_N[rows])
        label = y_N[rows][labelled]
        if len(label) and label.min() < label.max():
            power = _power(ndtri(_ranked(p_MN[:, rows][:, labelled])))
            result[:, era] = _correlations(power, powered_label(y_N[rows])[None])[:, 0]
    return result


def contribution(p_MN: Floats, reference_N: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
    """Contribution of every prediction beyond a reference: MMC against the meta-model, BMC against a benchmark.

    Gaussianised predictions, made orthogonal to the gaussianised reference, dotted with the centred label (times 4
    where the era's labels lie within 0..1) over n, as `correlation_contribution`. Rows with a NaN label or reference
    are left out first. Returns float64 [M, E], NaN without rows or with a constant reference; a constant prediction
    or label contributes 0. Raises: ValueError.
    """
    check_predictions(p_MN, offsets_E1)
    check_labels(p_MN, y_N)
    check_labels(p_MN, reference_N, "reference_N")
    result = np.full((len(p_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        known = ~(np.isnan(y_N[rows]) | np.isnan(reference_N[rows]))
        reference = reference_N[rows][known]
        if len(reference) and reference.min() < reference.max():
            z_MN, base_N = ndtri(_ranked(p_MN[:, rows][:, known])), ndtri(_ranked(reference[None]))[0]
            neutral = z_MN - np.outer(z_MN @ base_N / (base_N @ base_N), base_N)
            result[:, era] = neutral @ centred_label(y_N[rows][known]) / len(base_N)
    return result


def powered_label(label_N: Floats) -> Double:
    """Known labels less their mean, to the power 1.5 with sign kept, float64; NaN is left out.

    Both steps are done in the labels' own precision, the sum with zeros in place of NaN: the files hold float32,
    numerai-tools does not widen them, and its rounding of the mean moves a score by up to 1e-8.
    """
    known_N = ~np.isnan(label_N)
    mean = np.where(known_N, label_N, 0).sum() / label_N.dtype.type(known_N.sum())
    centred = label_N[known_N] - mean
    return np.asarray(np.sign(centred) * np.abs(centred) ** 1.5, dtype=np.float64)


def centred_label(label_N: Floats) -> Double:
    """Labels less their mean in their own precision, as `powered_label`, float64.

    Times 4 first where all lie within 0..1 (Numerai's five bins become -2..2).
    """
    scaled = label_N * label_N.dtype.type(4) if label_N.min() >= 0.0 and label_N.max() <= 1.0 else label_N
    return np.asarray(scaled - scaled.mean(), dtype=np.float64)


def neutralize(p_MN: Floats, f_FN: Columns, offsets_E1: Integers, proportion: float = 1.0) -> Double:
    """Predictions less `proportion` of their least-squares projection on the features and a constant, per era.

    p_MN: float32 or float64, finite; f_FN: int8 levels without missing, or finite float32 or float64; rank-deficient
    features are projected on the directions they span (singular values above 1e-6 of the largest). Returns float64
    [M, N]; a prediction constant in the era is NaN there. Raises: ValueError.
    """
    check_predictions(p_MN, offsets_E1)
    check_features(p_MN, f_FN)
    check_proportion(proportion)
    result = p_MN.astype(np.float64)
    for rows in spans(offsets_E1):
        result[:, rows] = _neutral(result[:, rows], f_FN[:, rows], proportion)
    return result


def _neutral(p_MN: Double, f_FN: Columns, proportion: float) -> Double:
    if p_MN.shape[1] == 0:
        return p_MN
    base_NF = np.vstack([f_FN, np.ones((1, f_FN.shape[1]))]).T
    weights = np.linalg.lstsq(base_NF, p_MN.T, rcond=SINGULAR)[0]
    neutral: Double = p_MN - proportion * (base_NF @ weights).T
    neutral[p_MN.min(axis=1) == p_MN.max(axis=1)] = np.nan
    return neutral


def feature_neutral_corr(p_MN: Floats, f_FN: Columns, y_N: Floats, offsets_E1: Integers) -> Double:
    """CORR of the gaussianised predictions after neutralisation to the features (FNC), as `feature_neutral_corr`.

    Ranks and neutralisation take every row of the era, labelled or not. Arguments and errors as `neutralize` and
    `numerai_corr`. Returns float64 [M, E], NaN as in `numerai_corr`.
    """
    check_predictions(p_MN, offsets_E1)
    check_labels(p_MN, y_N)
    neutral = neutralize(gaussianize(p_MN, offsets_E1), f_FN, offsets_E1)
    return numerai_corr(np.nan_to_num(neutral), y_N, offsets_E1)


def exposure(p_MN: Floats, f_FN: Columns, offsets_E1: Integers) -> Double:
    """Pearson's correlation of every prediction with every feature in every era.

    p_MN: finite; f_FN: as in `neutralize`. Returns float64 [M, F, E], NaN where either is constant; the maximum
    exposure is `numpy.nanmax(numpy.abs(...), axis=1)`. Raises: ValueError.
    """
    check_predictions(p_MN, offsets_E1)
    check_features(p_MN, f_FN)
    result = np.full((len(p_MN), len(f_FN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        result[:, :, era] = _correlations(p_MN[:, rows].astype(np.float64), f_FN[:, rows].astype(np.float64))
    return result


def _ranked(p_MN: Floats) -> Double:
    """Tie-kept ranks: a value that stands at places i to j, counted from 1, has the rank (i + j) / 2."""
    result_MN = np.empty(p_MN.shape)
    for model, value_N in enumerate(p_MN):
        _, place_N, count = np.unique(value_N, return_inverse=True, return_counts=True)
        average = np.cumsum(count) - (count - 1) / 2.0
        result_MN[model] = (average[place_N] - 0.5) / len(value_N)
    return result_MN


def _power(x: Double) -> Double:
    return np.asarray(np.sign(x) * np.abs(x) ** 1.5)


def _correlations(left_AN: Double, right_BN: Double) -> Double:
    """Pearson's correlations [A, B], NaN for rows that are constant."""
    if left_AN.shape[1] == 0:
        return np.full((len(left_AN), len(right_BN)), np.nan)
    left, right = _standard(left_AN), _standard(right_BN)
    return np.asarray(left @ right.T)


def _standard(x_AN: Double) -> Double:
    """Rows centred and scaled to length 1; NaN for a constant row."""
    centred = x_AN - x_AN.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    varies = x_AN.min(axis=1, keepdims=True) < x_AN.max(axis=1, keepdims=True)
    return np.asarray(centred / np.where(varies, length, np.nan))


def check_predictions(p_MN: Floats, offsets_E1: Integers, finite: Finite = checks.finite) -> None:
    """Checks predictions: float32 or float64, contiguous, finite, and their eras."""
    checks.columns(p_MN, "p_MN", "float32", "float64")
    checks.offsets(offsets_E1, p_MN.shape[1])
    finite(p_MN, "p_MN")


def check_labels(p_MN: Floats, y_N: Floats, name: str = "y_N") -> None:
    """Checks labels: float32 or float64, one per row, finite or NaN."""
    checks.vector(y_N, name, p_MN.shape[1], "float32", "float64")
    checks.no_infinity(y_N, name)


def check_features(p_MN: Floats, f_FN: Columns, finite: Finite = checks.finite) -> None:
    """Checks features: int8 levels without missing, or finite floats, one column per row of predictions."""
    checks.columns(f_FN, "f_FN", "int8", "float32", "float64")
    if f_FN.shape[1] != p_MN.shape[1]:
        raise ValueError(f"f_FN: expected the {p_MN.shape[1]} rows of p_MN, given {f_FN.shape[1]}")
    if f_FN.dtype == np.int8:
        checks.levels(f_FN, "f_FN", missing=False)
    else:
        finite(f_FN, "f_FN")


def check_proportion(proportion: float) -> None:
    """Checks the share of the projection that is taken away."""
    if not np.isfinite(proportion):
        raise ValueError(f"proportion: expected a finite number, given {proportion}")
