"""Boosted trees: the leaf of every tree added to a row's output."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels import checks
from eravane_kernels.arrays import Columns, Levels, Single

Positions = npt.NDArray[np.int32]
LEAF = -1


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


def add_trees(x_CN: Columns, node_K4: Positions, root_T: Positions, total_N: Single) -> Single:
    """Add the leaf of every tree to an output, tree after tree, each sum rounded to float32; trees of any depth.

    Args:
        x_CN: int8, any values, or float32, NaN where missing; contiguous columns.
        node_K4: int32 [K, 4], the nodes of all trees. Of a split: twice its column, plus 1 where missing values go
            left; the bits of its float32, below which values go left; the nodes on the left and on the right, which lie
            after it. Of a leaf: LEAF, the bits of its float32, and two unused numbers.
        root_T: int32 [T], the first node of every tree.
        total_N: float32 [N], changed in place where it lies with the kernels.

    Returns:
        The output, float32 [N].

    Raises:
        ValueError: a wrong shape or dtype, a column or node that does not exist, or a node before the one above it.
    """
    check_walk(x_CN, node_K4, root_T, total_N)
    number_K = node_K4.view(np.float32)[:, 1]
    for root in root_T:
        for row in range(len(total_N)):
            at = root
            while node_K4[at, 0] != LEAF:
                column, missing_left = divmod(int(node_K4[at, 0]), 2)
                value = np.float32(x_CN[column, row])
                left = bool(missing_left) if np.isnan(value) else bool(value < number_K[at])
                at = node_K4[at, 2 if left else 3]
            total_N[row] += number_K[at]
    return total_N


def check_walk(x_CN: Columns, node_K4: Positions, root_T: Positions, total_N: Single) -> None:
    """Checks what `add_trees` takes."""
    checks.columns(x_CN, "x_CN", "int8", "float32")
    check_nodes(node_K4, root_T, len(x_CN))
    checks.vector(total_N, "total_N", x_CN.shape[1], "float32")


def check_nodes(node_K4: Positions, root_T: Positions, width: int) -> None:
    """Checks trees of nodes on a number of columns."""
    checks.axes(node_K4, "node_K4", 2, "int32")
    checks.shape(node_K4, "node_K4", (len(node_K4), 4), "int32")
    checks.axes(root_T, "root_T", 1, "int32")
    nodes = len(node_K4)
    if not node_K4.flags.c_contiguous:
        raise ValueError(f"node_K4: expected contiguous rows, given strides {node_K4.strides}")
    if root_T.size and (root_T.min() < 0 or root_T.max() >= nodes):
        raise ValueError(f"root_T: expected nodes within 0..{nodes - 1}, given {root_T.min()} to {root_T.max()}")
    split_I = np.flatnonzero(node_K4[:, 0] != LEAF)
    if split_I.size == 0:
        return
    column_I, below_I2 = node_K4[split_I, 0] >> 1, node_K4[split_I, 2:]
    if column_I.min() < 0 or column_I.max() >= width:
        raise ValueError(f"node_K4: expected columns within 0..{width - 1}, given {column_I.min()} to {column_I.max()}")
    if (below_I2 <= split_I[:, None]).any() or below_I2.max() >= nodes:
        raise ValueError(f"node_K4: expected nodes below a split after it and within 0..{nodes - 1}")
