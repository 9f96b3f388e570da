"""Weighted sums of predictions within an era, by cu/mix.cu."""

from __future__ import annotations

import numpy as np

from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array, stride
from eravane_kernels.cuda.launch import THREADS, launch
from eravane_kernels.cuda.runtime import active

MOST_SETS = 65_535
"""Of a grid's y; beyond, a block takes several sets."""


def mix(z_MN: Array, weight_KM: Array) -> Array:
    """Weighted sums of models' gaussianised predictions in one era, rounded, for K sets of weights.

    Arguments as `spec.mix`; float64 [K, N] on the device, the same for rows with the same values. Raises: ValueError.
    """
    z_MN = inputs.columns(z_MN, "z_MN", "float64")
    weight_KM = inputs.shaped(weight_KM, "weight_KM", (len(weight_KM), len(z_MN)), "float64")
    sets, (models, rows) = len(weight_KM), z_MN.shape
    result_KN = active().xp.empty((sets, rows), dtype=np.float64)
    sizes = (np.int64(rows), np.int64(models), weight_KM, np.int64(sets))
    arguments = (z_MN, stride(z_MN), *sizes, result_KN, stride(result_KN))
    if sets:
        launch("mix", "mix_rows", -(-rows // THREADS), *arguments, times=min(sets, MOST_SETS))
    return result_KN
