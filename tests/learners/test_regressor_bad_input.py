"""What the stand-alone level grower refuses, or leaves to XGBoost, and how it says so."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xgboost as xgb

from eravane import LevelsRegressor
from eravane.core.errors import ConfigError, DataError, EravaneError
from eravane.learners.levelinput import NotLevelsError
from eravane.learners.settings import NotGrownError

ROWS, COLUMNS = 300, 5
X = np.random.default_rng(0).integers(0, 5, (ROWS, COLUMNS)).astype(np.int8)
Y = (X[:, 0] / 4 + 0.1 * np.random.default_rng(1).normal(size=ROWS)).astype(np.float32)
FRAME = pd.DataFrame(X, columns=list("abcde"))
SMALL = {"n_estimators": 5, "max_depth": 3}


def _changed(value: Any, row: int = 7, column: int = 2) -> np.ndarray:
    x_NC = X.astype(np.float64)
    x_NC[row, column] = value
    return x_NC


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_changed(2.5), "column 2 has more than 5 distinct values: .*, and .* at row"),
        (_changed(-1), "column 2 has more than 5 distinct values"),
        (FRAME.assign(c=_changed(0.3)[:, 2]), "column 'c' has more than 5"),
        (pl.DataFrame({"a": X[:, 0], "b": np.arange(ROWS)}), "column 'b' has more than 5"),
        (pa.table({"b": np.arange(ROWS)}), "column 'b' has more than 5 distinct values: 0, 1, 2, 3, 4, and 5 at row 5"),
        (np.random.default_rng(0).normal(size=(ROWS, 2)), "column 0 has more than 5"),
        (np.where(X == 4, 100, X).astype(np.int8) + np.arange(ROWS)[:, None] % 3, "column 0 has more than 5"),
    ],
)  # fmt: skip
def test_too_many_levels_are_left_to_xgboost_or_refused(rows: Any, message: str) -> None:
    with pytest.warns(UserWarning, match=message + ".*strict=True refuses") as warned:
        found = LevelsRegressor(**SMALL).fit(rows, Y)
    assert len([one for one in warned if "distinct" in str(one.message)]) == 1
    assert found.grower_ == "hist"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotLevelsError, match=message):
            LevelsRegressor(**SMALL, strict=True).fit(rows, Y)
    data = rows.to_pandas() if isinstance(rows, pl.DataFrame | pa.Table) else rows
    peer = xgb.XGBRegressor(**SMALL, tree_method="hist").fit(data, Y)
    np.testing.assert_allclose(found.predict(rows), peer.predict(data), atol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"objective": "reg:absoluteerror"}, "objective='reg:absoluteerror'"),
        ({"max_depth": 13}, "max_depth=13"),
        ({"max_depth": 0}, "max_depth=0 sets no limit"),
        ({"max_depth": 0}, "at most 12 levels"),
        ({"colsample_bynode": 0.5}, "parameter colsample_bynode=0.5"),
        ({"grow_policy": "lossguide", "max_leaves": 7}, "parameter grow_policy='lossguide'"),
        ({"monotone_constraints": (1, 0, 0, 0, 0)}, "parameter monotone_constraints"),
        ({"eval_metric": "rmsle"}, "eval_metric='rmsle'"),
    ],
)
def test_what_the_grower_lacks_is_left_to_xgboost_or_refused(params: dict[str, Any], message: str) -> None:
    label_N = np.abs(Y)
    with pytest.warns(UserWarning, match=message + ".*XGBoost's hist grows these trees instead"):
        found = LevelsRegressor(**{**SMALL, **params}).fit(X, label_N, eval_set=[(X, label_N)])
    peer = xgb.XGBRegressor(**{**SMALL, **params}, tree_method="hist").fit(X, label_N)
    np.testing.assert_allclose(found.predict(X), peer.predict(X), atol=1e-6)
    with pytest.raises(NotGrownError, match=message):
        LevelsRegressor(**{**SMALL, **params}, strict=True).fit(X, label_N)


def test_names_of_both_peers_are_understood() -> None:
    expected = LevelsRegressor(
        n_estimators=5, max_depth=3, learning_rate=0.1, colsample_bytree=0.5, min_child_weight=30, strict=True
    ).fit(X, Y)
    for other in (
        {**SMALL, "eta": 0.1, "colsample_bytree": 0.5, "min_child_weight": 30, "tree_method": "hist"},
        {"n_estimators": 5, "num_leaves": 7, "learning_rate": 0.1, "feature_fraction": 0.5, "min_child_samples": 30},
        {**SMALL, "num_leaves": 8, "eta": 0.1, "colsample_bytree": 0.5, "min_data_in_leaf": 30, "verbosity": -1},
    ):  # fmt: skip
        found = LevelsRegressor(**other, strict=True).fit(X, Y)
        np.testing.assert_array_equal(found.predict(X), expected.predict(X))
        assert found.get_params()["learning_rate"] == other.get("learning_rate", 0.3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_estimators": 0}, r"n_estimators: expected a whole number within 1\.\.2147483647, given 0"),
        ({"n_estimators": "many"}, "n_estimators: expected a whole number"),
        ({"n_estimators": 2.5}, "n_estimators"),
        ({"max_depth": "six"}, "max_depth: expected a whole number"),
        ({"max_depth": True}, "max_depth"),
        ({"learning_rate": -0.1}, r"learning_rate: expected a number within 0\.\..*, given -0.1"),
        ({"learning_rate": 1e39}, r"learning_rate: expected a number within 0\.\.3.4"),
        ({"learning_rate": np.nan}, "learning_rate"),
        ({"colsample_bytree": 0.0}, "colsample_bytree: expected a number above 0"),
        ({"colsample_bytree": 1.5}, r"colsample_bytree: expected a number within 0\.\.1"),
        ({"subsample": "half"}, "subsample"),
        ({"min_child_weight": [1]}, "min_child_weight"),
        ({"reg_lambda": -1}, "reg_lambda"),
        ({"reg_alpha": np.inf}, "reg_alpha"),
        ({"gamma": "x"}, "gamma"),
        ({"objective": 3}, "objective is a name or a function"),
        ({"random_state": "seed"}, "random_state"),
        ({"random_state": -4}, "random_state"),
        ({"n_jobs": 1.5}, "n_jobs"),
        ({"early_stopping_rounds": -1}, "early_stopping_rounds"),
        ({"early_stopping_rounds": 3}, "at least 1 set in eval_set"),
        ({"eval_metric": 4}, "eval_metric is a name, a function or a list"),
        ({"missing": "none"}, "missing: expected a number"),
        ({"base_score": "mean"}, "base_score"),
        ({"base_score": 2.0, "objective": "binary:logistic"}, "base_score"),
        ({"num_leaves": "31"}, "num_leaves"),
        ({"min_child_samples": -3}, "min_child_samples"),
        ({"device": "tpu"}, "device: expected"),
        ({"strict": "yes"}, "strict: expected True or False"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LevelsRegressor(**{**SMALL, **params}).fit(X, (Y > 0.5).astype(np.float32))


def _label(value: float) -> np.ndarray:
    label_N = Y.copy()
    label_N[11] = value
    return label_N


@pytest.mark.parametrize(
    ("rows", "label", "fit", "message"),
    [
        (_changed(np.inf), Y, {}, "infinity.*column 2, row 7"),
        (_changed(1e300), Y, {}, "infinity.*column 2, row 7"),
        (FRAME.assign(c=_changed(-np.inf)[:, 2]), Y, {}, "column 'c', row 7"),
        (FRAME.assign(c="text"), Y, {}, "column 'c' has dtype"),
        (pa.table({"a": X[:, 0], "b": pa.array(["x"] * ROWS)}), Y, {}, "column 'b' has dtype string"),
        (pd.concat([FRAME, FRAME], axis=1), Y, {}, "two columns have the name 'a'"),
        (X, _label(np.inf), {}, "y contains infinity.*row 11"),
        (X, np.full(ROWS, np.nan), {}, "NaN in every row"),
        (X, Y[:-1], {}, r"inconsistent numbers of samples: \[300, 299\]"),
        (X, np.array(["a"] * ROWS), {}, "y: expected numbers"),
        (X, np.zeros((ROWS, 2, 2)), {}, "3 axes|dim 3"),
        (X[:0], Y[:0], {}, r"0 sample\(s\)"),
        (FRAME[:0], Y[:0], {}, r"0 sample\(s\)"),
        (X[:, :0], Y, {}, r"0 feature\(s\)"),
        (FRAME[[]], Y, {}, r"0 feature\(s\)"),
        ("nowhere.parquet", "target", {}, "nowhere.parquet is missing"),
        (X, Y, {"sample_weight": -np.ones(ROWS)}, "sample_weight: .* weights of 0 or more, given -1.0 at row 0"),
        (X, Y, {"sample_weight": _label(np.nan)}, "sample_weight.*row 11"),
        (X, Y, {"sample_weight": np.ones(3)}, r"sample_weight.shape == \(3,\), expected \(300,\)"),
        (X, Y, {"sample_weight": np.zeros(ROWS)}, "zero"),
        (X, Y, {"sample_weight": ["a"] * ROWS}, "sample_weight: expected numbers"),
        (FRAME, Y, {"eval_set": [(FRAME[list("edcba")], Y)]}, r"eval_set\[0\]: column 0 is 'e', in training .* 'a'"),
        (FRAME, Y, {"eval_set": [(FRAME.rename(columns={"c": "z"}), Y)]}, r"(?s)eval_set\[0\].*unseen at fit time.*z"),
        (FRAME, Y, {"eval_set": [(FRAME[["a"]], Y)]}, r"(?s)eval_set\[0\].*b"),
        (X, Y, {"eval_set": [(X[:, :3], Y)]}, "3 features"),
        (X, Y, {"eval_set": (X, Y, X)}, "eval_set: expected a list of pairs"),
        (X, Y, {"eval_set": 5}, "eval_set: expected a list of pairs"),
        (X, Y, {"eval_set": [(X, Y[:5])]}, "inconsistent numbers"),
        (X, Y, {"eval_set": [(X, np.stack([Y, Y], 1))]}, r"eval_set\[0\]: its labels have 2 targets"),
        (X, Y, {"eval_set": [(X, Y)], "sample_weight_eval_set": []}, "_eval_set: expected a list of 1 entries"),
        (X, Y, {"xgb_model": 5}, "xgb_model: expected a booster"),
        (X, Y, {"xgb_model": "nowhere.json"}, "nowhere.json' is no model"),
        (X, Y, {"verbose": "loud"}, "verbose: expected"),
    ],
)  # fmt: skip
def test_wrong_rows_and_labels_are_named(rows: Any, label: Any, fit: dict[str, Any], message: str) -> None:
    with pytest.raises(EravaneError, match=message):
        LevelsRegressor(**SMALL).fit(rows, label, **fit)


def test_missing_values_need_leave() -> None:
    with pytest.raises(DataError, match="NaN: column 2, row 7; missing=None refuses it"):
        LevelsRegressor(**SMALL, missing=None).fit(_changed(np.nan), Y)
    found = LevelsRegressor(**SMALL).fit(_changed(np.nan), Y)
    np.testing.assert_allclose(
        found.predict(_changed(np.nan)),
        xgb.XGBRegressor(**SMALL).fit(_changed(np.nan), Y).predict(_changed(np.nan)),
        atol=1e-6,
    )
    all_gone = np.full((ROWS, 2), np.nan)
    all_gone[:, 0] = X[:, 0]
    assert np.isfinite(LevelsRegressor(**SMALL).fit(all_gone, Y).predict(all_gone)).all()


def test_a_constant_target_gives_that_constant() -> None:
    for value in (0.0, 0.25, -3.0):
        found = LevelsRegressor(**SMALL).fit(X, np.full(ROWS, value))
        np.testing.assert_allclose(found.predict(X), value, atol=1e-7)
    constant = LevelsRegressor(**SMALL).fit(np.full((ROWS, 2), 3), Y)
    np.testing.assert_allclose(constant.predict(np.full((ROWS, 2), 3)), Y.mean(), atol=1e-6)


def test_one_column_and_one_row() -> None:
    found = LevelsRegressor(**SMALL).fit(X[:, :1], Y)
    np.testing.assert_allclose(
        found.predict(X[:, :1]), xgb.XGBRegressor(**SMALL).fit(X[:, :1], Y).predict(X[:, :1]), atol=1e-6
    )
    assert LevelsRegressor(**SMALL).fit(X[:1], Y[:1]).predict(X[:1]) == pytest.approx(Y[:1])


def test_more_than_two_to_the_thirty_first_cells() -> None:
    """Columns that share their memory, so that few bytes stand for many cells."""
    rows, width = 2**16, 2**15 + 1
    one_N = np.random.default_rng(3).integers(0, 5, rows).astype(np.int8)
    many_NC = np.lib.stride_tricks.as_strided(one_N, (rows, width), (1, 0))
    assert many_NC.size > 2**31
    from eravane.learners.frames import frame_of
    from eravane.learners.levelinput import learn_levels

    table = learn_levels(frame_of(many_NC), np.nan)
    assert table.columns.width == width
    label_N = (one_N / 4).astype(np.float32)
    model = LevelsRegressor(n_estimators=2, max_depth=2, colsample_bytree=1e-4, learning_rate=1.0, reg_lambda=0.0)
    found = model.fit(many_NC, label_N)
    expected = model.__class__(n_estimators=2, max_depth=2, learning_rate=1.0, reg_lambda=0.0).fit(
        one_N[:, None], label_N
    )
    np.testing.assert_allclose(found.predict(many_NC), expected.predict(one_N[:, None]), atol=1e-6)


def test_labels_of_a_logistic_objective_are_probabilities() -> None:
    with pytest.raises(DataError, match=r"takes labels within 0\.\.1, given 3\.0 at row 11"):
        LevelsRegressor(**SMALL, objective="binary:logistic").fit(X, np.where(_label(3.0) == 3.0, 3.0, 0.5))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y, p: p - y, "returns gradients and Hessians"),
        (lambda y, p: (p[:3], p), r"gradients of shape \(300,\), given \(3,\)"),
        (lambda y, p: (p - y, -np.ones_like(y)), "Hessians of 0 or more"),
        (lambda y, p: (np.full_like(y, np.nan), np.ones_like(y)), "finite gradients"),
    ],
)
def test_objectives_that_return_nonsense_are_named(function: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LevelsRegressor(**SMALL, objective=function).fit(X, Y)


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    if _gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EravaneError, match=r"(?i)gpu|cuda"):
        LevelsRegressor(**SMALL, device="cuda").fit(X, Y)


def _gpu() -> bool:
    from eravane.backend import why_no_gpu

    return why_no_gpu() is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X": np.ma.masked_equal(X, 2)}, "X: a masked array; fill"),
        ({"y": np.ma.masked_less(Y, 0.1)}, "y: a masked array; fill"),
        ({"eval_set": [(np.ma.masked_equal(X, 2), Y)]}, "a masked array; fill"),
        ({"sample_weight": np.ma.ones(ROWS)}, "sample_weight: a masked array; fill"),
        ({"sample_weight": Y + 1j}, "sample_weight: expected numbers, given complex64"),
        ({"sample_weight": np.zeros(ROWS, dtype="M8[s]")}, r"sample_weight: expected numbers, given datetime64\[s\]"),
        ({"sample_weight": pa.array([None, 1.0] * (ROWS // 2))}, "sample_weight: .*given nan at row 0"),
        ({"base_margin": Y + 1j}, "base_margin: expected numbers, given complex64"),
        (
            {"base_margin": pa.array([1.0, None] * (ROWS // 2))},
            "base_margin: expected finite numbers, given nan at row 1",
        ),
    ],
)
def test_masked_and_complex_numbers_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LevelsRegressor(**SMALL).fit(**{"X": X, "y": Y, **given})


def test_arrow_labels_with_nulls_are_unknown() -> None:
    label_N = np.where(np.arange(ROWS) % 7, Y, np.nan)
    with pytest.warns(UserWarning, match="43 of 300 rows have no label"):
        of_arrow, of_numpy = (
            LevelsRegressor(**SMALL).fit(X, one) for one in (pa.array(label_N, from_pandas=True), label_N)
        )
    np.testing.assert_array_equal(of_arrow.predict(X), of_numpy.predict(X))
