"""Statistics of an era as a whole: agreement of predictions, correlation inside and between feature groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eravane_kernels import checks
from eravane_kernels.arrays import MISSING, Columns, Double, Floats, Integers, Levels
from eravane_kernels.eras import spans
from eravane_kernels.spec.cross_section import check_predictions

Groups = Sequence[npt.NDArray[np.integer[Any]]]

ALONE = (0.0, 0.0, 0.0, 1.0, 0.0)
"""Structure of a group with fewer than two columns that vary."""

FLAT = 1e-6
"""Standard deviation of a group's mean standardised column below which it is taken as constant."""


def gram(z_MN: Floats, offsets_E1: Integers) -> Double:
    """Mean product of every pair of rows, `z z' / n`, per era: with gaussianised predictions, their agreement.

    z_MN: float32 or float64, finite. Returns float64 [E, M, M], NaN for an empty era. Raises: ValueError.
    """
    check_predictions(z_MN, offsets_E1)
    result = np.full((len(offsets_E1) - 1, len(z_MN), len(z_MN)), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        part = z_MN[:, rows].astype(np.float64)
        if part.shape[1]:
            result[era] = part @ part.T / part.shape[1]
    return result


def mean_products(z_MN: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
    """Mean product of every row with a vector, `z y / n`, per era: with gaussianised predictions, what a label pays.

    z_MN, y_N: float32 or float64, finite. Returns float64 [M, E], NaN for an empty era. Raises: ValueError.
    """
    check_predictions(z_MN, offsets_E1)
    checks.vector(y_N, "y_N", z_MN.shape[1], "float32", "float64")
    checks.finite(y_N[None], "y_N")
    result = np.full((len(z_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        if rows.stop > rows.start:
            result[:, era] = z_MN[:, rows].astype(np.float64) @ y_N[rows] / (rows.stop - rows.start)
    return result


def dispersion(p_MN: Floats, offsets_E1: Integers) -> Double:
    """Standard deviation (ddof 0) of every prediction within the era.

    p_MN: float32 or float64, finite. Returns float64 [M, E], NaN for an empty era. Raises: ValueError.
    """
    check_predictions(p_MN, offsets_E1)
    result = np.full((len(p_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        if rows.stop > rows.start:
            result[:, era] = p_MN[:, rows].astype(np.float64).std(axis=1)
    return result


def group_structure(x_CN: Columns, offsets_E1: Integers, groups: Groups) -> Double:
    """Common movement of the columns of a group in an era, and of the groups' means.

    x_CN: int8 levels or float32 with NaN; groups: column positions. A missing cell counts as its column's mean;
    columns that are constant or missing throughout the era are left out. Returns float64 [E, G, 5 + G]: mean
    correlation, mean absolute and mean squared correlation of the pairs, first and second eigenvalue of the correlation
    matrix over the number of columns, (0, 0, 0, 1, 0) for fewer than two columns; then correlations of the groups' mean
    standardised columns, 1 with itself and 0 for a group without a column that varies, or whose mean does not. Raises:
    ValueError.
    """
    check_groups(x_CN, offsets_E1, groups)
    result = np.empty((len(offsets_E1) - 1, len(groups), len(ALONE) + len(groups)))
    for era, rows in enumerate(spans(offsets_E1)):
        parts = [x_CN[np.asarray(group, dtype=np.intp), rows] for group in groups]
        means = [_mean_column(part_CN) for part_CN in parts]
        for number, part_CN in enumerate(parts):
            unit_CN = _unit(part_CN)
            result[era, number, : len(ALONE)] = structure(unit_CN @ unit_CN.T)
            result[era, number, len(ALONE) :] = [means[number] @ other for other in means]
            result[era, number, len(ALONE) + number] = 1.0
    return result


def structure(corr_CC: Double) -> tuple[float, ...]:
    """The first five numbers of `group_structure` from a correlation matrix."""
    width = len(corr_CC)
    if width < 2:
        return ALONE
    pairs = corr_CC[np.triu_indices(width, 1)]
    second, first = np.linalg.eigvalsh(corr_CC)[-2:] / width
    return (float(pairs.mean()), float(np.abs(pairs).mean()), float((pairs**2).mean()), float(first), float(second))


def _mean_column(x_CN: Columns) -> Double:
    """Mean of the columns that vary, standardised, scaled to length 1; zeros where it does not vary itself."""
    unit_CN = _unit(x_CN)
    total = unit_CN.sum(axis=0)
    length = np.sqrt(total @ total)
    return np.asarray(total / length if length > FLAT * len(unit_CN) else total * 0.0)


def _unit(x_CN: Columns) -> Double:
    """The columns that vary, centred and of length 1, missing cells at the mean."""
    value_CN = x_CN.astype(np.float64)
    if x_CN.dtype == np.int8:
        value_CN[x_CN == MISSING] = np.nan
    least, most = np.fmin.reduce(value_CN, 1, initial=np.inf), np.fmax.reduce(value_CN, 1, initial=-np.inf)
    kept = value_CN[least < most]
    centred = [np.nan_to_num(column - np.nanmean(column)) for column in kept]
    return np.array([column / np.sqrt(column @ column) for column in centred]).reshape(len(kept), x_CN.shape[1])


def check_groups(
    x_CN: Columns, offsets_E1: Integers, groups: Groups, levels: Callable[[Levels, str], None] = checks.levels
) -> None:
    """Checks columns, eras and groups; `levels` checks levels."""
    checks.columns(x_CN, "x_CN", "int8", "float32")
    checks.offsets(offsets_E1, x_CN.shape[1])
    checks.groups(groups, len(x_CN))
    if x_CN.dtype == np.int8:
        levels(x_CN, "x_CN")
    else:
        checks.no_infinity(x_CN, "x_CN")
