"""Missing values filled from the nearest rows of the era, by matrix products and sorts on the device."""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import NOT_INFINITE, runs
from eravane_kernels.cuda.runtime import active

ROWS_AT_ONCE = 512
"""Rows whose distances to all rows of the era are held at a time."""
CANDIDATES_AT_ONCE = 1 << 24
"""Pairs of a missing cell and a row of its era that are held at a time."""


def knn_impute(x_CN: Array, offsets_E1: Integers, k: int = 5) -> Array:
    """Fills every NaN with the mean of the column in the `k` nearest rows of the era that hold a value there.

    Distances, fallbacks and errors as `spec.knn_impute`, but that distances come from matrix products: those that are
    equal to rounding may order either way. x_CN: float32. Returns float32 [C, N].
    """
    x_CN = inputs.columns(x_CN, "x_CN", "float32")
    offsets_E1 = inputs.offsets(offsets_E1, x_CN.shape[1])
    if k < 1:
        raise ValueError(f"k: expected 1 or more neighbours, given {k}")
    eras = runs(offsets_E1, len(x_CN))
    eras.check(x_CN, "x_CN", NOT_INFINITE)
    result_CN = active().xp.array(x_CN, order="C")
    for _, rows in eras.slices():
        result_CN[:, rows] = _filled_era(x_CN[:, rows].astype(np.float64), k)
    return result_CN


def _filled_era(x_CN: Array, k: int) -> Array:
    xp = active().xp
    held_CN = ~xp.isnan(x_CN)
    value_CN = xp.where(held_CN, x_CN, 0.0)
    receivers = xp.flatnonzero(~held_CN.all(axis=0))
    for first in range(0, len(receivers), ROWS_AT_ONCE):
        rows = receivers[first : first + ROWS_AT_ONCE]
        order_RN, reachable_RN = _nearest(value_CN, held_CN, rows)
        at, column = xp.nonzero(~held_CN[:, rows].T)
        step = max(1, CANDIDATES_AT_ONCE // x_CN.shape[1])
        for begin in range(0, len(at), step):
            some, where = at[begin : begin + step], column[begin : begin + step]
            x_CN[where, rows[some]] = _means(value_CN, held_CN, where, order_RN[some], reachable_RN[some], k)
    return x_CN


def _nearest(value_CN: Array, held_CN: Array, rows: Array) -> tuple[Array, Array]:
    """All rows by distance from every receiving row, and which of them share a column with it."""
    xp = active().xp
    mask_CN = held_CN.astype(np.float64)
    value_CR, mask_CR = value_CN[:, rows], mask_CN[:, rows]
    squares_RN = (value_CR**2).T @ mask_CN - 2.0 * (value_CR.T @ value_CN) + mask_CR.T @ value_CN**2
    shared_RN = mask_CR.T @ mask_CN
    distance_RN = xp.where(shared_RN > 0, xp.maximum(squares_RN, 0.0) / xp.maximum(shared_RN, 1.0), np.inf)
    order_RN = xp.argsort(distance_RN, axis=1, kind="stable")
    return order_RN, xp.isfinite(xp.take_along_axis(distance_RN, order_RN, axis=1))


def _means(value_CN: Array, held_CN: Array, column_K: Array, order_KN: Array, reachable_KN: Array, k: int) -> Array:
    """Mean of the first `k` reachable rows that hold a value; of all that do where none is reachable; else NaN."""
    xp = active().xp
    holds_KN = held_CN[column_K[:, None], order_KN]
    near_KN = holds_KN & reachable_KN
    near_KN &= xp.cumsum(near_KN, axis=1) <= k
    chosen_KN = xp.where(near_KN.any(axis=1)[:, None], near_KN, holds_KN)
    count_K = chosen_KN.sum(axis=1)
    total_K = xp.where(chosen_KN, value_CN[column_K[:, None], order_KN], 0.0).sum(axis=1)
    return xp.where(count_K > 0, total_K / xp.maximum(count_K, 1), np.nan)
