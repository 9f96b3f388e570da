"""Statistics per (era, column) on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import LEVELS, SLOTS, Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import LEVEL, NOT_INFINITE, Runs, blocks_of_warps, launch, room, runs
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.stats import QUANTILES, Stats


def level_counts(x_CN: Array, offsets_E1: Integers) -> Array:
    """Rows of every era that hold level 0, 1, 2, 3, 4 and missing (-1), counted in one pass by cu/levels.cu.

    x_CN: int8, contiguous columns; offsets_E1: int64. Returns uint32 [E, C, 6].
    Raises: ValueError for other dtypes, strides or offsets, and for any other value, naming column, row and value.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8")
    eras = runs(inputs.offsets(offsets_E1, x_CN.shape[1]), len(x_CN))
    counts_ECL = active().xp.empty((*eras.shape, SLOTS), dtype=np.uint32)
    bad_EC = eras.empty(np.uint8)
    launch("levels", "level_counts", blocks_of_warps(eras.number), *eras.of(x_CN), counts_ECL, bad_EC)
    eras.reject(bad_EC, x_CN, "x_CN", LEVEL)
    return counts_ECL


def level_stats(counts_ECL: Array, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """Statistics of levels 0..4 from their counts, exact before the last division.

    counts_ECL: uint32 [E, C, 6]; quantiles within 0..1. Returns Stats of device arrays. Raises: ValueError.
    """
    counts_ECL = inputs.shaped(counts_ECL, "counts_ECL", (*counts_ECL.shape[:2], SLOTS), "uint32")
    checks.quantiles(quantiles)
    return stats_of_counts(counts_ECL.astype(np.int64), quantiles)


def pooled_counts(counts_ECL: Array, window: int) -> Array:
    """Level counts of every era summed with those of the `window` eras before it, int64 [E, C, 6]."""
    total = active().xp.cumsum(counts_ECL, axis=0, dtype=np.int64)
    pooled = total.copy()
    pooled[window + 1 :] -= total[: max(0, len(total) - window - 1)]
    return pooled


def stats_of_counts(counts_ECL: Array, quantiles: Sequence[float]) -> Stats:
    """Statistics of levels from int64 counts, which may pool several eras."""
    xp = active().xp
    present = counts_ECL[..., :LEVELS]
    count = present.sum(axis=2)
    level_L = xp.arange(LEVELS)
    first, second = (present * level_L).sum(axis=2), (present * level_L**2).sum(axis=2)
    n = xp.where(count > 0, count, np.nan)
    absent = count == 0
    held = present > 0
    return Stats(
        count_EC=count,
        missing_EC=counts_ECL[..., LEVELS].copy(),
        mean_EC=first / n,
        std_EC=xp.sqrt((count * second - first**2) / n**2),
        min_EC=xp.where(absent, np.nan, held.argmax(axis=2)),
        max_EC=xp.where(absent, np.nan, LEVELS - 1 - held[..., ::-1].argmax(axis=2)),
        mode_EC=xp.where(absent, np.nan, present.argmax(axis=2)),
        quantiles_QEC=quantiles_of_counts(present, quantiles),
    )


def quantiles_of_counts(counts_ECB: Array, quantiles: Sequence[float]) -> Array:
    """Quantiles of the values 0, 1, 2, ... of which counts_ECB says how many there are; float64 [Q, E, C]."""
    xp = active().xp
    total_ECB = xp.cumsum(counts_ECB, axis=2)
    count = total_ECB[..., -1]
    last = xp.maximum(count - 1, 0)
    result = xp.empty((len(quantiles), *count.shape), dtype=np.float64)
    for number, share in enumerate(quantiles):
        virtual = last * share
        below = xp.floor(virtual).astype(np.int64)
        weight = virtual - below
        low, high = ((total_ECB <= rank[..., None]).sum(axis=2) for rank in (below, xp.minimum(below + 1, last)))
        gap = high - low
        value = xp.where(weight >= 0.5, high - gap * (1.0 - weight), low + gap * weight)
        result[number] = xp.where(count > 0, value, np.nan)
    return result


def float_stats(x_CN: Array, offsets_E1: Integers, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """Statistics of float columns: cu/moments.cu, cu/select.cu and cu/mode.cu.

    x_CN: float32, contiguous columns, NaN for missing; offsets_E1: int64; quantiles within 0..1. Returns Stats of
    device arrays. Raises: ValueError for other dtypes, strides or offsets, and for an infinity, naming column and row.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "float32")
    offsets_E1 = inputs.offsets(offsets_E1, x_CN.shape[1])
    checks.quantiles(quantiles)
    eras = runs(offsets_E1, len(x_CN))
    moments = float_moments(x_CN, eras)
    return Stats(*moments, float_mode(x_CN, eras), float_quantiles(x_CN, eras, quantiles))


def float_moments(x_CN: Array, over: Runs) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Count, missing, mean, standard deviation, minimum and maximum of float columns, [E, C] each."""
    count, missing, bad = over.empty(np.int64), over.empty(np.int64), over.empty(np.uint8)
    mean, deviation, least, most = (over.empty(np.float64) for _ in range(4))
    results = (count, missing, mean, deviation, least, most)
    launch("moments", "float_moments", over.number, *over.of(x_CN), *results, bad)
    over.reject(bad, x_CN, "x_CN", NOT_INFINITE)
    return results


def float_quantiles(x_CN: Array, over: Runs, quantiles: Sequence[float]) -> Array:
    """Quantiles of float columns, float64 [Q, E, C]."""
    wanted_Q = upload(np.array(quantiles, dtype=np.float64))
    values_QEC = active().xp.empty((len(quantiles), *over.shape), dtype=np.float64)
    bad_EC = over.empty(np.uint8)
    wanted = (wanted_Q, np.int64(len(quantiles)))
    launch("select", "select_quantiles", over.number, *over.of(x_CN), *wanted, values_QEC, bad_EC)
    over.reject(bad_EC, x_CN, "x_CN", NOT_INFINITE)
    return values_QEC


def float_deviation(x_CN: Array, over: Runs, centre_EC: Array) -> Array:
    """Median of the absolute deviations from a centre, float64 [E, C]."""
    deviation_EC = over.empty(np.float64)
    launch("select", "select_deviation", over.number, *over.of(x_CN), centre_EC, deviation_EC)
    return deviation_EC


def float_mode(x_CN: Array, over: Runs) -> Array:
    """Mode of float columns, float64 [E, C]."""
    mode_EC, bad_EC = over.empty(np.float64), over.empty(np.uint8)
    space = room(over.number, over.longest, np.uint32)
    arguments = (*over.of(x_CN), space.scratch, space.places, mode_EC, bad_EC)
    launch("mode", "float_mode", space.blocks, *arguments, shared=space.shared)
    over.reject(bad_EC, x_CN, "x_CN", NOT_INFINITE)
    return mode_EC


def era_stats(x_CN: Array, offsets_E1: Integers, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """Statistics of level columns (int8) or float columns (float32), chosen by dtype.

    Returns Stats of device arrays. Raises: ValueError as `level_counts` and `float_stats`.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8", "float32")
    if x_CN.dtype == np.int8:
        return level_stats(level_counts(x_CN, offsets_E1), quantiles)
    return float_stats(x_CN, offsets_E1, quantiles)
