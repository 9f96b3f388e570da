"""Outliers: bounds per (era, column), clipping, tables of levels, rows outside."""

from __future__ import annotations

from typing import Literal

import numpy as np

from eravane_kernels import checks, tables
from eravane_kernels.arrays import LEVELS, MISSING, Columns, Double, Integers, Levels, Single
from eravane_kernels.eras import spans
from eravane_kernels.spec.statistics import level_counts, quantiles_of_counts, stats_of_counts, stats_of_spans

Method = Literal["winsorize", "std", "mad"]
METHODS = ("winsorize", "std", "mad")


def clip_bounds(
    x_CN: Columns,
    offsets_E1: Integers,
    method: Method = "winsorize",
    low: float = 0.01,
    high: float = 0.99,
    k: float = 3.0,
    window: int = 0,
) -> tuple[Double, Double]:
    """Lower and upper bounds of every (era, column) from that era pooled with the `window` eras before it.

    x_CN: int8 levels or float32 with NaN. `winsorize`: the quantiles `low` and `high`; `std`: mean -+ k standard
    deviations (ddof 0); `mad`: median -+ k times the median absolute deviation, unscaled. Returns two float64 [E, C],
    NaN where no value is present. Raises: ValueError for bad arrays, methods, quantiles, k or window.
    """
    check_bounds(x_CN, offsets_E1, method, low, high, k, window)
    if x_CN.dtype == np.float32:
        checks.no_infinity(x_CN, "x_CN")
    if method == "mad":
        centre, spread = _median_deviation(x_CN, offsets_E1, window)
        return centre - k * spread, centre + k * spread
    wanted = (low, high) if method == "winsorize" else ()
    if x_CN.dtype == np.int8:
        stats = stats_of_counts(tables.pooled_counts(level_counts(x_CN, offsets_E1), window), wanted)
    else:
        stats = stats_of_spans(x_CN, spans(offsets_E1, window), wanted)
    if method == "winsorize":
        return stats.quantiles_QEC[0], stats.quantiles_QEC[1]
    return stats.mean_EC - k * stats.std_EC, stats.mean_EC + k * stats.std_EC


def check_bounds(
    x_CN: Columns, offsets_E1: Integers, method: str, low: float, high: float, k: float, window: int
) -> None:
    """Checks the arguments of `clip_bounds`, except for infinities."""
    checks.columns(x_CN, "x_CN", "int8", "float32")
    checks.offsets(offsets_E1, x_CN.shape[1])
    check_bound_method(method, low, high, k, window)


def check_bound_method(method: str, low: float, high: float, k: float, window: int) -> None:
    """Checks how `clip_bounds` bounds."""
    checks.choice(method, "method", METHODS)
    checks.quantiles((low, high))
    checks.window(window)
    if low > high:
        raise ValueError(f"low, high: expected low <= high, given {low} and {high}")
    if not k >= 0.0:
        raise ValueError(f"k: expected 0 or more, given {k}")


def _median_deviation(x_CN: Columns, offsets_E1: Integers, window: int) -> tuple[Double, Double]:
    """Median and median absolute deviation, float64 [E, C] each."""
    if x_CN.dtype == np.int8:
        return median_deviation_of_counts(tables.pooled_counts(level_counts(x_CN, offsets_E1), window))
    rows_E = spans(offsets_E1, window)
    centre = stats_of_spans(x_CN, rows_E, (0.5,)).quantiles_QEC[0]
    spread = np.full_like(centre, np.nan)
    for era, rows in enumerate(rows_E):
        for column, middle in enumerate(centre[era]):
            if not np.isnan(middle):
                spread[era, column] = np.nanmedian(np.abs(x_CN[column, rows].astype(np.float64) - middle))
    return centre, spread


def median_deviation_of_counts(counts_ECL: Integers) -> tuple[Double, Double]:
    """Median and median absolute deviation of levels from int64 counts [E, C, 6].

    A median of levels is a multiple of one half, so deviations are counted in halves.
    """
    present = counts_ECL[..., :LEVELS]
    centre = quantiles_of_counts(present, (0.5,))[0]
    halves_ECL = np.abs(2 * np.arange(LEVELS) - 2 * np.nan_to_num(centre)[..., None])
    counts_ECB = np.stack([np.where(halves_ECL == half, present, 0).sum(axis=2) for half in range(2 * LEVELS)], 2)
    return centre, quantiles_of_counts(counts_ECB, (0.5,))[0] / 2.0


def clip(x_CN: Single, offsets_E1: Integers, low_EC: Double, high_EC: Double) -> Single:
    """Limits float columns to the bounds of their era; NaN stays, a NaN bound limits nothing.

    x_CN: float32; bounds float64 [E, C], rounded to float32. Returns float32 [C, N].
    Raises: ValueError for other dtypes, strides, offsets or shapes, low above high, and for an infinity.
    """
    check_clip(x_CN, offsets_E1, low_EC, high_EC)
    checks.no_infinity(x_CN, "x_CN")
    result = x_CN.copy()
    for era, rows in enumerate(spans(offsets_E1)):
        low, high = low_EC[era].astype(np.float32)[:, None], high_EC[era].astype(np.float32)[:, None]
        part = result[:, rows]
        np.copyto(part, low, where=part < low)
        np.copyto(part, high, where=part > high)
    return result


def check_clip(x_CN: Columns, offsets_E1: Integers, low_EC: Double, high_EC: Double, *dtypes: str) -> None:
    """Checks columns (float32 by default) and their bounds."""
    checks.columns(x_CN, "x_CN", *(dtypes or ("float32",)))
    checks.offsets(offsets_E1, x_CN.shape[1])
    checks.shape(low_EC, "low_EC", (len(offsets_E1) - 1, len(x_CN)), "float64")
    tables.bounds(low_EC, high_EC)


def apply_table(x_CN: Levels, offsets_E1: Integers, table_ECL: Levels) -> Levels:
    """Replaces every level by the entry of its era's and column's table.

    x_CN: int8; table_ECL: int8 [E, C, 6], what 0, 1, 2, 3, 4 and missing become. Returns int8 [C, N].
    Raises: ValueError for other dtypes, strides, offsets or shapes, and for a value that is no level.
    """
    check_table(x_CN, offsets_E1, table_ECL)
    checks.levels(x_CN, "x_CN")
    result = np.empty(x_CN.shape, dtype=np.int8)
    for era, rows in enumerate(spans(offsets_E1)):
        slots = x_CN[:, rows].astype(np.intp)
        slots[slots == MISSING] = LEVELS
        result[:, rows] = np.take_along_axis(table_ECL[era], slots, axis=1)
    return result


def check_table(x_CN: Levels, offsets_E1: Integers, table_ECL: Levels) -> None:
    """Checks level columns and their tables."""
    checks.columns(x_CN, "x_CN", "int8")
    checks.offsets(offsets_E1, x_CN.shape[1])
    checks.shape(table_ECL, "table_ECL", (len(offsets_E1) - 1, len(x_CN), LEVELS + 1), "int8")
