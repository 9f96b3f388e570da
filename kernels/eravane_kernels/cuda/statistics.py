"""Statistics per (era, column) on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import SLOTS, Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import (
    LEVEL,
    NOT_INFINITE,
    THREADS,
    Runs,
    blocks_of_warps,
    launch,
    room,
    runs,
    stretches,
)
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.stats import QUANTILES, Stats


def level_counts(x_CN: Array, offsets_E1: Integers) -> Array:
    """Rows of every era that hold level 0, 1, 2, 3, 4 and missing (-1), counted in one pass by cu/levels.cu.

    x_CN: int8, contiguous columns; offsets_E1: int64. Returns uint32 [E, C, 6].
    Raises: ValueError for other dtypes, strides or offsets, and for any other value, naming column, row and value.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8")
    offsets_E1 = inputs.offsets(offsets_E1, x_CN.shape[1])
    eras, over = runs(offsets_E1, len(x_CN)), stretches(offsets_E1, len(x_CN))
    counts_ECL = active().xp.empty((*eras.shape, SLOTS), dtype=np.uint32)
    bad_EC = eras.empty(np.uint8)
    launch("levels", "level_counts", blocks_of_warps(over.warps), *over.of(x_CN), counts_ECL, bad_EC)
    eras.reject(bad_EC, x_CN, "x_CN", LEVEL)
    return counts_ECL


def level_stats(counts_ECL: Array, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """Statistics of levels 0..4 from their counts, exact before the last division.

    counts_ECL: uint32 [E, C, 6]; quantiles within 0..1. Returns Stats of device arrays. Raises: ValueError.
    """
    counts_ECL = inputs.shaped(counts_ECL, "counts_ECL", (*counts_ECL.shape[:2], SLOTS), "uint32")
    checks.quantiles(quantiles)
    return stats_of_counts(counts_ECL.astype(np.int64), quantiles)


def stats_of_levels(x_CN: Array, offsets_E1: Integers, quantiles: Sequence[float]) -> Stats:
    """Statistics of levels, counted and described in one launch; see `era_stats`."""
    offsets_E1 = inputs.offsets(offsets_E1, x_CN.shape[1])
    checks.quantiles(quantiles)
    eras, over = runs(offsets_E1, len(x_CN)), stretches(offsets_E1, len(x_CN))
    found, bad_EC = _unwritten(eras.shape, len(quantiles)), eras.empty(np.uint8)
    arguments = (*over.of(x_CN), np.int64(eras.number), *_wanted(quantiles), *_arrays(found), bad_EC)
    launch("levels", "level_statistics", blocks_of_warps(over.warps), *arguments)
    eras.reject(bad_EC, x_CN, "x_CN", LEVEL)
    return found


def pooled_counts(counts_ECL: Array, window: int) -> Array:
    """Level counts of every era summed with those of the `window` eras before it, int64 [E, C, 6]."""
    if window == 0:
        return counts_ECL.astype(np.int64)
    total = active().xp.cumsum(counts_ECL, axis=0, dtype=np.int64)
    pooled = total.copy()
    pooled[window + 1 :] -= total[: max(0, len(total) - window - 1)]
    return pooled


def stats_of_counts(counts_ECL: Array, quantiles: Sequence[float]) -> Stats:
    """Statistics of levels from int64 counts, which may pool several eras, by cu/levels.cu."""
    shape = (int(counts_ECL.shape[0]), int(counts_ECL.shape[1]))
    found, cells = _unwritten(shape, len(quantiles)), shape[0] * shape[1]
    arguments = (counts_ECL, np.int64(cells), *_wanted(quantiles), *_arrays(found))
    launch("levels", "statistics_of_counts", -(-cells // THREADS), *arguments)
    return found


def _unwritten(shape: tuple[int, int], quantiles: int) -> Stats:
    """Room for statistics of runs."""
    empty = active().xp.empty
    count, missing = (empty(shape, dtype=np.int64) for _ in range(2))
    mean, deviation, least, most, mode = (empty(shape, dtype=np.float64) for _ in range(5))
    return Stats(count, missing, mean, deviation, least, most, mode, empty((quantiles, *shape), dtype=np.float64))


def _arrays(stats: Stats) -> tuple[Array, ...]:
    """The statistics in the order of the kernels' parameters."""
    return tuple(getattr(stats, field.name) for field in fields(Stats))


def _wanted(quantiles: Sequence[float]) -> tuple[Array, np.int64]:
    """Quantiles as the kernels take them: shares, and how many."""
    return upload(np.array(quantiles or (0.0,), dtype=np.float64)), np.int64(len(quantiles))


def quantiles_of_counts(counts_ECB: Array, quantiles: Sequence[float]) -> Array:
    """Quantiles of the values 0, 1, 2, ... with the counts counts_ECB; float64 [Q, E, C]."""
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
        return stats_of_levels(x_CN, offsets_E1, quantiles)
    return float_stats(x_CN, offsets_E1, quantiles)
