"""The statistics of every column in every era."""

from __future__ import annotations

from dataclasses import dataclass

from eravane_kernels.arrays import Double, Integers

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Stats:
    """Statistics per era and column; a statistic that is undefined (no value present) is NaN.

    Counts are int64 [E, C], the others float64 [E, C], quantiles float64 [Q, E, C] with linear interpolation as in
    `numpy.quantile`; std has ddof 0; mode is the smallest of the most frequent values.
    """

    count_EC: Integers
    missing_EC: Integers
    mean_EC: Double
    std_EC: Double
    min_EC: Double
    max_EC: Double
    mode_EC: Double
    quantiles_QEC: Double
