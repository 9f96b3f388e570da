"""Neutralisation of the ensemble to a feature set, off by default."""

from __future__ import annotations

import numpy as np

from eravane.core.arrays import Floats, Values
from eravane.scoring.ensemble import one_era
from eravane_kernels.namespace import Kernels
from eravane_kernels.spec.mixing import DECIMALS


class Neutraliser:
    """Removes from an ensemble the part that a set of features explains linearly.

    Args:
        columns: the features.
        proportion: share of the explained part that is removed, 0..1.
        ops: the kernels' namespace; the mix stays where they work.
    """

    def __init__(self, columns: tuple[str, ...], proportion: float, ops: Kernels) -> None:
        self.columns, self._proportion, self._ops = columns, proportion, ops

    def apply(self, mixed_N: Floats, values_CN: Values) -> Floats:
        """Neutralise one era's mix.

        The mix is gauss-ranked first, so that the explained part does not depend on the width of its tails; an unknown
        feature value counts as the feature's mean.

        Args:
            mixed_N: float64 [N].
            values_CN: int8 or float32 [C, N], the features prepared as for the trees.

        Returns:
            float64 [N]; the mix itself where it is constant.
        """
        if mixed_N.min() == mixed_N.max():
            return mixed_N
        offsets = one_era(mixed_N.size)
        z_1N = self._ops.gaussianize(mixed_N[None, :], offsets)
        neutral_N: Floats = self._ops.neutralize(z_1N, _known(values_CN), offsets, self._proportion)[0]
        return np.round(neutral_N, DECIMALS)


def _known(values_CN: Values) -> Values:
    if values_CN.dtype == np.int8:
        if values_CN.size == 0 or values_CN.min() >= 0:
            return values_CN
        values_CN = np.where(values_CN < 0, np.float32(np.nan), values_CN.astype(np.float32))
    count_C = np.maximum((~np.isnan(values_CN)).sum(axis=1), 1)
    mean_C = np.nansum(values_CN, axis=1, dtype=np.float64) / count_C
    return np.where(np.isnan(values_CN), mean_C[:, None].astype(np.float32), values_CN)
