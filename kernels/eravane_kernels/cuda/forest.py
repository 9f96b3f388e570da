"""Boosted trees evaluated on the device by cu/forest.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import launch
from eravane_kernels.cuda.runtime import upload
from eravane_kernels.spec.forest import check_nodes

ROWS = 32
"""Rows of a block."""


def add_trees(x_CN: Array, node_K4: Any, root_T: Any, total_N: Array) -> Array:
    """Add the leaf of every tree to an output, tree after tree, each sum rounded to float32; trees of any depth.

    Arguments as `spec.add_trees`; an output on the device is changed in place. Trees may lie on the device, once
    `check_nodes` has passed them on the host. Returns float32 [N] on the device. Raises: ValueError.
    """
    x_CN = inputs.columns(x_CN, "x_CN", "int8", "float32")
    if isinstance(node_K4, np.ndarray):
        check_nodes(node_K4, root_T, len(x_CN))
    rows = int(x_CN.shape[1])
    inputs.shaped_alike(total_N, "total_N", (rows,), "float32")
    total_N = upload(total_N)
    kernel = "add_trees_levels" if x_CN.dtype == np.int8 else "add_trees_floats"
    arguments = (upload(node_K4), upload(root_T), np.int64(len(root_T)), total_N)
    launch("forest", kernel, -(-rows // ROWS), x_CN, inputs.stride(x_CN), np.int64(rows), *arguments)
    return total_N
