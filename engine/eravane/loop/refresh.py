"""Re-estimates leaf values on new eras: the trees keep their splits, the values of their leaves follow the data.

For the squared error, boosted tree by tree in their order, the best value of a leaf on the new rows is
`-eta * sum(w g) / (sum(w) + lambda)` with `g = margin - label` (Chen and Guestrin 2016, equation 5). A leaf becomes
`keep * old + (1 - keep) * new`, as LightGBM's `refit` does with its decay; a leaf without new rows is unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from eravane.core.errors import ConfigError
from eravane.learners.protocol import INTERCEPT, Stop, check_stop
from eravane.learners.registry import load_booster

SQUARED_ERROR = "reg:squarederror"


def check_refreshable(params: Mapping[str, object]) -> None:
    """Refuse objectives and penalties under which the formula above does not hold.

    Raises:
        ConfigError: naming the parameter.
    """
    if params["objective"] != SQUARED_ERROR:
        raise ConfigError(
            f'loop.update with leaves needs zoo.params.objective "{SQUARED_ERROR}", given {params["objective"]!r}'
        )
    if params.get("booster", "gbtree") != "gbtree":  # dropout weighs its trees
        raise ConfigError(f'loop.update with leaves needs zoo.params.booster "gbtree", given {params["booster"]!r}')
    for name in ("rate_drop", "one_drop", "alpha", "reg_alpha", "max_delta_step", "num_parallel_tree"):
        if params.get(name, 0) not in (0, 1 if name == "num_parallel_tree" else 0):
            raise ConfigError(f"loop.update with leaves does not support zoo.params.{name}; leave it out or use refit")


def refresh(
    blocks: Sequence[bytes],
    matrix: xgb.DMatrix,
    label_N: NDArray[np.float32],
    weight_N: NDArray[np.float32] | None,
    *,
    params: Mapping[str, Any],
    keep: float,
    stop: Stop | None = None,
) -> tuple[bytes, ...]:
    """Re-estimate every leaf of a model on the rows of a matrix.

    Args:
        blocks: UBJ bytes of the model, in order; their outputs add up.
        matrix: the rows' features; a quantile matrix will do. Its labels are not read.
        label_N: float32 [N]; rows with NaN do not count.
        weight_N: float32 [N] or None for equal weights.
        params: the resolved parameters that the trees were grown with (`eta` and `lambda` are read).
        keep: share of the old value that is kept, 0..1.
        stop: asked between trees.

    Returns:
        The blocks with new leaf values; the same bytes where no row has a label.

    Raises:
        TrainingInterruptedError: `stop` was set.
    """
    known = ~np.isnan(label_N)
    if not known.any():
        return tuple(blocks)
    weight = known.astype(np.float64) if weight_N is None else np.where(known, weight_N.astype(np.float64), 0.0)
    target = np.where(known, label_N.astype(np.float64), INTERCEPT)
    rate, shrinkage = float(params.get("learning_rate", params["eta"])), _ridge(params)
    margin = np.full(label_N.size, float(INTERCEPT))
    refreshed: list[bytes] = []
    for block in blocks:
        booster = load_booster(block)
        leaf_NT = booster.predict(matrix, pred_leaf=True).reshape(label_N.size, -1).astype(np.int64)
        model = json.loads(bytes(booster.save_raw("json")))
        trees = model["learner"]["gradient_booster"]["model"]["trees"]
        for leaf_N, tree in zip(leaf_NT.T, trees, strict=True):
            check_stop(stop)
            old = np.array(tree["split_conditions"], dtype=np.float64)
            gradient = np.bincount(leaf_N, weight * (margin - target), minlength=old.size)
            mass = np.bincount(leaf_N, weight, minlength=old.size)
            best = -rate * gradient / (mass + shrinkage + (mass == 0))
            value = np.where(mass > 0, keep * old + (1 - keep) * best, old).astype(np.float32).astype(np.float64)
            tree["split_conditions"] = value.tolist()
            margin += value[leaf_N]
        changed = xgb.Booster({"nthread": 1})
        changed.load_model(bytearray(json.dumps(model).encode()))
        refreshed.append(bytes(changed.save_raw("ubj")))
    return tuple(refreshed)


def _ridge(params: Mapping[str, Any]) -> float:
    return float(params.get("reg_lambda", params.get("lambda", 1.0)))
