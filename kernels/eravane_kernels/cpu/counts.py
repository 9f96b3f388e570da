"""Level counts by bit planes, and the statistics that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eravane_kernels import checks, tables
from eravane_kernels.arrays import SLOTS, Counts, Double, Integers, Levels
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.layout import flat
from eravane_kernels.cpu.planes import count_planes
from eravane_kernels.cpu.vectors import BLOCK, ahead
from eravane_kernels.stats import QUANTILES, Stats


def level_counts(x_CN: Levels, offsets_E1: Integers) -> Counts:
    """See `spec.level_counts`."""
    checks.columns(x_CN, "x_CN", "int8")
    checks.offsets(offsets_E1, x_CN.shape[1])
    counts_ECL = np.empty((len(offsets_E1) - 1, len(x_CN), SLOTS), dtype=np.uint32)
    bad = _count(*flat(x_CN), offsets_E1, counts_ECL)
    if bad >= 0:
        raise checks.bad_level(x_CN[bad], "x_CN", bad)
    return counts_ECL


@kernel
def _count(x_S: Levels, start_C: Integers, offsets_E1: Integers, counts_ECL: Counts) -> int:
    """Fills counts_ECL; returns the first column with a value that is no level, else -1."""
    rest_B = np.empty(BLOCK, dtype=np.int8)
    for column in range(start_C.shape[0]):
        bad = np.uint64(0)
        for era in range(offsets_E1.shape[0] - 1):
            start, rows = start_C[column] + offsets_E1[era], offsets_E1[era + 1] - offsets_E1[era]
            distance = ahead(start_C, column, offsets_E1[era + 1], offsets_E1[-1], 1)
            bad |= _count_run(x_S, start, rows, distance, rest_B, counts_ECL[era, column])
        if bad != 0:
            return column
    return -1


@kernel
def _count_run(x_S: Levels, start: int, rows: int, distance: int, rest_B: Levels, counts_L: Counts) -> np.uint64:
    """Counts one contiguous run from its bit planes; returns non-zero if a value is no level.

    Memory is asked for at that distance in bytes; what is left of a block is counted in rest_B, filled up with zeros.
    """
    blocks = rows // BLOCK
    tail = x_S[start + blocks * BLOCK : start + rows]
    rest_B[:] = 0
    for row in range(tail.shape[0]):
        rest_B[row] = tail[row]
    body, rest = count_planes(x_S, start, blocks, distance), count_planes(rest_B, 0, 1, 0)
    one, two, four = body[0] + rest[0], body[1] + rest[1], body[2] + rest[2]
    three, missing = body[3] + rest[3], body[4] + rest[4]
    counts_L[0] = np.uint64(rows) + three - one - two - four + missing
    counts_L[1], counts_L[2] = one - three, two - three
    counts_L[3], counts_L[4], counts_L[5] = three - missing, four - missing, missing
    return np.uint64(body[5] | rest[5])


def level_stats(counts_ECL: Counts, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """See `spec.level_stats`."""
    tables.counts(counts_ECL)
    checks.quantiles(quantiles)
    return stats_of_counts(np.ascontiguousarray(counts_ECL), quantiles)


def stats_of_counts(counts_ECL: Counts | Integers, quantiles: Sequence[float]) -> Stats:
    """Statistics of levels from contiguous counts, uint32 or, where several eras are pooled, int64."""
    shape, wanted_Q = counts_ECL.shape[:2], np.array(quantiles, dtype=np.float64)
    pairs = shape[0] * shape[1]
    whole_2P, value_5P = np.empty((2, pairs), dtype=np.int64), np.empty((5, pairs))
    quantile_QP = np.empty((len(wanted_Q), pairs))
    cells_PL = counts_ECL.reshape(pairs, SLOTS)
    _summarise(cells_PL, whole_2P, value_5P)
    _quantiles(cells_PL, wanted_Q, quantile_QP)
    count, missing = whole_2P.reshape(2, *shape)
    mean, std, least, most, mode = value_5P.reshape(5, *shape)
    return Stats(count, missing, mean, std, least, most, mode, quantile_QP.reshape(len(wanted_Q), *shape))


@kernel
def _summarise(cells_PL: Counts | Integers, whole_2P: Integers, value_5P: Double) -> None:
    """Count and missing; mean, std, min, max and mode of every row of counts."""
    count_P, missing_P = whole_2P[0], whole_2P[1]
    mean_P, std_P, min_P, max_P, mode_P = value_5P[0], value_5P[1], value_5P[2], value_5P[3], value_5P[4]
    for pair in range(cells_PL.shape[0]):
        zero, one, two = float(cells_PL[pair, 0]), float(cells_PL[pair, 1]), float(cells_PL[pair, 2])
        three, four = float(cells_PL[pair, 3]), float(cells_PL[pair, 4])
        count = zero + one + two + three + four
        undefined = 0.0 if count > 0.0 else np.nan
        mean = (one + 2.0 * two + 3.0 * three + 4.0 * four) / (count + undefined)
        squares = zero * mean**2 + one * (1.0 - mean) ** 2 + two * (2.0 - mean) ** 2
        squares += three * (3.0 - mean) ** 2 + four * (4.0 - mean) ** 2
        least = 0.0 if zero > 0.0 else 1.0 if one > 0.0 else 2.0 if two > 0.0 else 3.0 if three > 0.0 else 4.0
        most = 4.0 if four > 0.0 else 3.0 if three > 0.0 else 2.0 if two > 0.0 else 1.0 if one > 0.0 else 0.0
        often = max(max(max(zero, one), max(two, three)), four)
        mode = (
            0.0 if zero == often else 1.0 if one == often else 2.0 if two == often else 3.0 if three == often else 4.0
        )
        count_P[pair], missing_P[pair] = int(count), cells_PL[pair, 5]
        mean_P[pair], std_P[pair] = mean, np.sqrt(squares / (count + undefined))
        min_P[pair], max_P[pair], mode_P[pair] = least + undefined, most + undefined, mode + undefined


@kernel
def _quantiles(cells_PL: Counts | Integers, wanted_Q: Double, quantile_QP: Double) -> None:
    """Linear interpolation between levels found in the running sums of every row of counts."""
    for pair in range(cells_PL.shape[0]):
        zero = float(cells_PL[pair, 0])
        one = zero + float(cells_PL[pair, 1])
        two = one + float(cells_PL[pair, 2])
        three = two + float(cells_PL[pair, 3])
        count = three + float(cells_PL[pair, 4])
        last = max(count - 1.0, 0.0)
        for number in range(wanted_Q.shape[0]):
            virtual = last * wanted_Q[number]
            below = np.floor(virtual)
            above = min(below + 1.0, last)
            low = 1.0 * ((zero <= below) + (one <= below) + (two <= below) + (three <= below))
            high = 1.0 * ((zero <= above) + (one <= above) + (two <= above) + (three <= above))
            weight, gap = virtual - below, high - low
            from_low, from_high = low + gap * weight, high - gap * (1.0 - weight)
            value = from_high if weight >= 0.5 else from_low
            quantile_QP[number, pair] = value if count > 0.0 else np.nan
