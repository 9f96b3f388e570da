"""Moments of float columns, in one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Double, Integers, Single
from eravane_kernels.cpu.gaps import sum_gaps
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.layout import flat
from eravane_kernels.cpu.vectors import BLOCK, ahead

SIZE = 4
"""Bytes of a float32."""
CANCELLING = 1e3
"""Squared offset over variance above which squares about a shift lose digits that matter."""


def moments(x_CN: Single, rows_E: Sequence[slice]) -> tuple[Integers, Double, Double]:
    """Count, mean and standard deviation (ddof 0) over row ranges without a sort.

    Returns int64 [E, C] and two float64 [E, C], NaN where no value is present. Raises: ValueError for an infinity.
    """
    shape = (len(rows_E), len(x_CN))
    count, mean, std = np.empty(shape, dtype=np.int64), np.empty(shape), np.empty(shape)
    range_E2 = np.array([[rows.start, rows.stop] for rows in rows_E], dtype=np.int64).reshape(-1, 2)
    if not _moments(*flat(x_CN), x_CN.shape[1], range_E2, count, mean, std):
        checks.no_infinity(x_CN, "x_CN")
    return count, mean, std


@kernel
def _moments(
    x_S: Single,
    start_C: Integers,
    total_rows: int,
    range_E2: Integers,
    count_EC: Integers,
    mean_EC: Double,
    std_EC: Double,
) -> bool:
    """Fills the moments; returns whether all values are finite or NaN."""
    finite = True
    rest_B = np.empty(BLOCK // SIZE, dtype=np.float32)
    for column in range(start_C.shape[0]):
        for era in range(range_E2.shape[0]):
            start, rows = start_C[column] + range_E2[era, 0], range_E2[era, 1] - range_E2[era, 0]
            distance = ahead(start_C, column, range_E2[era, 1], total_rows, SIZE)
            count, mean, std = _moments_run(x_S, start, rows, distance, rest_B)
            count_EC[era, column], mean_EC[era, column], std_EC[era, column] = count, mean, std
            finite &= count == 0 or np.isfinite(mean)
    return finite


@kernel
def _moments_run(x_S: Single, start: int, rows: int, distance: int, rest_B: Single) -> tuple[int, float, float]:
    """Count, mean and standard deviation of a run with NaN, in one pass about its first value.

    Where the mean is so far from that value that the squares would cancel, a second pass takes them about the mean.
    What is left of a block is summed in rest_B, filled up with NaN.
    """
    blocks = rows * SIZE // BLOCK
    tail = x_S[start + blocks * rest_B.shape[0] : start + rows]
    rest_B[:] = np.nan
    for row in range(tail.shape[0]):
        rest_B[row] = tail[row]
    shift = np.float64(x_S[start]) if rows > 0 and np.isfinite(x_S[start]) else 0.0
    body, rest = sum_gaps(x_S, start * SIZE, blocks, distance, shift), sum_gaps(rest_B, 0, 1, 0, shift)
    count, total, squares = body[0] + rest[0], body[1] + rest[1], body[2] + rest[2]
    if count == 0.0:
        return 0, np.nan, np.nan
    offset = total / count
    spread = squares - total * offset
    if not total * offset <= CANCELLING * spread:
        mean = shift + offset
        spread = sum_gaps(x_S, start * SIZE, blocks, distance, mean)[2] + sum_gaps(rest_B, 0, 1, 0, mean)[2]
    return int(count), shift + offset, float(np.sqrt(spread / count))
