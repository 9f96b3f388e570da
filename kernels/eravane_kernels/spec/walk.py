"""Rows of levels walked down complete trees, one row and one tree at a time; missing values may go right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Bools, Levels, Single


def walk(
    x_CN: Levels,
    column_TK: npt.NDArray[np.int32],
    below_TK: Levels,
    right_TK: Bools | None,
    leaf_TL: Single,
    total_N: Single,
) -> None:
    """Add to `total_N` the leaf of every tree, tree after tree, in float32.

    Args:
        x_CN: int8 levels.
        column_TK, below_TK: [T, 2^D - 1], splits of complete trees of depth D, level by level; a row with x < below
            goes left, and where the column is -1 every row does.
        right_TK: where -1 means missing, whether it goes right; None: -1 is the lowest value.
        leaf_TL: float32 [T, 2^D], from left to right.
        total_N: float32 [N], changed in place.
    """
    depth = int(leaf_TL.shape[1]).bit_length() - 1
    for tree in range(len(leaf_TL)):
        for row in range(x_CN.shape[1]):
            place = 0
            for level in range(depth):
                split = (1 << level) - 1 + place
                column = column_TK[tree, split]
                value = x_CN[column, row]
                right = value >= below_TK[tree, split]
                if right_TK is not None and value == -1:
                    right = right_TK[tree, split]
                place = 2 * place + int(column >= 0 and right)
            total_N[row] += leaf_TL[tree, place]
