"""Leaves of boosted trees re-estimated on new rows: the trees keep their splits."""

from __future__ import annotations

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Columns, Double, Integers, Single
from eravane_kernels.spec.forest import LEAF, Positions, check_nodes


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
    """Re-estimate the leaves of models of squared error, tree after tree.

    A leaf becomes `keep * old + (1 - keep) * new`, rounded to float32, where `new` is `-rate * sum(w g) / (sum(w) +
    ridge)` over the labelled rows that reach it, in their order and in double; g is the margin before the tree less the
    label. A leaf that no weight reaches stays. The leaf is then added to the margins of its rows.

    Args:
        x_CN: int8, any values, or float32, NaN where missing; contiguous columns.
        node_K4: int32 [K, 4], the nodes of all trees as `add_trees` takes them, for their splits.
        old_K: float64 [K], numbers of the nodes; rounded to float32 where they stay.
        tree_T2: int32 [T, 2], the first node of every tree and the one behind its last; trees share no node.
        first_B1: int64 [B + 1], the trees of model b are first_B1[b] to first_B1[b + 1] - 1.
        label_BN: float32 [B, N]; rows with NaN do not count.
        weight_N: float32 [N], 0 or more.
        margin_BN: float64 [B, N], outputs before the first of these trees.
        rate, ridge, keep: see above.

    Returns:
        The numbers of all nodes, float32 [K]; and the margins behind the trees, float64 [B, N].

    Raises:
        ValueError: a wrong shape or dtype, a column or node that does not exist, a node before the one above it or
            outside its tree, trees that share nodes, or models that are not all trees.
    """
    check_renewal(x_CN, node_K4, old_K, tree_T2, first_B1, label_BN, weight_N, margin_BN)
    number_K, margin_BN = old_K.astype(np.float32), margin_BN.copy()
    weight_N = weight_N.astype(np.float64)
    for model, margin_N in enumerate(margin_BN):
        label_N = label_BN[model].astype(np.float64)
        known_N = ~np.isnan(label_N)
        for root, end in tree_T2[first_B1[model] : first_B1[model + 1]]:
            leaf_N = _leaves(x_CN, node_K4, root)
            place_N, gradient_N = leaf_N[known_N] - root, (weight_N * (margin_N - label_N))[known_N]
            gradient_L = np.bincount(place_N, gradient_N, minlength=end - root)
            mass_L = np.bincount(place_N, weight_N[known_N], minlength=end - root)
            for place in np.flatnonzero(mass_L > 0):
                new = -rate * gradient_L[place] / (mass_L[place] + ridge)
                number_K[root + place] = keep * old_K[root + place] + (1 - keep) * new
            margin_N += number_K[leaf_N]
    return number_K, margin_BN


def _leaves(x_CN: Columns, node_K4: Positions, root: int) -> Integers:
    """The leaf that every row reaches, int64 [N]."""
    at_N = np.full(x_CN.shape[1], root, dtype=np.int64)
    while (inner_I := np.flatnonzero(node_K4[at_N, 0] != LEAF)).size:
        node_I4 = node_K4[at_N[inner_I]]
        value_I = x_CN[node_I4[:, 0] >> 1, inner_I].astype(np.float32)
        number_I = node_K4.view(np.float32)[at_N[inner_I], 1]
        left_I = np.where(np.isnan(value_I), node_I4[:, 0] & 1 == 1, value_I < number_I)
        at_N[inner_I] = np.where(left_I, node_I4[:, 2], node_I4[:, 3])
    return at_N


def check_renewal(
    x_CN: Columns,
    node_K4: Positions,
    old_K: Double,
    tree_T2: Positions,
    first_B1: Integers,
    label_BN: Single,
    weight_N: Single,
    margin_BN: Double,
) -> None:
    """Checks what `renew_leaves` takes."""
    checks.columns(x_CN, "x_CN", "int8", "float32")
    check_models(node_K4, tree_T2, first_B1, len(x_CN))
    checks.vector(old_K, "old_K", len(node_K4), "float64")
    shape = len(first_B1) - 1, x_CN.shape[1]
    checks.shape(label_BN, "label_BN", shape, "float32")
    checks.vector(weight_N, "weight_N", shape[1], "float32")
    checks.shape(margin_BN, "margin_BN", shape, "float64")


def check_models(node_K4: Positions, tree_T2: Positions, first_B1: Integers, width: int) -> None:
    """Checks models of trees of nodes that share none, on a number of columns."""
    checks.axes(tree_T2, "tree_T2", 2, "int32")
    checks.shape(tree_T2, "tree_T2", (len(tree_T2), 2), "int32")
    check_nodes(node_K4, tree_T2[:, 0], width)
    checks.offsets(first_B1, len(tree_T2), "first_B1", "trees")
    order_T2 = tree_T2[np.argsort(tree_T2[:, 0])].astype(np.int64)
    behind_T = np.append(order_T2[1:, 0], len(node_K4))[: len(order_T2)]
    if (order_T2[:, 0] >= order_T2[:, 1]).any() or (order_T2[:, 1] > behind_T).any():
        raise ValueError("tree_T2: expected trees of one node or more that share none")
    splits_K = node_K4[:, 0] != LEAF
    end_K = np.full(len(node_K4), len(node_K4))
    for root, end in order_T2:
        end_K[root:end] = end
    if (node_K4[splits_K, 2:] >= end_K[splits_K, None]).any():
        raise ValueError("node_K4: expected nodes below a split within its tree")
