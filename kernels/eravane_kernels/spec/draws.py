"""Draws of columns and rows for a round of boosting: the specification of the compiled draws."""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Bools, Integers

_MASK = 2**64 - 1


def word(stream: int, place: int) -> int:
    """The word at a place of a stream of SplitMix64 (Steele, Lea and Flood 2014)."""
    state = (stream + 0x9E3779B97F4A7C15 * (place + 1)) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def draw_columns(seed: int, turn: int, width: int, chosen: int) -> Integers:
    """Distinct columns, ascending: the first ones of a shuffle after Fisher and Yates.

    Args:
        seed: 0..2^63-1.
        turn: number of the round, from 0.
        width: number of columns.
        chosen: number of drawn columns.

    Returns:
        int64 [chosen].
    """
    stream, order = word(word(seed, turn), 0), list(range(width))
    for place in range(chosen):
        other = place + ((word(stream, place) >> 32) * (width - place) >> 32)
        order[place], order[other] = order[other], order[place]
    return np.array(sorted(order[:chosen]), dtype=np.int64)


def draw_rows(seed: int, turn: int, rows: int, share: float) -> Bools:
    """Whether each row is drawn: each with probability `share`, to 24 bits.

    Returns:
        bool [rows].
    """
    stream, parts = word(word(seed, turn), 1), round(share * 2**24)
    return np.array([word(stream, row) >> 40 < parts for row in range(rows)], dtype=bool)
