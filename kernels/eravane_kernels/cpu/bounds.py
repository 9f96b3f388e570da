"""One value per (era, column): bounds for outliers, fills for missing cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eravane_kernels import tables
from eravane_kernels.arrays import Columns, Double, Integers
from eravane_kernels.cpu import counts, floats
from eravane_kernels.cpu.moments import moments
from eravane_kernels.eras import spans
from eravane_kernels.spec.missing import FillMethod, check_fill_values
from eravane_kernels.spec.outliers import Method, check_bounds, median_deviation_of_counts


def clip_bounds(
    x_CN: Columns,
    offsets_E1: Integers,
    method: Method = "winsorize",
    low: float = 0.01,
    high: float = 0.99,
    k: float = 3.0,
    window: int = 0,
) -> tuple[Double, Double]:
    """See `spec.clip_bounds`."""
    check_bounds(x_CN, offsets_E1, method, low, high, k, window)
    if method == "winsorize":
        lower, upper = _quantiles(x_CN, offsets_E1, window, (low, high))
        return lower, upper
    centre, spread = (_mean_std if method == "std" else _median_deviation)(x_CN, offsets_E1, window)
    return centre - k * spread, centre + k * spread


def fill_values(
    x_CN: Columns,
    offsets_E1: Integers,
    method: FillMethod = "mean",
    constant: float | None = None,
    window: int = 0,
) -> Double:
    """See `spec.fill_values`."""
    check_fill_values(x_CN, offsets_E1, method, constant, window)
    if method == "constant":
        return np.full((len(offsets_E1) - 1, len(x_CN)), constant, dtype=np.float64)
    if method == "mean":
        return _mean_std(x_CN, offsets_E1, window)[0]
    if method == "median":
        return np.asarray(_quantiles(x_CN, offsets_E1, window, (0.5,))[0])
    if x_CN.dtype == np.int8:
        return counts.stats_of_counts(_pooled(x_CN, offsets_E1, window), ()).mode_EC
    return floats.stats_of_spans(x_CN, spans(offsets_E1, window), ()).mode_EC


def _pooled(x_CN: Columns, offsets_E1: Integers, window: int) -> Integers:
    return tables.pooled_counts(counts.level_counts(x_CN, offsets_E1), window)


def _quantiles(x_CN: Columns, offsets_E1: Integers, window: int, wanted: Sequence[float]) -> Double:
    if x_CN.dtype == np.int8:
        return counts.stats_of_counts(_pooled(x_CN, offsets_E1, window), wanted).quantiles_QEC
    return floats.order_statistics(x_CN, spans(offsets_E1, window), wanted)


def _mean_std(x_CN: Columns, offsets_E1: Integers, window: int) -> tuple[Double, Double]:
    if x_CN.dtype == np.int8:
        stats = counts.stats_of_counts(_pooled(x_CN, offsets_E1, window), ())
        return stats.mean_EC, stats.std_EC
    return moments(x_CN, spans(offsets_E1, window))[1:]


def _median_deviation(x_CN: Columns, offsets_E1: Integers, window: int) -> tuple[Double, Double]:
    if x_CN.dtype == np.int8:
        return median_deviation_of_counts(_pooled(x_CN, offsets_E1, window))
    return floats.median_deviation(x_CN, spans(offsets_E1, window))
