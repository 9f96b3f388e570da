"""Leaves of boosted trees re-estimated on the device by cu/leaves.cu."""

from __future__ import annotations

import numpy as np

from eravane_kernels import checks
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import LONGEST_RUN, Array
from eravane_kernels.cuda.launch import launch
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.spec.leaves import check_models

TILE = 1_024
"""Rows that a block sorts by leaf."""
LISTED_BYTES = 64 << 20
"""Of sorted rows that are held at once, as far as those of one tree of every model take no more."""


def renew_leaves(
    x_CN: Array,
    node_K4: Array,
    old_K: Array,
    tree_T2: Array,
    first_B1: Array,
    label_BN: Array,
    weight_N: Array,
    margin_BN: Array,
    rate: float,
    ridge: float,
    keep: float,
) -> tuple[Array, Array]:
    """Re-estimate the leaves of models of squared error, tree after tree.

    Arguments and results as `spec.renew_leaves`; what describes trees and models is NumPy's. Raises: ValueError.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8", "float32")
    check_models(node_K4, tree_T2, first_B1, len(x_CN))
    models, rows = len(first_B1) - 1, int(x_CN.shape[1])
    if rows > LONGEST_RUN:
        raise ValueError(f"x_CN: expected at most {LONGEST_RUN} rows, given {rows}")
    label_BN = inputs.shaped(label_BN, "label_BN", (models, rows), "float32")
    weight_N = inputs.shaped(weight_N, "weight_N", (rows,), "float32")
    xp = active().xp
    margin_BN = inputs.shaped(margin_BN, "margin_BN", (models, rows), "float64").copy()
    checks.vector(old_K, "old_K", len(node_K4), "float64")
    nodes, number_K, old_K = upload(node_K4), upload(old_K.astype(np.float32)), upload(old_K)
    size, many = int(np.diff(tree_T2).max(initial=0)), int(np.diff(first_B1).max(initial=0))
    sums = xp.zeros((max(models, 1), 2 * max(size, 1)), dtype=np.float64)
    at_once = max(1, min(many, LISTED_BYTES // max(1, 8 * rows * models)))
    listed = xp.empty(max(1, at_once * models * rows), dtype=np.uint64)
    kernel = "list_rows_levels" if x_CN.dtype == np.int8 else "list_rows_floats"
    for begin in range(0, many if rows else 0, at_once):
        first_B, end_B = (np.minimum(first_B1[:-1] + number, first_B1[1:]) for number in (begin, begin + at_once))
        own_T2 = np.concatenate([tree_T2[first:end] for first, end in zip(first_B, end_B, strict=True)])
        own_B1, trees, there = np.append(0, np.cumsum(end_B - first_B)), np.int64(len(own_T2)), upload(own_T2)
        tiles = -(-rows // TILE) * int(trees)
        launch("leaves", kernel, tiles, x_CN, inputs.stride(x_CN), np.int64(rows), nodes, there, trees, listed)
        sizes = np.float64(rate), np.float64(ridge), np.float64(keep)
        given = listed, np.int64(rows), old_K, there, upload(own_B1), np.int64(models), label_BN, weight_N, *sizes
        launch("leaves", "renew_leaves", models, *given, margin_BN, number_K, sums, np.int64(sums.shape[1] // 2))
    return number_K, margin_BN
