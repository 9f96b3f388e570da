"""Leaves of boosted trees re-estimated on new rows, one model after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Columns, Double, Integers, Single
from eravane_kernels.cpu.forest import WALKED_ROWS
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.layout import flat
from eravane_kernels.spec.forest import LEAF, Positions
from eravane_kernels.spec.leaves import check_renewal


def renew_leaves(
    x_CN: Columns,
    node_K4: Positions,
    old_K: Double,
    tree_T2: Positions,
    first_B1: Integers,
    label_BN: Single,
    weight_N: Single,
    margin_BN: Double,
    rate: float,
    ridge: float,
    keep: float,
) -> tuple[Single, Double]:
    """See `spec.renew_leaves`."""
    check_renewal(x_CN, node_K4, old_K, tree_T2, first_B1, label_BN, weight_N, margin_BN)
    values_S, start_C = flat(x_CN)
    number_K, margin_BN = old_K.astype(np.float32), margin_BN.copy()
    for model, (label_N, margin_N) in enumerate(zip(np.ascontiguousarray(label_BN), margin_BN, strict=True)):
        own_T2 = np.ascontiguousarray(tree_T2[first_B1[model] : first_B1[model + 1]])
        _renew(values_S, start_C, node_K4, old_K, own_T2, label_N, weight_N, margin_N, number_K, rate, ridge, keep)
    return number_K, margin_BN


@kernel
def _renew(
    values_S: Columns,
    start_C: Integers,
    node_K4: Positions,
    old_K: Double,
    tree_T2: Positions,
    label_N: Single,
    weight_N: Single,
    margin_N: Double,
    number_K: Single,
    rate: float,
    ridge: float,
    keep: float,
) -> None:
    leaf_N = np.empty(margin_N.size, np.int32)
    for tree in range(tree_T2.shape[0]):
        root, end = tree_T2[tree]
        _find_leaves(values_S, start_C, node_K4, number_K, root, leaf_N)
        gradient_L, mass_L = np.zeros(end - root), np.zeros(end - root)
        for row in range(margin_N.size):
            label = np.float64(label_N[row])
            if label == label:
                weight, place = np.float64(weight_N[row]), leaf_N[row] - root
                gradient_L[place] += weight * (margin_N[row] - label)
                mass_L[place] += weight
        for place in range(end - root):
            if mass_L[place] > 0:
                new = -rate * gradient_L[place] / (mass_L[place] + ridge)
                number_K[root + place] = np.float32(keep * old_K[root + place] + (1 - keep) * new)
        for row in range(margin_N.size):
            margin_N[row] += np.float64(number_K[leaf_N[row]])


@kernel
def _find_leaves(
    values_S: Columns,
    start_C: Integers,
    node_K4: Positions,
    number_K: Single,
    root: int,
    leaf_N: npt.NDArray[np.int32],
) -> None:
    """The leaf of every row; a block of rows takes each step together, so that no branch is mispredicted often."""
    for first in range(0, leaf_N.size, WALKED_ROWS):
        leaf_B = leaf_N[first : first + WALKED_ROWS]
        leaf_B[:] = root
        moved = True
        while moved:
            moved = False
            for row in range(leaf_B.size):
                at = leaf_B[row]
                split = node_K4[at, 0]
                if split != LEAF:
                    value = np.float32(values_S[start_C[split >> 1] + first + row])
                    left = (value < number_K[at]) | ((value != value) & (split & 1 == 1))
                    leaf_B[row] = node_K4[at, 3 - left]
                    moved = True
