"""Boosted trees on integer levels: the leaf of every tree added to a row's output."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels import checks
from eravane_kernels.arrays import Levels, Single

Positions = npt.NDArray[np.int32]


def add_leaves(x_CN: Levels, column_TK: Positions, below_TK: Levels, leaf_TL: Single, total_N: Single) -> Single:
    """Add the leaf of every tree to an output, tree after tree, each sum rounded to float32.

    Args:
        x_CN: int8, any values, contiguous columns.
        column_TK, below_TK: int32 and int8 [T, 2^D - 1], splits of complete trees of depth D, level by level: a row
            with a value below goes left; where the column is -1 every row does.
        leaf_TL: float32 [T, 2^D], from left to right.
        total_N: float32 [N], changed in place where it lies with the kernels.

    Returns:
        The output, float32 [N].

    Raises:
        ValueError: a wrong shape or dtype, a column that does not exist, or leaves that are no power of two.
    """
    check_leaves(x_CN, column_TK, below_TK, leaf_TL, total_N)
    depth = leaf_TL.shape[1].bit_length() - 1
    for column_K, below_K, leaf_L in zip(column_TK, below_TK, leaf_TL, strict=True):
        place_N = np.zeros(len(total_N), dtype=np.int64)
        for level in range(depth):
            split_N = (1 << level) - 1 + place_N
            value_N = x_CN[column_K[split_N], np.arange(len(total_N))] if len(x_CN) else below_K[split_N]
            place_N = 2 * place_N + ((column_K[split_N] >= 0) & (value_N >= below_K[split_N]))
        total_N += leaf_L[place_N]
    return total_N


def check_leaves(x_CN: Levels, column_TK: Positions, below_TK: Levels, leaf_TL: Single, total_N: Single) -> None:
    """Checks what `add_leaves` takes."""
    checks.columns(x_CN, "x_CN", "int8")
    check_trees(column_TK, below_TK, leaf_TL, len(x_CN))
    checks.vector(total_N, "total_N", x_CN.shape[1], "float32")


def check_trees(column_TK: Positions, below_TK: Levels, leaf_TL: Single, width: int) -> None:
    """Checks complete trees on a number of columns."""
    checks.axes(leaf_TL, "leaf_TL", 2, "float32")
    trees, leaves = leaf_TL.shape
    if leaves < 2 or leaves & (leaves - 1):
        raise ValueError(f"leaf_TL: expected 2, 4, 8 ... leaves a tree, given {leaves}")
    checks.shape(column_TK, "column_TK", (trees, leaves - 1), "int32")
    checks.shape(below_TK, "below_TK", (trees, leaves - 1), "int8")
    if column_TK.size and (column_TK.min() < -1 or column_TK.max() >= width):
        raise ValueError(f"column_TK: expected positions within 0..{width - 1} or -1, given up to {column_TK.max()}")
