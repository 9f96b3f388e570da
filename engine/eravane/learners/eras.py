"""Weights of rows by era for any estimator: half-life, every n-th era, era-balanced bags, era boosting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from eravane.calendar.eras import era_numbers
from eravane.core.arrays import Float32s
from eravane.core.errors import ConfigError, DataError
from eravane.scoring.by_era import corr_by_era

Score = Callable[[Any, Any, Any], "pd.Series[float]"]
Estimator = TypeVar("Estimator")


def half_life_weights(eras: ArrayLike, half_life: float, newest: int | None = None) -> Float32s:
    """Weights that halve with every `half_life` eras of age.

    Args:
        eras: era of every row [N], integers or labels such as "0001", in any order.
        half_life: in eras, above 0.
        newest: the era of weight 1; None: the newest of `eras`.

    Returns:
        float32 [N].

    Raises:
        ConfigError: the half-life is not above 0.
        DataError: an entry is no era.
    """
    if not (np.isfinite(half_life) and half_life > 0):
        raise ConfigError(f"half_life: expected a number of eras above 0, given {half_life!r}")
    era_N = _eras(eras)
    age_N = (era_N.max() if newest is None else newest) - era_N
    return np.exp2(-age_N / half_life).astype(np.float32)


def every_nth_era(eras: ArrayLike, n: int, offset: int = 0) -> NDArray[np.bool_]:
    """The rows of every n-th era, so that labels of neighbouring eras overlap less.

    Models that differ in their offset see different eras, all of them together every era once.

    Args:
        eras: era of every row [N], in any order.
        n: 1 or more.
        offset: which eras; counted from the oldest, modulo n.

    Returns:
        bool [N].

    Raises:
        ConfigError: n is no whole number above 0.
        DataError: an entry is no era.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ConfigError(f"n: expected a whole number of at least 1, given {n!r}")
    _, place_N = np.unique(_eras(eras), return_inverse=True)
    chosen_N: NDArray[np.bool_] = place_N % n == offset % n
    return chosen_N


def era_bag(eras: ArrayLike, seed: int) -> Float32s:
    """Weights of a bag of eras: whole eras are drawn with replacement, each with the same total weight.

    Rows of an era share their noise, so that drawing single rows would make bags that hardly differ.

    Args:
        eras: era of every row [N], in any order.
        seed: of the draw.

    Returns:
        float32 [N] with a sum of N; 0 in eras that were not drawn.

    Raises:
        DataError: an entry is no era.
    """
    _, place_N, rows_E = np.unique(_eras(eras), return_inverse=True, return_counts=True)
    drawn_E = np.bincount(np.random.default_rng(seed).integers(0, len(rows_E), len(rows_E)), minlength=len(rows_E))
    weight_E = drawn_E / rows_E * (len(place_N) / len(rows_E))
    return np.asarray(weight_E[place_N], dtype=np.float32)


def boost_eras(
    model: Estimator,
    X: object,
    y: object,
    eras: ArrayLike,
    *,
    blocks: int = 5,
    share: float = 0.5,
    factor: float = 2.0,
    score: Score = corr_by_era,
) -> Estimator:
    """Fit block after block of trees, each with the rows of the eras weighted up that the model so far does worst in.

    "Era boosting" of the Numerai forum. Worst is judged on the rows of training alone; judge the outcome on others.

    Args:
        model: an estimator whose `fit` takes `sample_weight` and `xgb_model`, such as `LevelsRegressor`; its
            `n_estimators` are the trees of a block.
        X, y: rows and labels of training.
        eras: era of every row [N].
        blocks: of trees.
        share: of the eras that are weighted up.
        factor: by which, block after block.
        score: labels, predictions and eras to a score by era; more is better.

    Returns:
        The model, fitted to all blocks.

    Raises:
        ConfigError: blocks, share or factor are out of bounds.
        DataError: an entry is no era, or y has another number of rows.
    """
    if blocks < 1 or not 0 < share < 1 or not factor > 0:
        raise ConfigError(f"expected blocks >= 1, 0 < share < 1 and factor > 0, given {blocks}, {share} and {factor}")
    era_N = _eras(eras)
    label_N = np.asarray(y)
    if len(label_N) != len(era_N):
        raise DataError(f"y has {len(label_N)} rows, eras have {len(era_N)}")
    weight_N, fitted = np.ones(len(era_N), dtype=np.float32), None
    grower: Any = model
    for block in range(blocks):
        grower.fit(X, y, sample_weight=weight_N, xgb_model=fitted)
        fitted = grower.get_booster()
        if block + 1 < blocks:
            score_E = score(label_N, grower.predict(X), era_N).dropna().sort_values()
            worst = score_E.index[: max(1, round(share * len(score_E)))]
            weight_N = np.where(np.isin(era_N, np.asarray(worst)), np.float32(factor), np.float32(1))
    return model


def _eras(eras: Any) -> NDArray[np.int64]:
    rows = len(eras)
    if rows == 0:
        raise DataError("eras: expected the era of every row, given none")
    return era_numbers(eras, rows)
