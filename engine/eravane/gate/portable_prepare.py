"""One era's values as the run prepares them, with NumPy and pandas alone: the other part of an exported model.

Its functions travel inside the pickle. They repeat `eravane.data.prepare` for one era that is prepared from itself; the
tests of `export` hold both against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.core.arrays import Values

Payload = Mapping[str, Any]


def live_values(live_features: pd.DataFrame, payload: Payload) -> Values:
    """The model's columns [C, N] in the dtype that it was trained on.

    Raises:
        ValueError: a column is missing, there are no rows, or a value is no level, or infinite.
    """
    columns = payload["columns"]
    lacking = [name for name in columns if name not in live_features.columns]
    if lacking or not len(live_features):
        raise ValueError(f"the live features lack {len(lacking)} columns ({lacking[:3]}) or rows")
    found_NC = live_features[columns].to_numpy()
    values_CN = np.ascontiguousarray(found_NC.T.astype(payload["dtype"]))
    if payload["dtype"] == "int8" and ((found_NC != values_CN.T).any() or values_CN.min() < 0 or values_CN.max() > 4):
        raise ValueError("the live features hold values that are no levels 0 to 4")
    if np.isinf(values_CN).any():
        raise ValueError("the live features hold infinite values")
    return values_CN


def known(values: Values) -> BoolArray:
    """Where a value is not missing."""
    found: BoolArray = values >= 0 if values.dtype == np.int8 else ~np.isnan(values)
    return found


def prepared(raw_CN: Values, columns: NDArray[np.int64], prepare: Payload) -> Values:
    """Some columns as the run would prepare them, indicators last."""
    values_CN = raw_CN[columns]
    if prepare["detect"]:
        values_CN[(values_CN == 2).all(axis=1)] = -1
    known_CN = known(values_CN)
    for c in range(len(columns)) if prepare["clip"] != "none" else np.flatnonzero(~known_CN.all(axis=1)):
        prepare_column(values_CN[c], known_CN[c], prepare)
    return np.concatenate([values_CN, ~known_CN]) if prepare["indicators"] else values_CN


def prepare_column(values_N: Values, known_N: BoolArray, prepare: Payload) -> None:
    """Fill and clip a column in place by what the era itself knows, as `eravane.data.prepare` does."""
    x_N, levels = values_N[known_N].astype(np.float64) + 0.0, values_N.dtype == np.int8
    if prepare["impute"] != "none":
        fill = fill_value(x_N, prepare)
        values_N[~known_N] = np.rint(fill).clip(0, 4) if levels else fill
    if prepare["clip"] != "none" and x_N.size:
        low, high = bounds(x_N, prepare)
        # A column of levels is missing as a whole or not at all; NaN stays NaN.
        if levels:
            values_N[:] = np.rint(values_N.clip(max(low, 0.0), min(high, 4.0)))
        else:
            values_N[:] = values_N.clip(np.float32(low), np.float32(high))


def fill_value(x_N: FloatArray, prepare: Payload) -> float:
    """The value that fills the gaps of a column whose known values are given."""
    if prepare["impute"] == "constant" or not x_N.size:
        return float(prepare["constant"])
    if prepare["impute"] == "mode":
        distinct, times = np.unique(x_N, return_counts=True)
        return float(distinct[times.argmax()])
    return float(x_N.mean() if prepare["impute"] == "mean" else np.quantile(x_N, 0.5))


def bounds(x_N: FloatArray, prepare: Payload) -> tuple[float, float]:
    """What values are limited to."""
    if prepare["clip"] == "winsorize":
        low, high = prepare["quantiles"]
        return float(np.quantile(x_N, low)), float(np.quantile(x_N, high))
    centre, spread = float(x_N.mean()), float(x_N.std())
    if prepare["clip"] == "mad":
        centre = float(np.quantile(x_N, 0.5))
        spread = float(np.quantile(np.abs(x_N - centre), 0.5))
    return centre - prepare["k"] * spread, centre + prepare["k"] * spread
