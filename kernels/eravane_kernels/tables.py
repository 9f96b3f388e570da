"""Tables per (era, column) for any transform of integer levels, and window sums of level counts.

A table holds six int8 values: the new values of levels 0, 1, 2, 3, 4 and missing. Tables are small (one per era and
column), so every implementation shares these functions.
"""

from __future__ import annotations

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import LEVELS, MISSING, SLOTS, Bools, Counts, Double, Integers, Levels

_IDENTITY = np.array([0, 1, 2, 3, 4, MISSING], dtype=np.int8)


def clip_table(low_EC: Double, high_EC: Double) -> Levels:
    """Table that limits levels to bounds; missing stays missing.

    low_EC, high_EC: float64 [E, C]; a NaN bound limits nothing. A limited level is rounded half to even into 0..4.
    Returns int8 [E, C, 6]. Raises: ValueError for other shapes or dtypes, or low above high.
    """
    bounds(low_EC, high_EC)
    low, high = np.fmax(low_EC, 0.0)[..., None], np.fmin(high_EC, LEVELS - 1.0)[..., None]
    level_L = np.arange(float(LEVELS))
    limited = np.rint(np.fmin(np.fmax(level_L, low), high)).clip(0, LEVELS - 1)
    missing = np.full((*low_EC.shape, 1), MISSING, dtype=np.int8)
    return np.concatenate([limited.astype(np.int8), missing], axis=2)


def bounds(low_EC: Double, high_EC: Double) -> None:
    """Checks a pair of bounds: float64, two axes, equal shapes, low not above high."""
    checks.axes(low_EC, "low_EC", 2, "float64")
    checks.shape(high_EC, "high_EC", low_EC.shape, "float64")
    above = np.argwhere(low_EC > high_EC)
    if len(above):
        era, column = above[0].tolist()
        pair = f"{low_EC[era, column]} and {high_EC[era, column]}"
        raise ValueError(f"low_EC, high_EC: expected low <= high, given {pair} at era {era}, column {column}")


def fill_table(value_EC: Double) -> Levels:
    """Table that fills missing cells and keeps levels.

    value_EC: float64 [E, C], rounded half to even into 0..4; NaN leaves the cell missing. Returns int8 [E, C, 6].
    Raises: ValueError for another dtype or number of axes.
    """
    checks.axes(value_EC, "value_EC", 2, "float64")
    table_ECL = np.broadcast_to(_IDENTITY, (*value_EC.shape, SLOTS)).copy()
    level = np.rint(value_EC).clip(0, LEVELS - 1)
    table_ECL[..., LEVELS] = np.where(np.isnan(level), MISSING, level).astype(np.int8)
    return table_ECL


def compose_tables(first_ECL: Levels, then_ECL: Levels) -> Levels:
    """Table equal to `first_ECL` followed by `then_ECL`.

    Both int8 [E, C, 6]; entries of the first must be levels or -1. Returns int8 [E, C, 6]. Raises: ValueError.
    """
    checks.axes(first_ECL, "first_ECL", 3, "int8")
    checks.shape(first_ECL, "first_ECL", (*first_ECL.shape[:2], SLOTS), "int8")
    checks.shape(then_ECL, "then_ECL", first_ECL.shape, "int8")
    checks.levels(first_ECL.reshape(-1, SLOTS), "first_ECL")
    slots = np.where(first_ECL == MISSING, LEVELS, first_ECL)
    return np.take_along_axis(then_ECL, slots.astype(np.intp), axis=2)


def missing_eras(counts_ECL: Counts) -> Bools:
    """Columns that hold level 2 in every row of an era, the mark of an absent feature in Numerai v5 data.

    counts_ECL: uint32 [E, C, 6] of `level_counts`. Returns bool [E, C]; an empty era is False. Raises: ValueError.
    """
    counts(counts_ECL)
    rows_EC = counts_ECL.sum(axis=2, dtype=np.int64)
    return np.asarray((counts_ECL[..., 2] == rows_EC) & (rows_EC > 0))


def counts(counts_ECL: Counts) -> None:
    """Checks level counts: uint32 [E, C, 6]."""
    checks.axes(counts_ECL, "counts_ECL", 3, "uint32")
    checks.shape(counts_ECL, "counts_ECL", (*counts_ECL.shape[:2], SLOTS), "uint32")


def pooled_counts(counts_ECL: Counts, window: int) -> Integers:
    """Level counts of every era summed with those of the `window` eras before it, int64 [E, C, 6]."""
    total = np.cumsum(counts_ECL, axis=0, dtype=np.int64)
    pooled = total.copy()
    pooled[window + 1 :] -= total[: max(0, len(total) - window - 1)]
    return pooled
