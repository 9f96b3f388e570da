"""Statistics of float columns that need their order, from a sort within the era."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Double, Floats, Integers, Single
from eravane_kernels.cpu.jit import kernel, summing
from eravane_kernels.eras import spans
from eravane_kernels.stats import QUANTILES, Stats

BLOCK = 1 << 16
"""Values sorted at a time: a block stays in the second-level cache."""


def float_stats(x_CN: Single, offsets_E1: Integers, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """See `spec.float_stats`."""
    checks.columns(x_CN, "x_CN", "float32")
    checks.offsets(offsets_E1, x_CN.shape[1])
    checks.quantiles(quantiles)
    return stats_of_spans(x_CN, spans(offsets_E1), quantiles)


def stats_of_spans(x_CN: Single, rows_E: Sequence[slice], quantiles: Sequence[float]) -> Stats:
    """Statistics of float columns over row ranges, which may overlap."""
    shape, wanted_Q = (len(rows_E), len(x_CN)), np.array(quantiles, dtype=np.float64)
    count = np.empty(shape, dtype=np.int64)
    value_5EC, quantile_QEC = np.empty((5, *shape)), np.empty((len(wanted_Q), *shape))
    for era, rows in enumerate(rows_E):
        for columns, sorted_CN in sorted_blocks(x_CN[:, rows]):
            cells = count[era, columns], value_5EC[:, era, columns], quantile_QEC[:, era, columns]
            if not _describe(sorted_CN, wanted_Q, *cells):
                checks.no_infinity(x_CN, "x_CN")
    mean, std, least, most, mode = value_5EC
    return Stats(count, rows_of(rows_E) - count, mean, std, least, most, mode, quantile_QEC)


def order_statistics(x_CN: Single, rows_E: Sequence[slice], quantiles: Sequence[float]) -> Double:
    """Quantiles over row ranges, which may overlap; float64 [Q, E, C]. Raises: ValueError for an infinity."""
    wanted_Q = np.array(quantiles, dtype=np.float64)
    result = np.empty((len(wanted_Q), len(rows_E), len(x_CN)))
    for era, rows in enumerate(rows_E):
        for columns, sorted_CN in sorted_blocks(x_CN[:, rows]):
            if not _pick(sorted_CN, wanted_Q, result[:, era, columns]):
                checks.no_infinity(x_CN, "x_CN")
    return result


def median_deviation(x_CN: Single, rows_E: Sequence[slice]) -> tuple[Double, Double]:
    """Median and median absolute deviation over row ranges, float64 [E, C] each. Raises: ValueError for an infinity."""
    result = np.empty((2, len(rows_E), len(x_CN)))
    for era, rows in enumerate(rows_E):
        for columns, sorted_CN in sorted_blocks(x_CN[:, rows]):
            if not _deviate(sorted_CN, result[:, era, columns]):
                checks.no_infinity(x_CN, "x_CN")
    return result[0], result[1]


@kernel
def _pick(sorted_CN: Single, wanted_Q: Double, quantile_QC: Double) -> bool:
    """Quantiles of sorted columns, NaN last; returns whether all values are finite or NaN."""
    for column in range(sorted_CN.shape[0]):
        values = sorted_CN[column, : _present(sorted_CN[column])]
        quantile_QC[:, column] = np.nan
        if values.shape[0] > 0:
            if np.isinf(values[0]) or np.isinf(values[-1]):
                return False
            for number in range(wanted_Q.shape[0]):
                quantile_QC[number, column] = sorted_quantile(values, wanted_Q[number])
    return True


@kernel
def _deviate(sorted_CN: Single, result_2C: Double) -> bool:
    """Median and median absolute deviation of sorted columns; returns whether all values are finite or NaN."""
    for column in range(sorted_CN.shape[0]):
        values = sorted_CN[column, : _present(sorted_CN[column])]
        result_2C[:, column] = np.nan
        if values.shape[0] > 0:
            if np.isinf(values[0]) or np.isinf(values[-1]):
                return False
            centre = sorted_quantile(values, 0.5)
            result_2C[0, column], result_2C[1, column] = centre, _deviation(values, centre)
    return True


@kernel
def _deviation(values: Single, centre: float) -> float:
    """Median distance of sorted values from their median, walking outwards from it."""
    count = values.shape[0]
    left = right = count // 2
    below = above = 0.0
    for _ in range(count // 2 + 1):
        below = above
        if left > 0 and (right >= count or centre - values[left - 1] <= values[right] - centre):
            left -= 1
            above = centre - values[left]
        else:
            above = values[right] - centre
            right += 1
    return above if count % 2 else (below + above) / 2.0


def rows_of(rows_E: Sequence[slice]) -> Integers:
    """Rows of every range, int64 [E, 1]."""
    return np.array([rows.stop - rows.start for rows in rows_E], dtype=np.int64)[:, None]


def sorted_blocks(x_CN: Single) -> Iterator[tuple[slice, Single]]:
    """Columns sorted, NaN last, a block of columns at a time; every block reuses the memory of the one before."""
    width, rows = x_CN.shape
    height = max(1, BLOCK // max(rows, 1))
    block = np.empty((min(height, width), rows), dtype=x_CN.dtype)
    for first in range(0, width, height):
        columns = slice(first, min(first + height, width))
        sorted_CN = block[: columns.stop - first]
        np.copyto(sorted_CN, x_CN[columns])
        sorted_CN.sort(axis=1)
        yield columns, sorted_CN


@kernel
def _describe(sorted_CN: Single, wanted_Q: Double, count_C: Integers, value_5C: Double, quantile_QC: Double) -> bool:
    """Statistics of sorted columns, NaN last; returns whether all values are finite or NaN."""
    for column in range(sorted_CN.shape[0]):
        count = _present(sorted_CN[column])
        values = sorted_CN[column, :count]
        count_C[column] = count
        value_5C[:, column] = np.nan
        quantile_QC[:, column] = np.nan
        if count > 0:
            if np.isinf(values[0]) or np.isinf(values[-1]):
                return False
            mean, std = _mean_std(values)
            value_5C[0, column], value_5C[1, column] = mean, std
            value_5C[2, column], value_5C[3, column] = values[0], values[-1]
            value_5C[4, column] = _mode(values)
            for number in range(wanted_Q.shape[0]):
                quantile_QC[number, column] = sorted_quantile(values, wanted_Q[number])
    return True


@kernel
def _present(sorted_N: Single) -> int:
    """Number of sorted values before the first NaN."""
    low, high = 0, sorted_N.shape[0]
    while low < high:
        middle = (low + high) // 2
        if np.isnan(sorted_N[middle]):
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def sorted_quantile(values: Floats, wanted: float) -> float:
    """Quantile of sorted values, as `quantile.between`."""
    last = values.shape[0] - 1
    virtual = last * wanted
    below = int(np.floor(virtual))
    low, high = np.float64(values[below]), np.float64(values[min(below + 1, last)])
    weight, gap = virtual - below, high - low
    return float(high - gap * (1.0 - weight) if weight >= 0.5 else low + gap * weight)


@kernel
def _mode(values: Single) -> np.float32:
    """Smallest of the most frequent sorted values: the largest gap over which one recurs, found by doubling."""
    gap, step = 0, 1
    while _recurs(values, gap + step):
        gap += step
        step *= 2
    while step > 1:
        step //= 2
        if _recurs(values, gap + step):
            gap += step
    row = 0
    while values[row] != values[row + gap]:
        row += 1
    return np.float32(values[row])


@kernel
def _recurs(values: Single, gap: int) -> bool:
    """Whether some sorted value equals the one `gap` places later, that is, occurs more than `gap` times."""
    ahead, recurs = values[gap:], False
    for row in range(ahead.shape[0]):
        recurs |= values[row] == ahead[row]
    return recurs


@summing
def _mean_std(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0) of values without NaN, in two passes."""
    total = squares = 0.0
    for row in range(values.shape[0]):
        total += np.float64(values[row])
    mean = total / values.shape[0]
    for row in range(values.shape[0]):
        gap = np.float64(values[row]) - mean
        squares += gap * gap
    return mean, float(np.sqrt(squares / values.shape[0]))
