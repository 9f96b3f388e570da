"""Predictions of boosted trees for rows of integer levels, read in place.

XGBoost walks each row down each tree, one node after the other (measured 11 to 18 ns per row and tree of depth 5). Here
a block of rows is held against every split of a level at once, 32 rows to an instruction: a tree of depth 5 has 31
splits, so that a row costs about 31 * 5 / 32 instructions a tree, and no branch is ever mispredicted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels import checks
from eravane_kernels.arrays import Columns, Integers
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.layout import flat
from eravane_kernels.cpu.pointers import levels_at
from eravane_kernels.cpu.vectors import LINE, prefetch
from eravane_kernels.spec.forest import LEAF, check_trees, check_walk

Levels = npt.NDArray[np.int8]
Places = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Rows at a time: their columns of one tree of depth 5 fit into the first cache.
BLOCK_ROWS = 1024
# Rows that go down a tree while its nodes are in the first cache.
WALKED_ROWS = 256
# Splits double with every level: beyond this depth XGBoost's own way is the faster one.
DEEPEST = 7


def add_leaves(
    x_CN: Columns,
    column_TK: npt.NDArray[np.int32],
    below_TK: Levels,
    leaf_TL: Floats,
    total_N: Floats,
) -> Floats:
    """See `spec.add_leaves`."""
    checks.columns(x_CN, "x_CN", "int8")
    address_1C = x_CN.ctypes.data + np.arange(len(x_CN), dtype=np.int64)[None] * x_CN.strides[0]
    return add_leaves_at(address_1C, np.array([x_CN.shape[1]]), column_TK, below_TK, leaf_TL, total_N)


def add_leaves_at(
    address_SC: Integers,
    row_S: Integers,
    column_TK: npt.NDArray[np.int32],
    below_TK: Levels,
    leaf_TL: Floats,
    total_N: Floats,
) -> Floats:
    """`add_leaves` for int8 columns at addresses [S, C], in segments of rows; the caller keeps them alive."""
    check_trees(column_TK, below_TK, leaf_TL, address_SC.shape[1])
    checks.vector(total_N, "total_N", int(row_S.sum()), "float32")
    depth = int(leaf_TL.shape[1]).bit_length() - 1
    _add_leaves(address_SC, row_S, column_TK, below_TK, leaf_TL, depth, BLOCK_ROWS, total_N)
    return total_N


@kernel
def _add_leaves(
    address_SC: Integers,
    row_S: Integers,
    column_TK: npt.NDArray[np.int32],
    below_TK: Levels,
    leaf_TL: Floats,
    depth: int,
    block: int,
    total_N: Floats,
) -> None:
    place_B, next_B = np.empty(block, np.uint8), np.empty(block, np.uint8)
    start, last = 0, leaf_TL.shape[0] - 1
    for segment in range(row_S.shape[0]):
        for first in range(0, row_S[segment], block):
            rows = min(block, row_S[segment] - first)
            total_B = total_N[start + first : start + first + rows]
            for tree in range(last + 1):
                for row in range(rows):
                    place_B[row] = 0
                split = 0
                for level in range(depth):
                    for row in range(rows):
                        next_B[row] = np.uint8(place_B[row] << 1)
                    for place in range(1 << level):
                        column = column_TK[tree, split]
                        if column >= 0:
                            value_B = levels_at(address_SC[segment, column] + first, rows)
                            not_below(value_B, below_TK[tree, split], np.uint8(place), place_B, next_B)
                        column = column_TK[min(tree + 1, last), split]
                        if column >= 0:
                            _ask_for(levels_at(address_SC[segment, column] + first, rows))
                        split += 1
                    place_B, next_B = next_B, place_B
                leaf_L = leaf_TL[tree]
                for row in range(rows):
                    total_B[row] += leaf_L[place_B[row]]
        start += row_S[segment]


@kernel
def _ask_for(value_B: Levels) -> None:
    """Asks for rows of a column, which the next tree reads: the processor does not foresee which column that is."""
    for row in range(0, value_B.size, LINE):
        prefetch(value_B, row)


@kernel
def not_below(value_B: Levels, below: int | np.int8, place: np.uint8, place_B: Places, next_B: Places) -> None:
    """Adds 1 to the next places of rows at a place whose values are not below a number."""
    for row in range(value_B.size):
        next_B[row] += np.uint8((place_B[row] == place) & (value_B[row] >= below))


def add_trees(x_CN: Columns, node_K4: npt.NDArray[np.int32], root_T: npt.NDArray[np.int32], total_N: Floats) -> Floats:
    """See `spec.add_trees`."""
    check_walk(x_CN, node_K4, root_T, total_N)
    values_S, start_C = flat(x_CN)
    _add_trees(values_S, start_C, node_K4, node_K4.view(np.float32), root_T, total_N)
    return total_N


@kernel
def _add_trees(
    values_S: Columns,
    start_C: Integers,
    node_K4: npt.NDArray[np.int32],
    number_K4: Floats,
    root_T: npt.NDArray[np.int32],
    total_N: Floats,
) -> None:
    for first in range(0, total_N.size, WALKED_ROWS):
        last = min(first + WALKED_ROWS, total_N.size)
        for tree in range(root_T.size):
            for row in range(first, last):
                at = root_T[tree]
                while node_K4[at, 0] != LEAF:
                    split = node_K4[at, 0]
                    value = np.float32(values_S[start_C[split >> 1] + row])
                    left = value < number_K4[at, 1] or (value != value and split & 1 == 1)
                    at = node_K4[at, 2 if left else 3]
                total_N[row] += number_K4[at, 1]
