"""Boosted trees on integer levels, evaluated on the device by cu/forest.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import THREADS, launch
from eravane_kernels.cuda.runtime import upload
from eravane_kernels.spec.forest import check_trees


def add_leaves(x_CN: Array, column_TK: Any, below_TK: Any, leaf_TL: Any, total_N: Array) -> Array:
    """Add the leaf of every tree to an output, tree after tree, each sum rounded to float32.

    Arguments as `spec.add_leaves`; an output on the device is changed in place. Trees may lie on the device, once
    `check_trees` has passed them on the host. Returns float32 [N] on the device. Raises: ValueError.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8")
    if isinstance(column_TK, np.ndarray):
        check_trees(column_TK, below_TK, leaf_TL, len(x_CN))
    rows, (trees, leaves) = int(x_CN.shape[1]), leaf_TL.shape
    inputs.shaped_alike(total_N, "total_N", (rows,), "float32")
    total_N = upload(total_N)
    arguments = (
        *(x_CN, inputs.stride(x_CN), np.int64(rows), upload(column_TK), upload(below_TK), upload(leaf_TL)),
        *(np.int64(trees), np.int64(int(leaves).bit_length() - 1), total_N),
    )
    launch("forest", "add_leaves", -(-rows // THREADS), *arguments)
    return total_N
