"""Objectives and metrics of the stand-alone estimators: gradients, intercepts, what is predicted, what is measured."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eravane.core.arrays import Float32s
from eravane.core.errors import ConfigError

Gradients = Callable[[Float32s, Float32s, Float32s | None], tuple[Float32s, Float32s]]
Metric = Callable[[Float32s, Float32s, Float32s | None], float]

SQUARED, LOGISTIC = "reg:squarederror", ("binary:logistic", "reg:logistic")
ALIASES = {
    **dict.fromkeys(("squared_error", "regression", "regression_l2", "l2", "mse"), SQUARED),
    **dict.fromkeys(("binary", "logistic"), LOGISTIC[0]),
}
LEAST_HESSIAN = np.float32(1e-16)
# Rows at a time, so that what is in between takes no memory that grows with the rows.
BLOCK = 65_536


@dataclass(frozen=True)
class Objective:
    """Objective of the trees.

    Attributes:
        name: XGBoost's.
        gradients: of margins, labels and weights, each [B, N]; None for squared error, which the kernels know.
        metric: what is measured where no metric is named.
    """

    name: str
    gradients: Gradients | None
    metric: str

    @classmethod
    def of(cls, objective: object) -> Objective | None:
        """The objective of this name or function; None where only XGBoost has it.

        Raises:
            ConfigError: it is neither text nor a function.
        """
        if callable(objective):
            return cls(SQUARED, _custom(objective), "rmse")
        if not isinstance(objective, str):
            raise ConfigError(f"objective is a name or a function of labels and predictions, given {objective!r}")
        name = ALIASES.get(objective, objective)
        if name == SQUARED:
            return cls(name, None, "rmse")
        return cls(name, logistic, "rmse" if name == "reg:logistic" else "logloss") if name in LOGISTIC else None

    @property
    def probabilities(self) -> bool:
        """Whether predictions are probabilities."""
        return self.name in LOGISTIC

    def intercept(self, label_N: Float32s, weight_N: Float32s | None) -> np.float32:
        """The prediction before the first tree, from the known labels: their mean; .5 for a function."""
        if self.gradients is not None and not self.probabilities:
            return np.float32(0.5)
        absent = np.isnan(label_N)
        if absent.any():
            label_N, weight_N = label_N[~absent], None if weight_N is None else weight_N[~absent]
        if weight_N is None:
            mean = np.float32(label_N.astype(np.float64).mean())
        else:
            total = weight_N.astype(np.float64).sum()
            if not total > 0:
                return np.float32(0.5)
            mean = np.float32(np.multiply(label_N, weight_N, dtype=np.float64).sum() / total)
        return np.clip(mean, np.float32(1e-6), np.float32(1 - 1e-6)) if self.probabilities else mean

    def margin(self, intercept: float | np.float32) -> np.float32:
        """An intercept as XGBoost adds it to trees."""
        if not self.probabilities:
            return np.float32(intercept)
        return np.float32(-np.log(np.float32(1) / np.float32(intercept) - np.float32(1)))

    def predicted(self, margin: Float32s) -> Float32s:
        """Predictions from margins."""
        return _sigmoid(margin) if self.probabilities else margin


def logistic(margin_BN: Float32s, label_BN: Float32s, weight_BN: Float32s | None) -> tuple[Float32s, Float32s]:
    """Gradients and Hessians of the logistic loss, as XGBoost computes them."""
    gradient_BN, hessian_BN = (np.empty(margin_BN.shape, dtype=np.float32) for _ in range(2))
    for first in range(0, margin_BN.shape[1], BLOCK):
        rows = np.s_[:, first : first + BLOCK]
        chance_BN, weight = _sigmoid(margin_BN[rows]), 1 if weight_BN is None else weight_BN[rows]
        gradient_BN[rows] = (chance_BN - label_BN[rows]) * weight
        hessian_BN[rows] = np.maximum(chance_BN * (1 - chance_BN), LEAST_HESSIAN) * weight
    return gradient_BN, hessian_BN


def _sigmoid(margin: Float32s) -> Float32s:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-margin)), dtype=np.float32)


def weighing(function: Callable[..., object], what: str) -> Callable[[Any, Any, Any], Any]:
    """A function of labels, predictions and weights from one that may not take weights.

    Weights go to the name `sample_weight`, as XGBoost gives them where there are some, or to a third place, as LightGBM
    gives them.

    Raises:
        ConfigError: it takes no two arguments; `what` it is for is named.
    """
    try:
        known: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    except (TypeError, ValueError):
        known = {}
    placed = [one for one in known.values() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    few = known and len(placed) < 2 and not any(one.kind == one.VAR_POSITIONAL for one in known.values())
    if few or isinstance(function, type):
        raise ConfigError(f"{what}: expected a function of labels and predictions, given {function!r}")

    def of(label: object, predicted: object, weights: object) -> Any:
        if "sample_weight" in known:
            return function(label, predicted, **({} if weights is None else {"sample_weight": weights}))
        needed = len(placed) >= 3 and (weights is not None or placed[2].default is inspect.Parameter.empty)
        return function(label, predicted, weights) if needed else function(label, predicted)

    of.weighs = "sample_weight" in known or len(placed) >= 3  # type: ignore[attr-defined]
    return of


def _custom(function: Callable[..., object]) -> Gradients:
    """A function of labels and predictions, and perhaps of weights, each [N] or for several targets [N, K]."""
    ask = weighing(function, "objective")

    def gradients(margin_BN: Float32s, label_BN: Float32s, weight_BN: Float32s | None) -> tuple[Float32s, Float32s]:
        alone = len(margin_BN) == 1
        labels, margins = (label_BN[0], margin_BN[0]) if alone else (label_BN.T, margin_BN.T)
        shape = margins.shape
        found = ask(labels, margins, None if weight_BN is None else weight_BN[0])
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise ConfigError(f"objective returns gradients and Hessians, given {type(found).__name__}")
        parts = list(found)
        del found
        for place in range(2):
            try:  # copies, one by one: trees overwrite them, and the function may keep its own
                parts[place] = np.array(parts[place], dtype=np.float32)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"objective returns gradients and Hessians, given {parts[place]!r}") from error
        for name, part in zip(("gradients", "Hessians"), parts, strict=True):
            if part.shape != shape:
                raise ConfigError(f"objective returns {name} of shape {shape}, given {part.shape}")
            for first in range(0, len(part), BLOCK):
                block = part[first : first + BLOCK]
                bad = ~np.isfinite(block) | ((block < 0) & (name == "Hessians"))
                bad &= ~np.isnan(labels[first : first + BLOCK])
                if bad.any():
                    row = first + int(np.argwhere(bad)[0][0])
                    expected = f"objective returns finite {name}, Hessians of 0 or more"
                    raise ConfigError(f"{expected}; given {part[row]} at {row}")
        gradient_BN, hessian_BN = (np.ascontiguousarray(np.atleast_2d(part.T)) for part in parts)
        if weight_BN is not None and not ask.weighs:  # type: ignore[attr-defined]
            gradient_BN, hessian_BN = gradient_BN * weight_BN, hessian_BN * weight_BN
        return gradient_BN, hessian_BN

    return gradients


def _mean(losses: Float32s, weights: Float32s | None) -> float:
    return float(np.average(losses, weights=weights))


def _logloss(label: Float32s, predicted: Float32s, weights: Float32s | None) -> float:
    chance = np.clip(predicted.astype(np.float64), 1e-16, 1 - 1e-16)
    return _mean(-(label * np.log(chance) + (1 - label) * np.log1p(-chance)), weights)


def _auc(label: Float32s, predicted: Float32s, weights: Float32s | None) -> float:
    """Labels between 0 and 1 are as much of a positive row, and the rest of a negative one; NaN of one class alone."""
    from sklearn.metrics import roc_auc_score

    weight = np.ones(len(label)) if weights is None else weights
    both = np.concatenate([weight * label, weight * (1 - label)])
    if not (both >= 0).all():
        raise ConfigError("eval_metric: auc takes labels within 0..1")
    if not (both[: len(label)].any() and both[len(label) :].any()):
        return float("nan")
    positive = np.repeat([1, 0], len(label))
    return float(roc_auc_score(positive, np.concatenate([predicted, predicted]), sample_weight=both))


METRICS: Mapping[str, Metric] = {
    "rmse": lambda y, p, w: float(np.sqrt(_mean((y - p) ** 2, w))),
    "mse": lambda y, p, w: _mean((y - p) ** 2, w),
    "l2": lambda y, p, w: _mean((y - p) ** 2, w),
    "mae": lambda y, p, w: _mean(np.abs(y - p), w),
    "l1": lambda y, p, w: _mean(np.abs(y - p), w),
    "logloss": _logloss,
    "binary_logloss": _logloss,
    "error": lambda y, p, w: _mean((p > 0.5) != (y > 0.5), w),
    "auc": _auc,
}
HIGHER = ("auc",)


@dataclass(frozen=True)
class Measure:
    """A metric with its name; `of` gives a value of labels, predictions and weights, and whether more is better."""

    name: str
    of: Callable[[Float32s, Float32s, Float32s | None], tuple[float, bool]]


def measures(eval_metric: object, default: str) -> list[Measure] | None:
    """Metrics by name or function, in order; None where one of them is XGBoost's alone.

    A function takes labels and predictions and returns a number that is to fall, or, as LightGBM's do, a name, a number
    and whether it is to rise.

    Raises:
        ConfigError: an entry is neither text nor a function.
    """
    named = default if eval_metric is None else eval_metric
    entries = (named or [default]) if isinstance(named, list | tuple) else [named]
    found: list[Measure] = []
    for entry in entries:
        if callable(entry):
            found.append(Measure(getattr(entry, "__name__", type(entry).__name__), _by_function(entry)))
        elif not isinstance(entry, str):
            raise ConfigError(f"eval_metric is a name, a function or a list of these, given {entry!r}")
        elif entry in METRICS:
            found.append(Measure(entry, _by_name(entry)))
        else:
            return None
    return found


def _by_name(name: str) -> Callable[..., tuple[float, bool]]:
    metric, higher = METRICS[name], name in HIGHER

    def of(label: Float32s, predicted: Float32s, weights: Float32s | None) -> tuple[float, bool]:
        known = ~np.isnan(label)  # of several targets at once
        weights = (
            None if weights is None else np.broadcast_to(weights.reshape(-1, *[1] * (label.ndim - 1)), label.shape)
        )
        return metric(label[known], predicted[known], None if weights is None else weights[known]), higher

    return of


def _by_function(function: Callable[..., object]) -> Callable[..., tuple[float, bool]]:
    ask, name = weighing(function, "eval_metric"), getattr(function, "__name__", type(function).__name__)

    def of(label: Float32s, predicted: Float32s, weights: Float32s | None) -> tuple[float, bool]:
        known = ~np.isnan(label.reshape(len(label), -1)).any(axis=1)
        found = ask(label[known], predicted[known], None if weights is None else weights[known])
        value, higher = (found[1], bool(found[2])) if isinstance(found, tuple) and len(found) == 3 else (found, False)
        try:
            return float(value), higher
        except (TypeError, ValueError) as error:
            expected = "a number, or a name, a number and whether more of it is better"
            raise ConfigError(f"eval_metric: {name} returns {expected}, given {found!r}") from error

    return of
