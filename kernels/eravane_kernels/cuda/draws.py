"""Columns that a round of boosting is grown on, by NumPy alone: the GPU's way needs no compiler on the host."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Integers
from eravane_kernels.spec.draws import word

Words = npt.NDArray[np.uint64]
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def stream_of(seed: int, turn: int, purpose: int) -> int:
    """The stream of a round; purpose 0 is for columns, 1 for rows."""
    return word(word(seed, turn), purpose)


def draw_columns(seed: int, turn: int, width: int, chosen: int) -> Integers:
    """Distinct columns in ascending order, int64 [chosen]; those of `spec.draw_columns`."""
    words_K = _words(stream_of(seed, turn, 0), chosen) >> np.uint64(32)
    left_K = (width - np.arange(chosen)).astype(np.uint64)
    other_K = np.arange(chosen) + ((words_K * left_K) >> np.uint64(32)).astype(np.int64)
    moved: dict[int, int] = {}
    drawn = []
    for place, other in enumerate(other_K.tolist()):
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    return np.array(sorted(drawn), dtype=np.int64)


def _words(stream: int, count: int) -> Words:
    """The first words of a stream, as `spec.draws.word` gives them."""
    state_K = np.uint64(stream) + np.uint64(_STEP) * np.arange(1, count + 1, dtype=np.uint64)
    state_K = (state_K ^ (state_K >> np.uint64(30))) * _FIRST
    state_K = (state_K ^ (state_K >> np.uint64(27))) * _SECOND
    return np.asarray(state_K ^ (state_K >> np.uint64(31)))
