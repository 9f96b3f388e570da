"""XGBoost's `hist` in the level grower's place, under the same parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xgboost as xgb

from eravane.core.arrays import Bools, Float32s
from eravane.core.errors import ConfigError, DataError
from eravane.learners.callbacks import callbacks_of
from eravane.learners.earlier import Earlier
from eravane.learners.fitting import Fitted, Labelled, check_labels, missing_value
from eravane.learners.frames import Frame
from eravane.learners.levelinput import infinite_value
from eravane.learners.objectives import ALIASES, Objective
from eravane.learners.settings import seed_of

# LightGBM's and our own parameters, which XGBoost does not know.
OURS = (
    *(
        "strict",
        "num_leaves",
        "min_child_samples",
        "force_col_wise",
        "force_row_wise",
        "subsample_freq",
        "bagging_freq",
    ),
    *("feature_pre_filter", "deterministic", "boosting_type", "device_type", "verbose", "callbacks", "tree_method"),
)


def fit_histogram(
    train: Labelled,
    sets: Sequence[Labelled],
    params: Mapping[str, Any],
    earlier: Earlier | None,
    verbose: bool | int,
) -> Fitted:
    """Grow trees with XGBoost; see `fit_levels`.

    Raises:
        DataError: rows or labels are wrong.
        ConfigError: XGBoost refuses a parameter.
    """
    objective = None if callable(params["objective"]) else Objective.of(params["objective"])
    check_labels(np.atleast_2d(train.labels.T), objective)
    _check_values(train.frame, params.get("missing", np.nan) is None)
    settings = {name: value for name, value in params.items() if name not in OURS and value is not None}
    settings["objective"] = _objective(params["objective"])
    leaves, samples = params.get("num_leaves"), params.get("min_child_samples")
    if params.get("max_depth") is None and leaves and leaves > 0:
        settings["max_depth"] = max(1, int(np.ceil(np.log2(leaves))))
    settings["min_child_weight"] = max(float(params["min_child_weight"]), float(samples or 0))
    settings["random_state"] = seed_of(params.get("random_state"))
    settings["device"] = "cuda" if params.get("device") == "gpu" else params.get("device", "cpu")
    settings |= {"callbacks": callbacks_of(params["callbacks"], params["n_estimators"]) or None}
    model = xgb.XGBRegressor(**{**settings, "tree_method": "hist", "enable_categorical": True})
    label, weight = _known(train.labels, train.weights, "y")
    evaluated = [(one.frame, *_known(one.labels, one.weights, one.name)) for one in sets]
    weights, margins = [w for _, _, w in evaluated], [one.margins for one in sets]
    try:
        model.fit(
            train.frame.data, label, sample_weight=weight, verbose=verbose, base_margin=train.margins,
            xgb_model=None if earlier is None else earlier.booster,
            eval_set=[(other.data, y) for other, y, _ in evaluated] or None,
            sample_weight_eval_set=weights if any(w is not None for w in weights) else None,
            base_margin_eval_set=margins if any(one is not None for one in margins) else None,
        )  # fmt: skip
    except xgb.core.XGBoostError as error:
        message = re.sub(r"^\[.*?\] \S+: ", "", str(error).partition("Stack trace")[0].strip())
        where = "eval_metric" if "metric" in message else "a parameter"
        raise ConfigError(f"XGBoost refuses {where}: {message}") from error
    found = Fitted.of(model.get_booster(), params.get("missing", np.nan), params.get("n_jobs"))
    history = model.evals_result().values() if sets else ()
    return replace(found, history={one.name: dict(values) for one, values in zip(sets, history, strict=True)})


def _objective(objective: Any) -> Any:
    if not callable(objective):
        return ALIASES.get(objective, objective)
    found = Objective.of(objective)
    assert found is not None
    gradients = found.gradients
    assert gradients is not None

    def of(label: object, margin: object, sample_weight: object = None) -> tuple[Any, Any]:
        rows = [np.atleast_2d(np.asarray(part, dtype=np.float32).T) for part in (margin, label)]
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float32)[None]
        gradient_BN, hessian_BN = gradients(rows[0], rows[1], weights)
        return (gradient_BN[0], hessian_BN[0]) if len(gradient_BN) == 1 else (gradient_BN.T, hessian_BN.T)

    return of


def _known(label: Float32s, weight_N: Float32s | None, name: str) -> tuple[Float32s, Float32s | None]:
    """Labels without NaN, and weights that leave those rows out."""
    absent: Bools = np.isnan(label)
    if not absent.any():
        return label, weight_N
    if label.ndim == 2:
        rows = absent.any(axis=1)
        if (absent.all(axis=1) != rows).any():
            row, target = np.argwhere(absent)[0]
            raise DataError(f"{name}: row {row} lacks target {target} alone; XGBoost cannot leave it out, fit it alone")
        absent = np.asarray(rows)
    weight_n = np.ones(len(label), dtype=np.float32) if weight_N is None else weight_N.copy()
    weight_n[absent] = 0.0
    label = label.copy()
    label[absent] = label[~absent].mean(axis=0)
    return label, weight_n


def _check_values(frame: Frame, refuse_missing: bool) -> None:
    """Refuses infinite values, and missing ones where these are not allowed.

    Raises:
        DataError: naming column and row.
    """
    for column in frame.columns():
        first = 0
        for part in column.parts:
            x_N = part.floats()
            if refuse_missing and np.isnan(x_N).any():
                raise missing_value(frame)
            if np.isinf(x_N).any():
                raise infinite_value(column, first + int(np.isinf(x_N).argmax()))
            first += len(x_N)
