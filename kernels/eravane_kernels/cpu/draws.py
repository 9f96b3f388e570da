"""Columns and rows that a round of boosting is grown on: drawn from counters, so that no draw depends on another.

Words are those of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), at places
of a stream that the seed and the round name. Any thread draws any row, and any device draws the same.
"""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Bools, Integers
from eravane_kernels.cpu.jit import kernel

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
WHOLE = 2**24
"""A share of rows is rounded to this number of parts."""


@kernel
def word(stream: np.uint64, place: int) -> np.uint64:
    """The word at a place of a stream."""
    state = stream + _STEP * np.uint64(place + 1)
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return np.uint64(state ^ (state >> np.uint64(31)))


@kernel
def stream_of(seed: int, turn: int, purpose: int) -> np.uint64:
    """The stream of a round; purpose 0 is for columns, 1 for rows."""
    return word(word(np.uint64(seed), turn), purpose)


@kernel
def draw_columns(seed: int, turn: int, width: int, column_K: Integers) -> None:
    """Draws distinct columns of `width`, every set as likely as any other, in ascending order.

    column_K: int64 [K], written; K at most `width`.
    """
    stream, chosen = stream_of(seed, turn, 0), column_K.shape[0]
    order_C, drawn_C = np.arange(width), np.zeros(width, dtype=np.bool_)
    for place in range(chosen):
        left = np.uint64(width - place)
        other = place + np.int64(((word(stream, place) >> np.uint64(32)) * left) >> np.uint64(32))
        drawn_C[order_C[other]] = True
        order_C[other] = order_C[place]
    found = 0
    for column in range(width):
        if drawn_C[column]:
            column_K[found] = column
            found += 1


@kernel
def drawn(stream: np.uint64, row: int, parts: np.uint64) -> bool:
    """Whether a row is drawn, as `parts` of `WHOLE` rows are."""
    return bool((word(stream, row) >> np.uint64(40)) < parts)


@kernel
def draw_rows(seed: int, turn: int, parts: int, drawn_N: Bools) -> None:
    """Writes for every row whether it is drawn."""
    stream = stream_of(seed, turn, 1)
    for row in range(drawn_N.shape[0]):
        drawn_N[row] = drawn(stream, row, np.uint64(parts))
