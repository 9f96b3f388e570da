"""Rows of levels walked down deep trees in blocks, in the columns where they lie.

Holding rows against every split of a level, as `forest` does, takes twice the time with every level, so that only the
upper levels are passed in this way. Below them each row goes from node to node, but a block of rows takes each step
together, without a branch: its node's key and the word that holds its level are loaded, and all that is computed from
them is 32 bits wide. A word holds the levels of eight columns, so that a block of 256 rows of 3,555 columns takes 455
kB of the second-level cache.

A step is two loads and some ten instructions a row. LLVM may gather 8 or 16 rows by an instruction; for the processor
measured it takes gathers for slow and emits none. A row and level took .9 to 1.2 ns, in XGBoost's own walk 6 to 8.
With five levels passed at once, a tree of depth 8 took 6.1 and 8.8 ns a row on 45 and 300 columns, where steps alone
took 9.8 and 12.9 in the same hour. Where no split sends missing values to the right, as in trees grown without any, -1
is the lowest level and needs no instructions of its own: a tenth less, 4.7 and 5.8 ns against 5.3 and 6.4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Bools, Integers, Levels, Single
from eravane_kernels.cpu.forest import not_below
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.pointers import levels_at

Keys = npt.NDArray[np.int32]
Places = npt.NDArray[np.uint8]

BLOCK_ROWS = 256
PER_WORD, BITS = 8, 4
"""Levels in a word, and bits of each: a level takes its own value and 1, a missing one 0."""
GREATEST = 13
"""Greatest value that a column may hold; 15 in a key is never reached."""
DEEPEST = 12
UPPER_LEVELS = 5
"""Levels that rows pass by being held against every split."""
_LIMIT, _RIGHT, _SHIFT, _WORD = 0, 4, 5, 10  # where the parts of a key begin
MOST_COLUMNS = PER_WORD * (1 << (31 - _WORD)) // BLOCK_ROWS


def keys(position_TK: Integers, below_TK: Levels, right_TK: Bools | None) -> Keys:
    """Column, limit and direction of each split of complete trees in one number, int32 [T, K].

    Args:
        position_TK: place of the column among those handed to `walk`; -1 where every row goes left.
        below_TK: int8, values below it go left.
        right_TK: whether -1 means missing and goes right there; None: -1 is the lowest value.
    """
    place_TK = np.maximum(position_TK, 0).astype(np.int32)
    limit_TK = np.where(position_TK < 0, 15, np.clip(below_TK.astype(np.int32) + 1, 0, 15))
    word_TK, shift_TK = place_TK // PER_WORD * BLOCK_ROWS, place_TK % PER_WORD * BITS
    found: Keys = (word_TK << _WORD) | (shift_TK << _SHIFT) | limit_TK
    if right_TK is None:
        return found
    right = right_TK & (position_TK >= 0)
    # a missing value becomes the greatest where all are lowered by 1
    return np.where(right, (found & ~15) | (1 << _RIGHT) | np.maximum(limit_TK - 1, 0), found).astype(np.int32)


@kernel
def _pack(address_C: Integers, first: int, rows: int, word_WR: Keys) -> bool:
    """Levels of a block of rows, eight columns to a word; False where a value is not within -1..13."""
    wrong = np.uint8(0)
    for word in range(word_WR.shape[0]):
        word_R = word_WR[word]
        for row in range(rows):
            word_R[row] = 0
        for place in range(min(PER_WORD, address_C.shape[0] - word * PER_WORD)):
            x_N = levels_at(address_C[word * PER_WORD + place] + first, rows)
            shift = np.int32(BITS * place)
            for row in range(rows):
                level = np.uint8(np.uint8(x_N[row]) + np.uint8(1))
                wrong |= np.uint8(level > np.uint8(GREATEST + 1))
                word_R[row] |= np.int32(np.int32(level) << shift)
    return bool(wrong == 0)


@kernel
def walk(address_SC: Integers, row_S: Integers, key_TK: Keys, leaf_TL: Single, total_N: Single) -> bool:
    """Adds to `total_N` the leaf of every tree, tree after tree, in float32.

    Args:
        address_SC: int64, where the columns of the keys begin in each segment of rows; the caller keeps them alive.
        row_S: int64, rows of the segments.
        key_TK: from `keys`, splits of complete trees, level by level.
        leaf_TL: float32 [T, 2^D], from left to right.
        total_N: float32 [N], changed in place.

    Returns:
        False where a value is not within -1..13; `total_N` then holds nothing of use.
    """
    depth, words = 0, (address_SC.shape[1] + PER_WORD - 1) // PER_WORD
    while (1 << depth) < leaf_TL.shape[1]:
        depth += 1
    word_WR = np.empty((words, BLOCK_ROWS), dtype=np.int32)
    place_R = np.empty(BLOCK_ROWS, dtype=np.int32)
    place_2R = np.empty((2, BLOCK_ROWS), dtype=np.uint8)
    lowest = _lowest(key_TK)
    start = 0
    for segment in range(address_SC.shape[0]):
        for first in range(0, row_S[segment], BLOCK_ROWS):
            rows = min(BLOCK_ROWS, row_S[segment] - first)
            if not _pack(address_SC[segment], first, rows, word_WR):
                return False
            total_R = total_N[start + first : start + first + rows]
            for tree in range(key_TK.shape[0]):
                upper = _upper(address_SC[segment], first, rows, key_TK[tree], depth, lowest, place_2R)
                for row in range(rows):
                    place_R[row] = place_2R[0, row]
                _lower(word_WR.reshape(-1), key_TK[tree], upper, depth, lowest, place_R[:rows])
                leaf_L = leaf_TL[tree]
                for row in range(rows):
                    total_R[row] += leaf_L[np.uint32(place_R[row])]
        start += row_S[segment]
    return True


@kernel
def _lowest(key_TK: Keys) -> bool:
    """Whether no split sends a missing value to the right, so that it is the lowest level."""
    right = np.int32(0)
    for tree in range(key_TK.shape[0]):
        for split in range(key_TK.shape[1]):
            right |= key_TK[tree, split] & np.int32(1 << _RIGHT)
    return bool(right == 0)


@kernel
def _upper(address_C: Integers, first: int, rows: int, key_K: Keys, depth: int, lowest: bool, place_2R: Places) -> int:
    """Passes the upper levels of a tree: places of the rows among the nodes below them, in `place_2R[0]`.

    Returns:
        the number of levels that were passed.
    """
    upper = min(depth, UPPER_LEVELS)
    place_R, next_R = place_2R[0, :rows], place_2R[1, :rows]
    for row in range(rows):
        place_R[row] = 0
    split = 0
    for level in range(upper):
        for row in range(rows):
            next_R[row] = np.uint8(place_R[row] << 1)
        for place in range(1 << level):
            key = key_K[split]
            split += 1
            limit, right = key & 15, (key >> _RIGHT) & 1
            column = (key >> _WORD) // BLOCK_ROWS * PER_WORD + ((key >> _SHIFT) & 31) // BITS
            x_R = levels_at(address_C[column] + first, rows)
            if lowest:
                not_below(x_R, np.int8(limit - 1), np.uint8(place), place_R, next_R)
            else:
                _go_right(x_R, np.uint8(right), np.uint8(limit), np.uint8(place), place_R, next_R)
        place_R, next_R = next_R, place_R
    if upper % 2:
        for row in range(rows):
            next_R[row] = place_R[row]
    return upper


@kernel
def _go_right(x_R: Levels, right: np.uint8, limit: np.uint8, place: np.uint8, place_R: Places, next_R: Places) -> None:
    lift = np.uint8(np.uint8(1) - right)
    for row in range(x_R.size):
        value = np.uint8(np.uint8(x_R[row]) + lift)
        next_R[row] += np.uint8((place_R[row] == place) & (value >= limit))


@kernel
def _lower(word_W: Keys, key_K: Keys, upper: int, depth: int, lowest: bool, place_R: Keys) -> None:
    """A block of rows down the lower levels. Everything is 32 bits wide, for vectors of many rows."""
    rows = np.int32(place_R.shape[0])
    for level in range(upper, depth):
        first = np.int32((1 << level) - 1)
        for row in range(rows):
            key = key_K[np.uint32(first + place_R[row])]
            word = word_W[np.uint32(np.int32(key >> np.int32(_WORD)) + np.int32(row))]
            value = np.int32(word >> np.int32((key >> np.int32(_SHIFT)) & np.int32(31)))
            lift = np.int32(0) if lowest else np.int32((key >> np.int32(_RIGHT)) & np.int32(1))
            right = np.int32(np.int32(np.int32(value - lift) & np.int32(15)) >= np.int32(key & np.int32(15)))
            place_R[row] = np.int32(np.int32(place_R[row] + place_R[row]) + right)
