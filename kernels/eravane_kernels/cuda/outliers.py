"""Outliers on the device: bounds per (era, column), clipping, tables of levels, rows outside."""

from __future__ import annotations

from typing import Any

import numpy as np

from eravane_kernels import tables
from eravane_kernels.arrays import LEVELS, SLOTS, Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array, empty_beside, stride
from eravane_kernels.cuda.launch import LEVEL, NOT_INFINITE, blocks_of_warps, launch, made_table, runs
from eravane_kernels.cuda.runtime import active
from eravane_kernels.cuda.statistics import (
    float_deviation,
    float_moments,
    float_quantiles,
    level_counts,
    pooled_counts,
    quantiles_of_counts,
    stats_of_counts,
)
from eravane_kernels.spec.outliers import Method, check_bound_method


def clip_bounds(
    x_CN: Array,
    offsets_E1: Integers,
    method: Method = "winsorize",
    low: float = 0.01,
    high: float = 0.99,
    k: float = 3.0,
    window: int = 0,
) -> tuple[Array, Array]:
    """Lower and upper bounds of every (era, column) from that era pooled with the `window` eras before it.

    Arguments as `spec.clip_bounds`. Returns two float64 [E, C] on the device, NaN where no value is present.
    Raises: ValueError for bad arrays, methods, quantiles, k or window.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8", "float32")
    offsets_E1 = inputs.offsets(offsets_E1, x_CN.shape[1])
    check_bound_method(method, low, high, k, window)
    find = _level_bounds if x_CN.dtype == np.int8 else _float_bounds
    first, second = find(x_CN, offsets_E1, method, (low, high), window)
    return (first, second) if method == "winsorize" else (first - k * second, first + k * second)


def _level_bounds(
    x_CN: Array, offsets_E1: Integers, method: str, ends: tuple[float, float], window: int
) -> tuple[Array, Array]:
    """The two quantiles, or centre and spread, of levels."""
    counts_ECL = pooled_counts(level_counts(x_CN, offsets_E1), window)
    if method == "mad":
        return _median_deviation(counts_ECL)
    stats = stats_of_counts(counts_ECL, ends if method == "winsorize" else ())
    return (stats.mean_EC, stats.std_EC) if method == "std" else (stats.quantiles_QEC[0], stats.quantiles_QEC[1])


def _median_deviation(counts_ECL: Array) -> tuple[Array, Array]:
    """Median and median absolute deviation of levels, counted in halves as in the specification."""
    xp = active().xp
    present = counts_ECL[..., :LEVELS]
    centre = quantiles_of_counts(present, (0.5,))[0]
    halves_ECL = xp.abs(2 * xp.arange(LEVELS) - 2 * xp.nan_to_num(centre)[..., None])
    counts_ECB = xp.stack([xp.where(halves_ECL == half, present, 0).sum(axis=2) for half in range(2 * LEVELS)], axis=2)
    return centre, quantiles_of_counts(counts_ECB, (0.5,))[0] / 2.0


def _float_bounds(
    x_CN: Array, offsets_E1: Integers, method: str, ends: tuple[float, float], window: int
) -> tuple[Array, Array]:
    """The two quantiles, or centre and spread, of floats."""
    over = runs(offsets_E1, len(x_CN), window)
    if method == "std":
        return float_moments(x_CN, over)[2:4]
    quantiles_QEC = float_quantiles(x_CN, over, ends if method == "winsorize" else (0.5,))
    if method == "winsorize":
        return quantiles_QEC[0], quantiles_QEC[1]
    return quantiles_QEC[0], float_deviation(x_CN, over, quantiles_QEC[0])


def clip(x_CN: Array, offsets_E1: Integers, low_EC: Array, high_EC: Array) -> Array:
    """Limits float columns to the bounds of their era, by cu/limits.cu; NaN stays, a NaN bound limits nothing.

    x_CN: float32; bounds float64 [E, C], rounded to float32. Returns float32 [C, N], columns up to 12 bytes apart.
    Raises: ValueError for other dtypes, strides, offsets or shapes, low above high, and for an infinity.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "float32")
    eras = runs(inputs.offsets(offsets_E1, x_CN.shape[1]), len(x_CN))
    low_EC, high_EC = _bounds(low_EC, high_EC, eras.shape)
    result_CN, bad_EC = empty_beside(x_CN), eras.empty(np.uint8)
    arguments = (*eras.of(x_CN), low_EC, high_EC, result_CN, stride(result_CN), bad_EC)
    launch("limits", "clip_values", blocks_of_warps(eras.number), *arguments)
    eras.reject(bad_EC, x_CN, "x_CN", NOT_INFINITE)
    return result_CN


def _bounds(low_EC: Any, high_EC: Any, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Bounds on the device, checked as `tables.bounds` does."""
    low_EC = inputs.shaped(low_EC, "low_EC", shape, "float64")
    high_EC = inputs.shaped(high_EC, "high_EC", shape, "float64")
    if bool((low_EC > high_EC).any()):
        tables.bounds(active().host(low_EC), active().host(high_EC))
    return low_EC, high_EC


def apply_table(x_CN: Array, offsets_E1: Integers, table_ECL: Array) -> Array:
    """Replaces every level by the entry of its era's and column's table, by cu/tables.cu.

    x_CN: int8; table_ECL: int8 [E, C, 6], what 0, 1, 2, 3, 4 and missing become. Returns int8 [C, N], columns up to 15
    bytes apart. Raises: ValueError for other dtypes, strides, offsets or shapes, and for a value that is no level.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8")
    eras = runs(inputs.offsets(offsets_E1, x_CN.shape[1]), len(x_CN))
    table_ECL = inputs.shaped(table_ECL, "table_ECL", (*eras.shape, SLOTS), "int8")
    result_CN, bad_EC = empty_beside(x_CN), eras.empty(np.uint8)
    arguments = (*eras.of(x_CN), table_ECL, result_CN, stride(result_CN), bad_EC)
    launch("tables", "apply_table", blocks_of_warps(eras.number), *arguments)
    eras.reject(bad_EC, x_CN, "x_CN", LEVEL)
    return result_CN


def clip_table(low_EC: Array, high_EC: Array) -> Array:
    """Table that limits levels to bounds, by cu/tables.cu; as `tables.clip_table`, on the device."""
    shape = inputs.two_axes(low_EC, "low_EC", "float64")
    low_EC, high_EC = _bounds(low_EC, high_EC, shape)
    return made_table("clip_table", shape, low_EC, high_EC)


def compose_tables(first_ECL: Array, then_ECL: Array) -> Array:
    """Table that does what `first_ECL` and afterwards `then_ECL` do, by cu/tables.cu; as `tables.compose_tables`."""
    shape = (*first_ECL.shape[:2], SLOTS)
    first_ECL = inputs.shaped(first_ECL, "first_ECL", shape, "int8")
    then_ECL = inputs.shaped(then_ECL, "then_ECL", shape, "int8")
    bad_EC = active().xp.empty(shape[:2], dtype=np.uint8)
    table_ECL = made_table("compose_tables", shape[:2], first_ECL, then_ECL, after=(bad_EC,))
    if bool(bad_EC.any()):
        tables.compose_tables(active().host(first_ECL), active().host(then_ECL))
    return table_ECL
