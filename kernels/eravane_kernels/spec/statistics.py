"""Statistics per (era, column)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eravane_kernels import checks, tables
from eravane_kernels.arrays import LEVELS, MISSING, SLOTS, Columns, Counts, Double, Integers, Levels, Single
from eravane_kernels.eras import spans
from eravane_kernels.quantile import between, positions
from eravane_kernels.stats import QUANTILES, Stats


def level_counts(x_CN: Levels, offsets_E1: Integers) -> Counts:
    """Rows of every era that hold level 0, 1, 2, 3, 4 and missing (-1).

    x_CN: int8, contiguous columns; offsets_E1: int64. Returns uint32 [E, C, 6].
    Raises: ValueError for other dtypes, strides or offsets, and for any other value, naming column, row and value.
    """
    checks.columns(x_CN, "x_CN", "int8")
    checks.offsets(offsets_E1, x_CN.shape[1])
    checks.levels(x_CN, "x_CN")
    counts_ECL = np.zeros((len(offsets_E1) - 1, len(x_CN), SLOTS), dtype=np.uint32)
    for era, rows in enumerate(spans(offsets_E1)):
        for slot, level in enumerate([*range(LEVELS), MISSING]):
            counts_ECL[era, :, slot] = np.count_nonzero(x_CN[:, rows] == level, axis=1)
    return counts_ECL


def level_stats(counts_ECL: Counts, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """Statistics of levels 0..4 from their counts.

    counts_ECL: uint32 [E, C, 6]; quantiles within 0..1. Returns Stats. Raises: ValueError.
    """
    tables.counts(counts_ECL)
    checks.quantiles(quantiles)
    return stats_of_counts(counts_ECL.astype(np.int64), quantiles)


def stats_of_counts(counts_ECL: Integers, quantiles: Sequence[float]) -> Stats:
    """Statistics of levels from int64 counts, which may pool several eras."""
    present = counts_ECL[..., :LEVELS]
    count = present.sum(axis=2)
    level_L = np.arange(LEVELS)
    n = np.where(count > 0, count, np.nan)
    mean = present @ level_L / n
    absent = count == 0
    held = present > 0
    return Stats(
        count_EC=count,
        missing_EC=counts_ECL[..., LEVELS].copy(),
        mean_EC=mean,
        std_EC=np.sqrt((present * (level_L - mean[..., None]) ** 2).sum(axis=2) / n),
        min_EC=np.where(absent, np.nan, held.argmax(axis=2)),
        max_EC=np.where(absent, np.nan, LEVELS - 1 - held[..., ::-1].argmax(axis=2)),
        mode_EC=np.where(absent, np.nan, present.argmax(axis=2)),
        quantiles_QEC=quantiles_of_counts(present, quantiles),
    )


def quantiles_of_counts(counts_ECB: Integers, quantiles: Sequence[float]) -> Double:
    """Quantiles of the values 0, 1, 2, ... with the counts counts_ECB; float64 [Q, E, C]."""
    total_ECB = counts_ECB.cumsum(axis=2)
    count = total_ECB[..., -1]
    result = np.empty((len(quantiles), *count.shape))
    for number, quantile in enumerate(quantiles):
        below, above, weight = positions(count, quantile)
        low, high = ((total_ECB <= rank[..., None]).sum(axis=2) for rank in (below, above))
        result[number] = np.where(count > 0, between(low, high, weight), np.nan)
    return result


def float_stats(x_CN: Single, offsets_E1: Integers, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """Statistics of float columns, accumulated in float64.

    x_CN: float32, contiguous columns, NaN for missing; offsets_E1: int64; quantiles within 0..1. Returns Stats.
    Raises: ValueError for other dtypes, strides or offsets, and for an infinity, naming column and row.
    """
    checks.columns(x_CN, "x_CN", "float32")
    checks.offsets(offsets_E1, x_CN.shape[1])
    checks.no_infinity(x_CN, "x_CN")
    checks.quantiles(quantiles)
    return stats_of_spans(x_CN, spans(offsets_E1), quantiles)


def stats_of_spans(x_CN: Single, rows_E: Sequence[slice], quantiles: Sequence[float]) -> Stats:
    """Statistics of float columns over row ranges, which may overlap."""
    shape = (len(rows_E), len(x_CN))
    count, mean, std, least, most, mode = (np.full(shape, np.nan) for _ in range(6))
    quantile_QEC = np.full((len(quantiles), *shape), np.nan)
    for era, rows in enumerate(rows_E):
        for column in range(len(x_CN)):
            cell = x_CN[column, rows].astype(np.float64)
            values = cell[~np.isnan(cell)] + 0.0
            count[era, column] = len(values)
            if len(values):
                mean[era, column], std[era, column] = values.mean(), values.std()
                least[era, column], most[era, column] = values.min(), values.max()
                distinct, times = np.unique(values, return_counts=True)
                mode[era, column] = distinct[times.argmax()]
                quantile_QEC[:, era, column] = np.quantile(values, quantiles)
    rows_E1 = np.array([rows.stop - rows.start for rows in rows_E], dtype=np.int64)[:, None]
    counted = count.astype(np.int64)
    return Stats(counted, rows_E1 - counted, mean, std, least, most, mode, quantile_QEC)


def era_stats(x_CN: Columns, offsets_E1: Integers, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """Statistics of level columns (int8) or float columns (float32), chosen by dtype.

    Returns Stats. Raises: ValueError as `level_counts` and `float_stats`.
    """
    checks.columns(x_CN, "x_CN", "int8", "float32")
    if x_CN.dtype == np.int8:
        return level_stats(level_counts(x_CN, offsets_E1), quantiles)
    return float_stats(x_CN, offsets_E1, quantiles)
