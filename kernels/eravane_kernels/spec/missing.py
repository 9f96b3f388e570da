"""Missing values: fills per (era, column), indicators, nearest neighbours."""

from __future__ import annotations

from typing import Literal

import numpy as np

from eravane_kernels import checks, tables
from eravane_kernels.arrays import MISSING, Columns, Double, Integers, Levels, Single
from eravane_kernels.eras import spans
from eravane_kernels.spec.statistics import level_counts, stats_of_counts, stats_of_spans

FillMethod = Literal["mean", "median", "mode", "constant"]
FILL_METHODS = ("mean", "median", "mode", "constant")


def fill_values(
    x_CN: Columns,
    offsets_E1: Integers,
    method: FillMethod = "mean",
    constant: float | None = None,
    window: int = 0,
) -> Double:
    """Fill value for missing cells of every (era, column), from that era pooled with the `window` eras before it.

    x_CN: int8 levels or float32 with NaN; `constant` is taken by the method of that name alone. Returns float64 [E, C],
    NaN where no value is present. Raises: ValueError for bad arrays, methods or windows, and for a missing constant.
    """
    check_fill_values(x_CN, offsets_E1, method, constant, window)
    if x_CN.dtype == np.float32:
        checks.no_infinity(x_CN, "x_CN")
    if method == "constant":
        return np.full((len(offsets_E1) - 1, len(x_CN)), constant, dtype=np.float64)
    wanted = (0.5,) if method == "median" else ()
    if x_CN.dtype == np.int8:
        stats = stats_of_counts(tables.pooled_counts(level_counts(x_CN, offsets_E1), window), wanted)
    else:
        stats = stats_of_spans(x_CN, spans(offsets_E1, window), wanted)
    if method == "mean":
        return stats.mean_EC
    return stats.mode_EC if method == "mode" else np.asarray(stats.quantiles_QEC[0])


def check_fill_values(x_CN: Columns, offsets_E1: Integers, method: str, constant: float | None, window: int) -> None:
    """Checks the arguments of `fill_values`, except for infinities."""
    checks.columns(x_CN, "x_CN", "int8", "float32")
    checks.offsets(offsets_E1, x_CN.shape[1])
    check_fill_method(method, constant, window)


def check_fill_method(method: str, constant: float | None, window: int) -> None:
    """Checks how `fill_values` fills."""
    checks.choice(method, "method", FILL_METHODS)
    checks.window(window)
    if (method == "constant") != (constant is not None):
        raise ValueError(f"constant: expected a number with method 'constant' alone, given {constant} with {method!r}")
    if constant is not None and not np.isfinite(constant):
        raise ValueError(f"constant: expected a finite number, given {constant}")


def fill(x_CN: Single, offsets_E1: Integers, value_EC: Double) -> Single:
    """Puts the era's value, rounded to float32, in place of NaN; a NaN value leaves the cell missing.

    x_CN: float32; value_EC: float64 [E, C]. Returns float32 [C, N].
    Raises: ValueError for other dtypes, strides, offsets or shapes.
    """
    check_fill(x_CN, offsets_E1, value_EC)
    result = x_CN.copy()
    for era, rows in enumerate(spans(offsets_E1)):
        part = result[:, rows]
        np.copyto(part, value_EC[era].astype(np.float32)[:, None], where=np.isnan(part))
    return result


def check_fill(x_CN: Single, offsets_E1: Integers, value_EC: Double) -> None:
    """Checks float columns and their fills."""
    checks.columns(x_CN, "x_CN", "float32")
    checks.offsets(offsets_E1, x_CN.shape[1])
    checks.shape(value_EC, "value_EC", (len(offsets_E1) - 1, len(x_CN)), "float64")


def missing_indicators(x_CN: Columns) -> Levels:
    """1 where a cell is missing (-1 or NaN), else 0.

    x_CN: int8 or float32. Returns int8 [C, N]. Raises: ValueError for other dtypes or strides.
    """
    checks.columns(x_CN, "x_CN", "int8", "float32")
    missing = x_CN == MISSING if x_CN.dtype == np.int8 else np.isnan(x_CN)
    return missing.astype(np.int8)


def knn_impute(x_CN: Single, offsets_E1: Integers, k: int = 5) -> Single:
    """Fills every NaN with the mean of the column in the `k` nearest rows of the era that have a value there.

    Distance is Euclidean over the columns that both rows hold, scaled up by the share of columns held, as in
    `sklearn.metrics.pairwise.nan_euclidean_distances`; equal distances go to the lower row; a row that shares no
    column with any row that holds a value gets the column's mean; a column with no value in the era stays NaN.
    Same values as `sklearn.impute.KNNImputer` fitted on the era, where distances do not tie.
    x_CN: float32. Returns float32 [C, N]. Raises: ValueError for bad arrays, an infinity or k below 1.
    """
    check_knn(x_CN, offsets_E1, k)
    checks.no_infinity(x_CN, "x_CN")
    result = x_CN.copy()
    for rows in spans(offsets_E1):
        _knn_era(x_CN[:, rows].astype(np.float64), k, result[:, rows])
    return result


def check_knn(x_CN: Single, offsets_E1: Integers, k: int) -> None:
    """Checks the arguments of `knn_impute`, except for infinities."""
    checks.columns(x_CN, "x_CN", "float32")
    checks.offsets(offsets_E1, x_CN.shape[1])
    if k < 1:
        raise ValueError(f"k: expected 1 or more neighbours, given {k}")


def _knn_era(x_CN: Double, k: int, result_CN: Single) -> None:
    held_CN = ~np.isnan(x_CN)
    for row in np.flatnonzero(~held_CN.all(axis=0)):
        shared_CN = held_CN & held_CN[:, row : row + 1]
        gap_CN = np.where(shared_CN, x_CN - x_CN[:, row : row + 1], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            distance_N = (gap_CN**2).sum(axis=0) / shared_CN.sum(axis=0)
        for column in np.flatnonzero(~held_CN[:, row]):
            donors = np.flatnonzero(held_CN[column])
            near = donors[~np.isnan(distance_N[donors])]
            if len(near):
                donors = near[np.argsort(distance_N[near], kind="stable")[:k]]
            if len(donors):
                result_CN[column, row] = x_CN[column, donors].mean()
