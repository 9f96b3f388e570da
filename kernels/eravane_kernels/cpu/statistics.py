"""Statistics of columns of levels and of floats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Columns, Integers
from eravane_kernels.cpu.counts import level_counts, level_stats
from eravane_kernels.cpu.floats import float_stats
from eravane_kernels.stats import QUANTILES, Stats


def era_stats(x_CN: Columns, offsets_E1: Integers, quantiles: Sequence[float] = QUANTILES) -> Stats:
    """See `spec.era_stats`."""
    checks.columns(x_CN, "x_CN", "int8", "float32")
    if x_CN.dtype == np.int8:
        return level_stats(level_counts(x_CN, offsets_E1), quantiles)
    return float_stats(x_CN, offsets_E1, quantiles)
