"""Missing values on the device: fills per (era, column), indicators."""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import MISSING, SLOTS, Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array, empty_beside, stride
from eravane_kernels.cuda.launch import blocks_of_warps, launch, made_table, runs
from eravane_kernels.cuda.runtime import active
from eravane_kernels.cuda.statistics import (
    float_mode,
    float_moments,
    float_quantiles,
    level_counts,
    pooled_counts,
    stats_of_counts,
)
from eravane_kernels.spec.missing import FillMethod, check_fill_method


def fill_values(
    x_CN: Array,
    offsets_E1: Integers,
    method: FillMethod = "mean",
    constant: float | None = None,
    window: int = 0,
) -> Array:
    """Value for the missing cells of every (era, column), from that era pooled with the `window` eras before it.

    Arguments as `spec.fill_values`. Returns float64 [E, C] on the device, NaN where no value is present.
    Raises: ValueError for bad arrays, methods or windows, and for a missing constant.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8", "float32")
    offsets_E1 = inputs.offsets(offsets_E1, x_CN.shape[1])
    check_fill_method(method, constant, window)
    find = _level_fills if x_CN.dtype == np.int8 else _float_fills
    return find(x_CN, offsets_E1, method, constant, window)


def _level_fills(x_CN: Array, offsets_E1: Integers, method: str, constant: float | None, window: int) -> Array:
    eras = runs(offsets_E1, len(x_CN))
    if method == "constant":
        return active().xp.full(eras.shape, constant, dtype=np.float64)
    stats = stats_of_counts(pooled_counts(level_counts(x_CN, offsets_E1), window), (0.5,) if method == "median" else ())
    if method == "median":
        return stats.quantiles_QEC[0]
    return stats.mean_EC if method == "mean" else stats.mode_EC


def _float_fills(x_CN: Array, offsets_E1: Integers, method: str, constant: float | None, window: int) -> Array:
    over = runs(offsets_E1, len(x_CN), window)
    if method == "mode":
        return float_mode(x_CN, over)
    if method == "median":
        return float_quantiles(x_CN, over, (0.5,))[0]
    mean_EC = float_moments(x_CN, over)[2]
    return mean_EC if method == "mean" else active().xp.full(over.shape, constant, dtype=np.float64)


def fill(x_CN: Array, offsets_E1: Integers, value_EC: Array) -> Array:
    """Puts the era's value, rounded to float32, in place of NaN, by cu/limits.cu; a NaN value leaves the cell missing.

    x_CN: float32; value_EC: float64 [E, C]. Returns float32 [C, N], columns up to 12 bytes apart.
    Raises: ValueError for other dtypes, strides, offsets or shapes.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "float32")
    eras = runs(inputs.offsets(offsets_E1, x_CN.shape[1]), len(x_CN))
    value_EC = inputs.shaped(value_EC, "value_EC", eras.shape, "float64")
    result_CN = empty_beside(x_CN)
    arguments = (*eras.of(x_CN), value_EC, result_CN, stride(result_CN))
    launch("limits", "fill_values", blocks_of_warps(eras.number), *arguments)
    return result_CN


def missing_indicators(x_CN: Array) -> Array:
    """1 where a cell is missing (-1 or NaN), else 0.

    x_CN: int8 or float32. Returns int8 [C, N]. Raises: ValueError for other dtypes or strides.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8", "float32")
    missing = x_CN == MISSING if x_CN.dtype == np.int8 else active().xp.isnan(x_CN)
    return missing.astype(np.int8)


def missing_eras(counts_ECL: Array) -> Array:
    """Which columns hold level 2 in every row of an era: how Numerai v5 data mark a feature as absent.

    counts_ECL: uint32 [E, C, 6] of `level_counts`. Returns bool [E, C]; an empty era is False. Raises: ValueError.
    """
    counts_ECL = inputs.shaped(counts_ECL, "counts_ECL", (*counts_ECL.shape[:2], SLOTS), "uint32")
    rows_EC = counts_ECL.sum(axis=2, dtype=np.int64)
    return (counts_ECL[..., 2] == rows_EC) & (rows_EC > 0)


def fill_table(value_EC: Array) -> Array:
    """Table that fills missing cells and leaves levels alone, by cu/tables.cu; as `tables.fill_table`."""
    shape = inputs.two_axes(value_EC, "value_EC", "float64")
    return made_table("fill_table", shape, inputs.shaped(value_EC, "value_EC", shape, "float64"))
