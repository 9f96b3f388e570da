"""Values of the wrong kind for every argument: each is taken for what it is, or refused by an error that names it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eravane import LevelsRegressor
from eravane.core.errors import EravaneError
from eravane.learners.settings import DEFAULTS

RNG = np.random.default_rng(0)
X = RNG.integers(0, 5, (60, 3)).astype(np.int8)
Y = RNG.random(60).astype(np.float32)
SMALL = {"n_estimators": 2, "max_depth": 2, "n_jobs": 1}

ODD: dict[str, Any] = {
    "None": None, "True": True, "negative": -7, "huge": 2**70, "fraction": 0.5, "NaN": float("nan"),
    "infinite": float("inf"), "complex": 1j, "empty text": "", "text": "nonsense", "bytes": b"x", "empty list": [],
    "list": [1, 2], "texts": ["a", "b"], "tuple": (1, 2), "pair of None": (None, None), "mapping": {"a": 1},
    "set": {1}, "array": np.array([1.0, 2.0]), "0-d": np.array(3), "series": pd.Series([1, 2]), "object": object(),
    "class": int, "function": len, "date": pd.Timestamp("2026-11-28"),
}  # fmt: skip


def _refusal(call: Callable[[], Any]) -> str | None:
    """The message of an error that a user can correct; any other error is raised, and None is none at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except EravaneError as error:
            return str(error)
    return None


@pytest.mark.parametrize("name", LevelsRegressor().get_params())
def test_parameters_of_the_wrong_kind(name: str) -> None:
    for odd in ODD.values():
        model = LevelsRegressor(**{**SMALL, name: odd})
        refusal = _refusal(lambda model=model: model.fit(X, Y, eval_set=[(X, Y)]))
        assert refusal is None or name in refusal, (odd, refusal)


FITTED = LevelsRegressor(**SMALL).fit(X, Y)
FILE = ("is missing; name a file", "is a folder")
MAY_SAY = {
    "X": ("X", *FILE),
    "y": ("y:", "y contains", "y to be passed"),
    "xgb_model": ("xgb_model", "is no model"),
    "init_model": ("init_model", "is no model"),
}


@pytest.mark.parametrize("name", [name for name in inspect.signature(LevelsRegressor.fit).parameters if name != "self"])
def test_arguments_of_fit_of_the_wrong_kind(name: str) -> None:
    for odd in ODD.values():
        arguments: dict[str, Any] = {"X": X, "y": Y, "eval_set": [(X, Y)], name: odd}
        refusal = _refusal(lambda arguments=arguments: LevelsRegressor(**SMALL).fit(**arguments))
        allowed = MAY_SAY.get(name, (name,))
        assert refusal is None or any(part in refusal for part in allowed), (odd, refusal)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_parts_of_an_evaluation_set_of_the_wrong_kind(place: int) -> None:
    for odd in ODD.values():
        rows, labels, weights = ([X, Y, None][part] if place != part else odd for part in range(3))
        sets: dict[str, Any] = {"eval_set": [(rows, labels)], "sample_weight_eval_set": [weights]}
        refusal = _refusal(lambda sets=sets: LevelsRegressor(**SMALL).fit(X, Y, **sets))
        assert refusal is None or any(part in refusal for part in ("eval_set[0]", *FILE)), (odd, refusal)


@pytest.mark.parametrize("odd", ODD)
def test_arguments_of_predictions_of_the_wrong_kind(odd: str) -> None:
    for call in (FITTED.predict, FITTED.apply):
        refusal = _refusal(lambda call=call: call(ODD[odd]))
        assert refusal is not None
        assert any(part in refusal for part in MAY_SAY["X"]), refusal
        refusal = _refusal(lambda call=call: call(X, iteration_range=ODD[odd]))
        assert refusal is None or "iteration_range" in refusal


def test_none_is_a_parameters_default() -> None:
    signature = inspect.signature(LevelsRegressor.__init__).parameters
    for name, default in DEFAULTS.items():
        if name in signature:
            assert signature[name].default == default, name
    expected = LevelsRegressor(**SMALL).fit(X, Y).predict(X)
    found = LevelsRegressor(**{**dict.fromkeys(DEFAULTS), **SMALL}).fit(X, Y)
    np.testing.assert_array_equal(found.predict(X), expected)
