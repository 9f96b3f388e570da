"""The ensemble of base predictions and weights: gaussianized ranks, weighted, ranked again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Floats, on_host
from eravane_kernels.namespace import Kernels


def one_era(rows: int) -> NDArray[np.int64]:
    """Offsets of a single era of `rows` rows, as the kernels take them."""
    return np.array([0, rows], dtype=np.int64)


def gaussianize(base_MN: NDArray[np.float32], ops: Kernels) -> Floats:
    """Tie-kept ranks of each model's predictions in one era as normal quantiles, float64 [M, N]; stays on a device."""
    z_MN: Floats = ops.gaussianize(base_MN, one_era(base_MN.shape[1]))
    return z_MN


def combine(z_MN: Floats, weights_M: Floats, ops: Kernels) -> Floats:
    """Weighted sum of the models with weight, float64 [N], others may be NaN; stays on a device."""
    mixed_N: Floats = ops.mix(z_MN, np.ascontiguousarray(weights_M, dtype=np.float64)[None])[0]
    return mixed_N


def to_prediction(mixed_N: Floats, ops: Kernels) -> Floats:
    """Tie-kept ranks in (0, 1) of one era's mix: (rank - 0.5) / n, float64 [N] on the host."""
    prediction_N: Floats = on_host(ops.rank(mixed_N[None, :], one_era(mixed_N.size)))[0]
    return prediction_N


def standardised_target(label_N: NDArray[np.float32]) -> Floats:
    """A target as numerai_corr transforms it: centred, sign * |.|^1.5, then unit variance; NaN labels stay NaN."""
    centred = label_N.astype(np.float64) - np.nanmean(label_N, dtype=np.float64)
    powered = np.sign(centred) * np.abs(centred) ** 1.5
    spread = np.nanstd(powered)
    centred_power: Floats = powered - np.nanmean(powered)
    return centred_power / spread if spread > 0 else centred_power
