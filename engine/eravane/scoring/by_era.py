"""Numerai's scores of predictions in memory, era by era; `eravane.scoring.metrics` summarises them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from eravane.calendar.eras import EraIndex, era_numbers
from eravane.core.errors import DataError
from eravane_kernels import cpu


def corr_by_era(y: ArrayLike, prediction: ArrayLike, eras: ArrayLike) -> pd.Series[float]:
    """CORR of a prediction in every era, as `numerai_tools.scoring.numerai_corr`.

    Args:
        y: target [N], NaN where unknown.
        prediction: [N], finite.
        eras: era of every row [N], in any order.

    Returns:
        float64 by era number; NaN where the prediction is constant or no label is known.

    Raises:
        DataError: the three differ in length.
    """
    p_MN, (y_N,), index = _sorted(prediction, [y], eras)
    return _by_era(cpu.numerai_corr(p_MN, y_N, index.offsets), index)


def mmc_by_era(y: ArrayLike, prediction: ArrayLike, meta_model: ArrayLike, eras: ArrayLike) -> pd.Series[float]:
    """MMC of a prediction in every era, as `numerai_tools.scoring.correlation_contribution`.

    Args:
        y, prediction, eras: as `corr_by_era`.
        meta_model: the meta model's predictions [N], or a benchmark's (then it is BMC).

    Returns:
        float64 by era number.

    Raises:
        DataError: the four differ in length.
    """
    p_MN, (y_N, meta_N), index = _sorted(prediction, [y, meta_model], eras)
    return _by_era(cpu.contribution(p_MN, meta_N, y_N, index.offsets), index)


def _sorted(
    prediction: ArrayLike, others: list[ArrayLike], eras: ArrayLike
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]], EraIndex]:
    p_N = np.asarray(prediction, dtype=np.float64)
    era_N = era_numbers(eras, p_N.size)
    order_N = np.argsort(era_N, kind="stable")
    # Labels keep their precision: numerai-tools centres float32 targets in float32.
    arrays = [np.asarray(values) for values in others]
    for values in arrays:
        if values.shape != p_N.shape:
            raise DataError(f"expected {p_N.size} values per array, given {values.shape}")
    return p_N[None, order_N], [values[order_N] for values in arrays], EraIndex.from_rows(era_N[order_N])


def _by_era(scores_ME: NDArray[np.float64], index: EraIndex) -> pd.Series[float]:
    return pd.Series(scores_ME[0], index=pd.Index(index.labels, name="era"))
