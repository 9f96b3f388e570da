"""What scripts for XGBoost and LightGBM do beside fitting: the same happens after the import was changed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from sklearn.exceptions import NotFittedError

from eravane import LevelsRegressor
from eravane.core.errors import ConfigError, DataError

ROWS = 3_000
X = np.random.default_rng(0).integers(0, 5, (ROWS, 8)).astype(np.int8)
Y = np.clip((X[:, 0] - 2.0) * (X[:, 1] - 2.0) / 16 + 0.5 + 0.1 * np.random.default_rng(1).normal(size=ROWS), 0, 1)
Y = (np.round(Y * 4) / 4).astype(np.float32)
TRAIN, HELD = slice(0, 2_000), slice(2_000, None)
SETS = {"eval_set": [(X[HELD], Y[HELD])]}
SMALL: dict[str, Any] = {"n_estimators": 10, "max_depth": 4, "n_jobs": 1}
LONG: dict[str, Any] = {**SMALL, "n_estimators": 200, "learning_rate": 0.5}


def _same(ours: LevelsRegressor, theirs: xgb.XGBRegressor) -> None:
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)
    assert ours.best_iteration == theirs.best_iteration
    assert ours.best_score == pytest.approx(theirs.best_score, abs=1e-6)
    assert ours.get_booster().num_boosted_rounds() == theirs.get_booster().num_boosted_rounds()


@pytest.mark.parametrize("logistic", [False, True])
def test_early_stopping_counts_the_rounds_of_an_earlier_model(logistic: bool) -> None:
    params = {**LONG, "early_stopping_rounds": 3, "objective": "reg:logistic" if logistic else "reg:squarederror"}
    first = xgb.XGBRegressor(**{**SMALL, "objective": params["objective"]}).fit(X[TRAIN], Y[TRAIN])
    ours = LevelsRegressor(**params).fit(X[TRAIN], Y[TRAIN], xgb_model=first, **SETS)
    theirs = xgb.XGBRegressor(**params)
    theirs.fit(X[TRAIN], Y[TRAIN], xgb_model=first.get_booster(), verbose=False, **SETS)
    assert ours.best_iteration >= 10
    _same(ours, theirs)


@pytest.mark.parametrize("save_best", [False, True])
@pytest.mark.parametrize("earlier", [False, True])
def test_xgboosts_early_stopping_as_a_callback(save_best: bool, earlier: bool) -> None:
    first = xgb.XGBRegressor(**SMALL).fit(X[TRAIN], Y[TRAIN]).get_booster() if earlier else None
    models: list[Any] = []
    for kind in (LevelsRegressor, xgb.XGBRegressor):
        stopping = xgb.callback.EarlyStopping(rounds=3, save_best=save_best)
        model = kind(**LONG, callbacks=[stopping])
        models.append(model.fit(X[TRAIN], Y[TRAIN], xgb_model=first, verbose=False, **SETS))
    _same(*models)


def test_lightgbms_callbacks() -> None:
    lgb = pytest.importorskip("lightgbm")
    expected = LevelsRegressor(**LONG, early_stopping_rounds=3).fit(X[TRAIN], Y[TRAIN], **SETS)
    history: dict[str, Any] = {}
    callbacks = [lgb.log_evaluation(0), lgb.record_evaluation(history), lgb.early_stopping(3, verbose=False)]
    found = LevelsRegressor(**LONG).fit(X[TRAIN], Y[TRAIN], callbacks=callbacks, **SETS)
    assert found.best_iteration == expected.best_iteration
    assert found.best_score == expected.best_score
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))
    assert history["validation_0"]["rmse"] == expected.evals_result()["validation_0"]["rmse"]
    falling = [0.5 * 0.8**turn for turn in range(10)]
    ours = LevelsRegressor(**SMALL).fit(X, Y, callbacks=[lgb.reset_parameter(learning_rate=falling)])
    later = xgb.callback.LearningRateScheduler([*falling[1:], 1.0])  # XGBoost changes the rate after a round
    theirs = xgb.XGBRegressor(**SMALL, learning_rate=falling[0], callbacks=[later]).fit(X, Y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)
    # XGBoost's hist, too, is asked by LightGBM's rules.
    with pytest.warns(UserWarning, match="max_cat_threshold"):
        other = LevelsRegressor(**LONG, max_cat_threshold=3).fit(
            X[TRAIN], Y[TRAIN], callbacks=[lgb.early_stopping(3, verbose=False)], **SETS
        )
    assert other.grower_ == "hist"
    assert other.best_iteration == expected.best_iteration


def test_a_pair_is_a_list_of_one() -> None:
    alone = LevelsRegressor(**SMALL).fit(X[TRAIN], Y[TRAIN], eval_set=(X[HELD], Y[HELD]))
    assert alone.evals_result() == LevelsRegressor(**SMALL).fit(X[TRAIN], Y[TRAIN], **SETS).evals_result()


def test_parameters_of_fitted_peers_are_understood() -> None:
    lgb = pytest.importorskip("lightgbm")
    plain = LevelsRegressor(**SMALL, strict=True).fit(X, Y)
    found = LevelsRegressor(**xgb.XGBRegressor(**SMALL).get_params(), strict=True).fit(X, Y)
    np.testing.assert_array_equal(found.predict(X), plain.predict(X))
    given = lgb.LGBMRegressor(n_estimators=10, max_depth=4).get_params()
    expected = LevelsRegressor(**SMALL, learning_rate=0.1, reg_lambda=0.0, min_child_weight=20, strict=True)
    np.testing.assert_array_equal(
        LevelsRegressor(**given, strict=True).fit(X, Y).predict(X), expected.fit(X, Y).predict(X)
    )


@pytest.mark.parametrize("objective", ["reg:squarederror", "binary:logistic"])
def test_models_are_loaded(tmp_path: Path, objective: str) -> None:
    frame, label_N = pd.DataFrame(X).add_prefix("feature_"), (Y > 0.5).astype(int)
    theirs = xgb.XGBRegressor(**SMALL, objective=objective).fit(frame, label_N)
    theirs.save_model(tmp_path / "model.ubj")
    ours = LevelsRegressor()
    ours.load_model(tmp_path / "model.ubj")
    np.testing.assert_array_equal(ours.predict(frame), theirs.predict(frame).astype(np.float64))
    np.testing.assert_array_equal(ours.apply(frame), theirs.apply(frame))
    assert list(ours.feature_names_in_) == list(frame)
    with pytest.raises(DataError, match="in training it was 'feature_0'"):
        ours.predict(frame[frame.columns[::-1]])
    with pytest.raises(ConfigError, match=r"model\.txt' is no model"):
        ours.load_model(tmp_path / "model.txt")


@pytest.mark.parametrize("kind", ["gain", "weight", "cover", "total_gain", "total_cover"])
def test_importances_are_xgboosts(kind: str) -> None:
    ours, theirs = (
        one(**SMALL, importance_type=kind).fit(X, Y).feature_importances_ for one in (LevelsRegressor, xgb.XGBRegressor)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    if kind == "weight":
        split = LevelsRegressor(**SMALL, importance_type="split").fit(X, Y)
        np.testing.assert_array_equal(split.feature_importances_, ours)


def test_ranges_of_rounds() -> None:
    ours, theirs = LevelsRegressor(**SMALL).fit(X, Y), xgb.XGBRegressor(**SMALL).fit(X, Y)
    for rounds in (None, (0, 0), (0, 3), (3, 7), (3, 3), (2, 0), (0, 10), np.array([1, 2])):
        found, expected = (model.predict(X, iteration_range=rounds) for model in (ours, theirs))
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=str(rounds))
    np.testing.assert_array_equal(ours.apply(X, iteration_range=(4, 7)), ours.apply(X)[:, 4:7])
    for wrong in ((5, 2), (0, 11), (-1, 3), (1,), 5, "ab", (0.5, 2), (0, 1, 2)):
        for call in (ours.predict, ours.apply):
            with pytest.raises(ConfigError, match="iteration_range: expected two rounds"):
                call(X, iteration_range=wrong)


def test_functions_get_weights_as_their_peers_give_them() -> None:
    weight_N = np.random.default_rng(2).random(ROWS).astype(np.float32)
    weighted = {"sample_weight": weight_N[TRAIN], "sample_weight_eval_set": [weight_N[HELD]]}

    def mean(label_N: Any, predicted_N: Any, sample_weight: Any = None) -> float:
        return float(np.average((label_N - predicted_N) ** 2, weights=sample_weight))

    def squared(label_N: Any, predicted_N: Any, *, sample_weight: Any = None) -> Any:
        scale = np.ones_like(label_N) if sample_weight is None else sample_weight
        return (predicted_N - label_N) * scale, scale

    params: dict[str, Any] = {**SMALL, "eval_metric": mean, "objective": squared}
    ours = LevelsRegressor(**params).fit(X[TRAIN], Y[TRAIN], **SETS, **weighted)
    theirs = xgb.XGBRegressor(**params).fit(X[TRAIN], Y[TRAIN], **SETS, **weighted, verbose=False)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)
    np.testing.assert_allclose(*(m.evals_result()["validation_0"]["mean"] for m in (ours, theirs)), rtol=1e-4)

    def of_lightgbm(label_N: Any, predicted_N: Any, weights: Any) -> tuple[str, float, bool]:
        return "own", mean(label_N, predicted_N, weights), False

    def gradients(label_N: Any, predicted_N: Any, weights: Any) -> Any:
        return squared(label_N, predicted_N, sample_weight=weights)

    for fit in (weighted, {}):
        places = LevelsRegressor(**{**params, "eval_metric": of_lightgbm, "objective": gradients})
        names = LevelsRegressor(**params)
        places, names = (model.fit(X[TRAIN], Y[TRAIN], **SETS, **fit) for model in (places, names))
        np.testing.assert_array_equal(places.predict(X), names.predict(X))
        assert places.evals_result()["validation_0"]["of_lightgbm"] == names.evals_result()["validation_0"]["mean"]


def test_auc_of_labels_between_the_classes() -> None:
    params: dict[str, Any] = {**SMALL, "eval_metric": "auc"}
    weight_N = np.random.default_rng(2).random(ROWS).astype(np.float32)[HELD]
    for extra in ({}, {"sample_weight_eval_set": [weight_N]}):
        ours = LevelsRegressor(**params).fit(X[TRAIN], Y[TRAIN], **SETS, **extra)
        theirs = xgb.XGBRegressor(**params).fit(X[TRAIN], Y[TRAIN], **SETS, **extra, verbose=False)
        np.testing.assert_allclose(*(m.evals_result()["validation_0"]["auc"] for m in (ours, theirs)), atol=1e-6)
    one_class = LevelsRegressor(**params).fit(X, Y, eval_set=[(X, np.zeros(ROWS))])
    assert np.isnan(one_class.evals_result()["validation_0"]["auc"]).all()


def test_a_score_that_is_nan_at_first_is_not_the_best() -> None:
    values = iter([np.nan, 0.5, 0.3, 0.4, 0.45, 0.5, 0.6])
    model = LevelsRegressor(**SMALL, early_stopping_rounds=3, eval_metric=lambda label_N, predicted_N: next(values))
    assert model.fit(X, Y, **SETS).best_iteration == 2


def _classifier() -> Any:
    return xgb.XGBClassifier(n_estimators=2).fit(X, (Y * 4).astype(int))


@pytest.mark.parametrize(
    ("earlier", "message"),
    [
        (lambda: xgb.XGBRegressor(n_estimators=2, booster="gblinear").fit(X, Y), "expected trees, given gblinear"),
        (lambda: xgb.XGBRegressor(**SMALL).fit(X[:, :5], Y), "it has 5 features, these rows have 8"),
        (lambda: xgb.XGBRegressor(**SMALL).fit(X, np.stack([Y, Y], 1)), "it has 2 targets, these rows have 1"),
        (_classifier, "a classifier of 5 classes"),
        (xgb.XGBRegressor, "XGBRegressor was not fitted"),
        (LevelsRegressor, "LevelsRegressor was not fitted"),
        (lambda: b"model", "given bytes"),
    ],
)  # fmt: skip
def test_models_that_nothing_goes_on_from(earlier: Any, message: str) -> None:
    with pytest.raises(ConfigError, match="xgb_model: .*" + message):
        LevelsRegressor(**SMALL).fit(X, Y, xgb_model=earlier())


def test_names_of_an_earlier_models_features() -> None:
    frame = pd.DataFrame(X).add_prefix("feature_")
    first = LevelsRegressor(**SMALL).fit(frame, Y)
    with pytest.raises(ConfigError, match="xgb_model: its feature 3 is 'feature_3', that of these rows is 'other'"):
        LevelsRegressor(**SMALL).fit(frame.rename(columns={"feature_3": "other"}), Y, xgb_model=first)


@pytest.mark.parametrize("params", [{"booster": "dart", "rate_drop": 0.5}, {"objective": "binary:logistic"}])
def test_other_models_are_gone_on_from_by_xgboost(params: dict[str, Any], tmp_path: Path) -> None:
    first = xgb.XGBRegressor(**SMALL, **params).fit(X, (Y > 0.5).astype(int))
    with pytest.warns(UserWarning, match="xgb_model is .*XGBoost's hist grows these trees instead"):
        ours = LevelsRegressor(**SMALL).fit(X, Y, xgb_model=first)
    # From a file, since a booster in memory also hands on its rate of dropout.
    first.save_model(tmp_path / "first.ubj")
    theirs = xgb.XGBRegressor(**SMALL).fit(X, Y, xgb_model=str(tmp_path / "first.ubj"))
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)


def test_a_fit_that_fails_leaves_no_model() -> None:
    model = LevelsRegressor(**SMALL).fit(X, Y)
    with pytest.raises(DataError, match="NaN in every row"):
        model.fit(X[:, :3], np.full(ROWS, np.nan))
    with pytest.raises(NotFittedError):
        model.predict(X)
    again = LevelsRegressor(**SMALL).fit(X, Y)
    assert again.fit(X, Y, xgb_model=again).get_booster().num_boosted_rounds() == 20


def test_a_rate_that_leaves_float32() -> None:
    with pytest.raises(ConfigError, match="learning_rate: outputs grew beyond float32 in round 1"):
        LevelsRegressor(**SMALL, learning_rate=1e30).fit(X, Y)


def test_labels_of_every_kind() -> None:
    expected = LevelsRegressor(**SMALL).fit(X[5:], Y[5:]).predict(X)
    holes = pd.Series(Y, dtype="Float32")
    holes[:5] = pd.NA
    several = pd.DataFrame({"a": holes, "b": Y}, dtype="Float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for labels in (holes, holes.astype(object), holes.to_frame(), [None] * 5 + Y[5:].tolist()):
            np.testing.assert_array_equal(LevelsRegressor(**SMALL).fit(X, labels).predict(X), expected)
        np.testing.assert_array_equal(LevelsRegressor(**SMALL).fit(X, several).predict(X)[:, 0], expected)
    for wrong in (pd.Series(pd.date_range("2026-01-01", periods=ROWS)), Y.astype(str), Y + 0j):
        with pytest.raises(DataError, match="y: "):
            LevelsRegressor(**SMALL).fit(X, wrong)


def test_columns_of_files(tmp_path: Path) -> None:
    """A feature that is the target is none of the features; a file with further ones is predicted from the same."""
    frame = pd.DataFrame(X).add_prefix("feature_").assign(era="0001", target=Y)
    path, more = tmp_path / "train.parquet", tmp_path / "live.parquet"
    frame.to_parquet(path)
    frame.assign(feature_more=np.arange(ROWS))[["feature_more", *frame]].to_parquet(more)
    ours = LevelsRegressor(**SMALL).fit(path, "feature_0")
    names = [f"feature_{place}" for place in range(1, 8)]
    assert list(ours.feature_names_in_) == names
    np.testing.assert_array_equal(ours.predict(more), ours.predict(frame[names]))
    for rows, label, message in (
        (path, "nothing", "has no column 'nothing'"),
        (path, "era", "column 'era' is .*must be numbers"),
        (frame, "target", "'target' names a column of a parquet file, X is a DataFrame"),
    ):
        with pytest.raises(DataError, match=message):
            LevelsRegressor(**SMALL).fit(rows, label)
    frame.drop(columns="feature_3").to_parquet(more)
    with pytest.raises(DataError, match=r"live\.parquet has no column 'feature_3'"):
        ours.predict(more)
