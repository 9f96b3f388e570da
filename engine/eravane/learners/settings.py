"""Parameters of the stand-alone level grower: XGBoost's and LightGBM's names, checked one by one."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import xgboost as xgb

from eravane.core.errors import ConfigError, did_you_mean
from eravane.learners.levels import gain_from_weight
from eravane.learners.objectives import Objective
from eravane_kernels.growth import DEEPEST, Rules

# Other names of the same parameters: XGBoost's own and LightGBM's.
SAME = {
    "eta": "learning_rate", "lambda": "reg_lambda", "lambda_l2": "reg_lambda", "alpha": "reg_alpha",
    "lambda_l1": "reg_alpha", "min_split_loss": "gamma", "min_split_gain": "gamma", "min_gain_to_split": "gamma",
    "feature_fraction": "colsample_bytree", "bagging_fraction": "subsample", "seed": "random_state",
    "min_sum_hessian_in_leaf": "min_child_weight", "num_iterations": "n_estimators", "num_boost_round": "n_estimators",
    "num_trees": "n_estimators", "nthread": "n_jobs", "num_threads": "n_jobs", "metric": "eval_metric",
    "early_stopping_round": "early_stopping_rounds", "min_data_in_leaf": "min_child_samples",
}  # fmt: skip
# Parameters that change nothing here, with the values that may be given; None: any.
IDLE: Mapping[str, tuple[Any, ...] | None] = {
    "tree_method": ("hist", "gpu_hist", "auto", "exact", "approx"), "booster": ("gbtree",), "boosting_type": ("gbdt",),
    "grow_policy": ("depthwise",), "max_bin": None, "max_leaves": (0,), "verbosity": None, "verbose": None,
    "enable_categorical": None, "force_col_wise": None, "force_row_wise": None, "importance_type": None,
    "num_parallel_tree": (1,), "colsample_bylevel": (1,), "colsample_bynode": (1,), "subsample_freq": None,
    "bagging_freq": None, "feature_pre_filter": None, "deterministic": None, "device_type": ("cpu",),
    "multi_strategy": ("one_output_per_tree",), "scale_pos_weight": (1,), "max_delta_step": (0,),
    "sampling_method": ("uniform",), "subsample_for_bin": None, "bin_construct_sample_cnt": None,
    "min_data_in_bin": None, "bagging_seed": None, "feature_fraction_seed": None, "validate_parameters": None,
}  # fmt: skip
# What None stands for: `XGBRegressor().get_params()` is full of it.
DEFAULTS: Mapping[str, Any] = {
    "n_estimators": 100, "learning_rate": 0.3, "colsample_bytree": 1.0, "subsample": 1.0, "min_child_weight": 1.0,
    "reg_lambda": 1.0, "reg_alpha": 0.0, "gamma": 0.0, "objective": "reg:squarederror", "importance_type": "gain",
    "callbacks": None, "eval_metric": None, "device": "cpu",
}  # fmt: skip
IMPORTANCES = ("gain", "weight", "cover", "total_gain", "total_cover")
# (least, most) of numbers, whole where both are integers.
WHOLE: Mapping[str, tuple[int, int]] = {"n_estimators": (1, 2**31 - 1), "early_stopping_rounds": (1, 2**31 - 1)}
REAL = ("learning_rate", "min_child_weight", "reg_lambda", "reg_alpha", "gamma")
SHARES = ("colsample_bytree", "subsample")
GROWN = {
    *("max_depth", "objective", "device", "missing", "strict", "random_state", "n_jobs", "num_leaves"),
    *("min_child_samples", "eval_metric", "callbacks", "base_score", *WHOLE, *REAL, *SHARES),
}
"""Parameters of the level grower, by their first names."""


class NotGrownError(ConfigError):
    """A parameter that XGBoost has and the level grower lacks."""


@dataclass(frozen=True)
class Settings:
    """Checked parameters.

    Attributes:
        rules: how a tree is grown.
        objective: what for.
        rounds, chosen_share, row_share, seed, threads, patience: trees a target, shares of columns and rows of a tree,
            seed of the draws, threads (0: one per core), rounds without a better score before growing ends (0: never).
    """

    rules: Rules
    objective: Objective
    rounds: int
    chosen_share: float
    row_share: float
    seed: int
    threads: int
    patience: int


def check(params: Mapping[str, object]) -> dict[str, Any]:
    """Parameters under their first names, of the right type and within their bounds.

    Raises:
        ConfigError: one of them is not.
    """
    found: dict[str, Any] = {}
    for name, value in params.items():
        first = SAME.get(name, name)
        if first not in found or value is not None:
            found[first] = value
    found |= {name: default for name, default in DEFAULTS.items() if found.get(name) is None}
    found["importance_type"] = "weight" if found["importance_type"] == "split" else found["importance_type"]
    if not _among(found["importance_type"], IMPORTANCES):
        listed = ", ".join(IMPORTANCES)
        raise ConfigError(f"importance_type: expected one of {listed}, given {found['importance_type']!r}")
    for name, (least, most) in WHOLE.items():
        if found.get(name) is not None:
            _whole(name, found[name], least, most)
    for name in REAL:
        _real(name, found[name], 0.0, float(np.finfo(np.float32).max))
    for name in SHARES:
        if _real(name, found[name], 0.0, 1.0) == 0.0:
            raise ConfigError(f"{name}: expected a number above 0, at most 1, given {found[name]!r}")
    for name in ("max_depth", "n_jobs", "num_leaves", "min_child_samples"):
        if found.get(name) is not None:
            _whole(name, found[name], -1 if name != "min_child_samples" else 0, 2**31 - 1)
    if not _among(found["device"], ("cpu", "cuda", "gpu")):
        raise ConfigError(f'device: expected "cpu" or "cuda", given {found["device"]!r}')
    missing = found.get("missing", math.nan)
    if missing is not None and (isinstance(missing, bool) or not isinstance(missing, numbers.Real)):
        raise ConfigError(f"missing: expected a number, NaN or None, given {missing!r}")
    if not isinstance(found.get("strict", False), bool | np.bool_):
        raise ConfigError(f"strict: expected True or False, given {found['strict']!r}")
    seed = found.get("random_state")
    if seed is not None and not isinstance(seed, np.random.RandomState | np.random.Generator):
        _whole("random_state", seed, 0, 2**63 - 1)
    return found


def settings_of(params: Mapping[str, Any]) -> Settings:
    """Settings of the level grower from checked parameters.

    Raises:
        NotGrownError: a parameter or its value is one that the grower lacks.
    """
    for name, value in params.items():
        if name in GROWN or value is None:
            continue
        if name not in IDLE:
            raise NotGrownError(f"parameter {name} is not one of the level grower's")
        allowed = IDLE[name]
        if allowed is not None and not _among(value, allowed):
            raise NotGrownError(f"parameter {name}={value!r} is not one of the level grower's")
    objective = Objective.of(params["objective"])
    if objective is None:
        raise NotGrownError(f"objective={params['objective']!r} is not one of the level grower's")
    depth = _depth(params.get("max_depth"), params.get("num_leaves"))
    if depth > DEEPEST:
        asked = "max_depth=0 sets no limit" if params.get("max_depth") == 0 else f"max_depth={depth}"
        raise NotGrownError(f"{asked}: the level grower's trees have at most {DEEPEST} levels")
    rules = Rules(
        max_depth=depth,
        eta=float(params["learning_rate"]),
        reg_lambda=float(params["reg_lambda"]),
        reg_alpha=float(params["reg_alpha"]),
        gamma=float(params["gamma"]),
        min_child_weight=max(float(params["min_child_weight"]), float(params.get("min_child_samples") or 0)),
        gain_from_weight=gain_from_weight(xgb.__version__),
    )
    return Settings(
        rules,
        objective,
        int(params["n_estimators"]),
        float(params["colsample_bytree"]),
        float(params["subsample"]),
        seed_of(params.get("random_state")),
        int(params.get("n_jobs") or 0),
        int(params.get("early_stopping_rounds") or 0),
    )


def without_misspelt(params: dict[str, Any]) -> dict[str, Any]:
    """Checked parameters but for those that nobody knows, which are named in a warning as XGBoost's training does.

    Raises:
        NotGrownError: there is one, and `strict` is set.
    """
    odd = {name: value for name, value in params.items() if value is not None and name not in {*GROWN, *IDLE}}
    for name in _unused(odd, params):
        near = did_you_mean(name, [*GROWN, *SAME, *IDLE, *_of_xgboost()], 0.75)
        fact = f"parameter {name} is not one that XGBoost uses{near}"
        if params.get("strict"):
            raise NotGrownError(fact)
        warnings.warn(f"{fact} It is ignored" if near else f"{fact}: it is ignored", stacklevel=3)
        del params[name]
    return params


def _unused(odd: Mapping[str, object], params: Mapping[str, object]) -> list[str]:
    """Those of the parameters that XGBoost reports as unused; none where it refuses one of them."""
    odd = {name: value for name, value in odd.items() if name not in _of_xgboost()}
    if not odd:
        return []
    asked = {**odd, "booster": params.get("booster") or "gbtree", "objective": params["objective"], "nthread": 1}
    if callable(asked["objective"]):
        del asked["objective"]
    try:
        with warnings.catch_warnings(record=True) as warned, xgb.config_context(verbosity=1):
            warnings.simplefilter("always")
            xgb.train(asked, xgb.DMatrix(np.zeros((2, 1)), np.ones(2)), 1)
    except (xgb.core.XGBoostError, TypeError, ValueError):
        return []
    listed = [str(one.message) for one in warned if "not used" in str(one.message)]
    return [name for name in odd if any(f'"{name}"' in text for text in listed)]


@cache
def _of_xgboost() -> frozenset[str]:
    return frozenset(xgb.XGBRegressor().get_params())


def seed_of(random_state: Any) -> int:
    """A seed from a number, a generator, or None for 0."""
    if random_state is None:
        return 0
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    return int(random_state)


def _depth(max_depth: int | None, num_leaves: int | None) -> int:
    """Levels of a tree; where LightGBM's leaves alone are given, as many as hold these."""
    if max_depth is not None and max_depth > 0:
        return int(max_depth)
    if max_depth == 0:
        return DEEPEST + 1  # XGBoost's word for no limit
    return max(1, math.ceil(math.log2(max(2, num_leaves)))) if num_leaves and num_leaves > 0 else 6


def _among(value: object, allowed: Sequence[object]) -> bool:
    """Whether a text or number is one of these; arrays and the like are not."""
    return isinstance(value, str | numbers.Number) and value in allowed


def _whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral) or not least <= int(value) <= most:
        raise ConfigError(f"{name}: expected a whole number within {least}..{most}, given {value!r}")


def _real(name: str, value: Any, least: float, most: float) -> float:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if not number or not least <= float(value) <= most:
        raise ConfigError(f"{name}: expected a number within {least:g}..{most:g}, given {value!r}")
    return float(value)
