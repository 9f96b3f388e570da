"""Every argument of `fit` and `predict` that XGBoost's and LightGBM's estimators have, by their real signatures."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from eravane import LevelsRegressor
from eravane.core.errors import ConfigError, DataError
from eravane.learners.settings import NotGrownError

ROWS = 1_200
X = np.random.default_rng(0).integers(0, 5, (ROWS, 6)).astype(np.int8)
Y = (np.round(np.clip(X[:, 0] * X[:, 1] / 16 + np.random.default_rng(1).normal(0, 0.2, ROWS), 0, 1) * 4) / 4).astype(
    "f4"
)
MARGIN = np.random.default_rng(2).normal(size=ROWS).astype(np.float32)
WEIGHT = np.random.default_rng(3).integers(1, 4, ROWS).astype(np.float32)
TRAIN, HELD = slice(0, 800), slice(800, None)
SMALL: dict[str, Any] = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1}
SETS = [(X[HELD], Y[HELD])]
DROPOUT_OF_ANY_TREES = tuple(int(part) for part in xgb.__version__.split(".")[:2]) >= (3, 4)


def _fit(**arguments: Any) -> LevelsRegressor:
    given = {"X": X[TRAIN], "y": Y[TRAIN], **arguments}
    return LevelsRegressor(**SMALL).fit(**given)


def _peer(**arguments: Any) -> xgb.XGBRegressor:
    return xgb.XGBRegressor(**SMALL).fit(X[TRAIN], Y[TRAIN], verbose=False, **arguments)


def _alike(ours: LevelsRegressor, theirs: xgb.XGBRegressor, **predict: Any) -> None:
    np.testing.assert_allclose(ours.predict(X, **predict), theirs.predict(X, **predict), atol=2e-6)


def _scores(ours: LevelsRegressor, theirs: xgb.XGBRegressor) -> None:
    (mine,), (yours,) = (list(model.evals_result().values()) for model in (ours, theirs))
    np.testing.assert_allclose(mine["rmse"], yours["rmse"], atol=1e-6)


def _margins() -> None:
    for ours in (_fit(base_margin=MARGIN[TRAIN]), _fit(init_score=MARGIN[TRAIN].tolist())):
        theirs = _peer(base_margin=MARGIN[TRAIN])
        assert ours.grower_ == "levels"
        _alike(ours, theirs)
        _alike(ours, theirs, base_margin=MARGIN)


def _margins_of_sets() -> None:
    sets = {"base_margin": MARGIN[TRAIN], "base_margin_eval_set": [MARGIN[HELD]]}
    theirs = _peer(eval_set=SETS, **sets)
    other = _fit(eval_set=SETS, init_score=MARGIN[TRAIN], eval_init_score=[MARGIN[HELD]])
    for ours in (_fit(eval_set=SETS, **sets), other):
        _scores(ours, theirs)


def _weights_of_sets() -> None:
    theirs = _peer(eval_set=SETS, sample_weight_eval_set=[WEIGHT[HELD]])
    for name in ("sample_weight_eval_set", "eval_sample_weight"):
        _scores(_fit(eval_set=SETS, **{name: [WEIGHT[HELD]]}), theirs)


def _weights() -> None:
    _alike(_fit(sample_weight=WEIGHT[TRAIN]), _peer(sample_weight=WEIGHT[TRAIN]))


def _earlier_models() -> None:
    first = _peer().get_booster()
    theirs = _peer(xgb_model=first)
    for name in ("xgb_model", "init_model"):
        _alike(_fit(**{name: first}), theirs)
    both = _fit(xgb_model=first, base_margin=MARGIN[TRAIN])
    _alike(both, _peer(xgb_model=first, base_margin=MARGIN[TRAIN]), base_margin=MARGIN)


def _weights_of_features() -> None:
    weight_C = np.array([1.0, 2.0, 0.0, 1.0, 1.0, 3.0])
    params = {**SMALL, "colsample_bytree": 0.5}
    with pytest.warns(UserWarning, match="parameter feature_weights .*XGBoost's hist grows these trees instead"):
        ours = LevelsRegressor(**params).fit(X, Y, feature_weights=weight_C)
    theirs = xgb.XGBRegressor(**params, feature_weights=weight_C).fit(X, Y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)


def _sets() -> None:
    theirs = _peer(eval_set=SETS)
    for arguments in (
        {"eval_set": SETS},
        {"eval_X": X[HELD], "eval_y": Y[HELD]},
        {"eval_X": (X[HELD],), "eval_y": (Y[HELD],)},
    ):
        _scores(_fit(**arguments), theirs)
    for wrong in ({"eval_X": X}, {"eval_y": Y}, {"eval_X": (X, X), "eval_y": (Y,)}):
        with pytest.raises(ConfigError, match="eval_X and eval_y: expected rows and labels"):
            _fit(**wrong)


def _names_of_sets() -> None:
    found = _fit(eval_set=[*SETS, (X[TRAIN], Y[TRAIN])], eval_names=["held", "train"])
    assert list(found.evals_result()) == ["held", "train"]
    with pytest.warns(UserWarning, match="hist"):
        other = LevelsRegressor(**SMALL, colsample_bynode=0.9).fit(X, Y, eval_set=SETS, eval_names=["held"])
    assert list(other.evals_result()) == ["held"]
    for wrong in (["a"], ["a", "a"], "ab", [1, 2]):
        with pytest.raises(ConfigError, match="eval_names"):
            _fit(eval_set=[*SETS, *SETS], eval_names=wrong)


def _metrics() -> None:
    found = _fit(eval_set=SETS, eval_metric="mae").evals_result()["validation_0"]["mae"]
    theirs = xgb.XGBRegressor(**SMALL, eval_metric="mae").fit(X[TRAIN], Y[TRAIN], eval_set=SETS, verbose=False)
    np.testing.assert_allclose(found, theirs.evals_result()["validation_0"]["mae"], atol=1e-6)


def _callbacks() -> None:
    falling = xgb.callback.LearningRateScheduler(lambda turn: 0.3 * 0.9**turn)
    _alike(_fit(callbacks=[falling]), xgb.XGBRegressor(**SMALL, callbacks=[falling]).fit(X[TRAIN], Y[TRAIN]))


def _names_of_features() -> None:
    _alike(_fit(feature_name="auto", categorical_feature="auto"), _peer())
    with pytest.raises(ConfigError, match=r"feature_name: expected 'auto'.*data frame"):
        _fit(feature_name=list("abcdef"))
    with pytest.raises(ConfigError, match=r"categorical_feature: expected 'auto'.*indicator"):
        _fit(categorical_feature=[0])


def _verbose() -> None:
    for verbose in (None, False, True, 4):
        _alike(_fit(verbose=verbose), _peer())


def _rows() -> None:
    _alike(_fit(), _peer())


FIT: dict[str, Callable[[], None]] = {
    "X": _rows, "y": _rows, "sample_weight": _weights, "base_margin": _margins, "init_score": _margins,
    "base_margin_eval_set": _margins_of_sets, "eval_init_score": _margins_of_sets, "eval_set": _sets, "eval_X": _sets,
    "eval_y": _sets, "sample_weight_eval_set": _weights_of_sets, "eval_sample_weight": _weights_of_sets,
    "xgb_model": _earlier_models, "init_model": _earlier_models, "feature_weights": _weights_of_features,
    "eval_names": _names_of_sets, "eval_metric": _metrics, "callbacks": _callbacks, "feature_name": _names_of_features,
    "categorical_feature": _names_of_features, "verbose": _verbose,
}  # fmt: skip


def _margin_of_rows() -> None:
    params = {**SMALL, "objective": "binary:logistic"}
    ours, theirs = (kind(**params).fit(X, Y > 0.5, base_margin=MARGIN) for kind in (LevelsRegressor, xgb.XGBRegressor))
    for predict in ({}, {"base_margin": MARGIN}, {"base_margin": MARGIN, "output_margin": True}):
        np.testing.assert_allclose(ours.predict(X, **predict), theirs.predict(X, **predict), atol=1e-5)
    raw = ours.predict(X, output_margin=True)
    np.testing.assert_array_equal(ours.predict(X, raw_score=True), raw)
    several = LevelsRegressor(**SMALL).fit(X, np.stack([Y, 1 - Y], 1), base_margin=np.stack([MARGIN, Y], 1))
    alone = LevelsRegressor(**SMALL).fit(X, 1 - Y, base_margin=Y)
    found = several.predict(X, base_margin=np.stack([MARGIN, Y], 1))[:, 1]
    np.testing.assert_array_equal(found, alone.predict(X, base_margin=Y))
    for wrong in (MARGIN[:5], "text", np.full(ROWS, np.nan), np.ones((ROWS, 2))):
        with pytest.raises(DataError, match="base_margin"):
            alone.predict(X, base_margin=wrong)
        with pytest.raises(DataError, match="base_margin"):
            LevelsRegressor(**SMALL).fit(X, Y, base_margin=wrong)


def _names_of_columns() -> None:
    frame = pd.DataFrame(X).add_prefix("feature_")
    other = frame.rename(columns={"feature_3": "renamed"})
    ours = LevelsRegressor(**SMALL).fit(frame, Y)
    expected = ours.predict(frame)
    for rows in (other, other.to_numpy(), frame):
        np.testing.assert_array_equal(ours.predict(rows, validate_features=False), expected)
    with pytest.raises(DataError, match="renamed"):
        ours.predict(other)
    with pytest.raises(DataError, match="has 5 features"):
        ours.predict(other.iloc[:, :5], validate_features=False)


def _rounds() -> None:
    ours, theirs = _fit(), _peer()
    for given, same in (({"start_iteration": 2, "num_iteration": 3}, (2, 5)), ({"num_iteration": 4}, (0, 4)),
                        ({"start_iteration": 5}, (5, 8)), ({"num_iteration": -1}, (0, 8)),
                        ({"num_iteration": 99}, (0, 8)), ({"iteration_range": (1, 3)}, (1, 3))):  # fmt: skip
        np.testing.assert_allclose(ours.predict(X, **given), theirs.predict(X, iteration_range=same), atol=1e-6)
    early = LevelsRegressor(**{**SMALL, "n_estimators": 300, "learning_rate": 0.6}).fit(
        X[TRAIN], Y[TRAIN], eval_set=SETS, early_stopping_rounds=3
    )
    rounds = early.get_booster().num_boosted_rounds()
    assert early.best_iteration == rounds - 4 < 290
    assert not np.array_equal(early.predict(X), early.predict(X, num_iteration=0))
    np.testing.assert_array_equal(early.predict(X), early.predict(X, num_iteration=early.best_iteration + 1))
    for wrong in ({"start_iteration": 8}, {"num_iteration": "all"}, {"num_iteration": 2, "iteration_range": (0, 2)}):
        with pytest.raises(ConfigError, match="iteration"):
            ours.predict(X, **wrong)


def _leaves() -> None:
    np.testing.assert_array_equal(_fit().predict(X, pred_leaf=True), _peer().apply(X))
    np.testing.assert_array_equal(_fit().predict(X, pred_leaf=True, num_iteration=3), _peer().apply(X)[:, :3])


def _contributions() -> None:
    ours, theirs = _fit(), _peer()
    found = ours.predict(X, pred_contrib=True)
    np.testing.assert_allclose(found, theirs.get_booster().predict(xgb.DMatrix(X), pred_contribs=True), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), ours.predict(X), atol=1e-5)


PREDICT: dict[str, Callable[[], None]] = {
    "X": _rows, "output_margin": _margin_of_rows, "raw_score": _margin_of_rows, "base_margin": _margin_of_rows,
    "validate_features": _names_of_columns, "iteration_range": _rounds, "start_iteration": _rounds,
    "num_iteration": _rounds, "pred_leaf": _leaves, "pred_contrib": _contributions,
}  # fmt: skip


def _real(method: str) -> set[str]:
    peers: list[Any] = [xgb.XGBRegressor, pytest.importorskip("lightgbm").LGBMRegressor]
    real = (parameter for peer in peers for parameter in inspect.signature(getattr(peer, method)).parameters.values())
    return {one.name for one in real if one.kind != one.VAR_KEYWORD} - {"self"}


def test_no_argument_of_the_peers_is_missed() -> None:
    for method, tested in (("fit", FIT), ("predict", PREDICT)):
        ours = set(inspect.signature(getattr(LevelsRegressor, method)).parameters)
        assert _real(method) - ours == set()
        assert _real(method) - set(tested) == set()


@pytest.mark.parametrize("check", dict.fromkeys([*FIT.values(), *PREDICT.values()]), ids=lambda check: check.__name__)
def test_an_argument_does_what_it_does_in_its_home(check: Callable[[], None]) -> None:
    check()


def test_a_name_and_its_other_name_are_not_given_both() -> None:
    first = _peer().get_booster()
    for both in ({"base_margin": MARGIN[TRAIN], "init_score": MARGIN[TRAIN]}, {"xgb_model": first, "init_model": first},
                 {"eval_set": SETS, "eval_X": X, "eval_y": Y}):  # fmt: skip
        with pytest.raises(ConfigError, match=r"is another name of .*: give one of them"):
            _fit(**both)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_dept": 3}, "parameter max_dept is not one that XGBoost uses; did you mean 'max_depth'"),
        ({"colsample_by_tree": 0.1}, "did you mean 'colsample_bytree'"),
        ({"n_estimator": 3}, "did you mean 'n_estimators'"),
        ({"lerning_rate": 0.1}, "did you mean 'learning_rate'"),
        ({"zzz": 1}, "parameter zzz is not one that XGBoost uses: it is ignored"),
        pytest.param(
            {"rate_drop": 0.3},
            "parameter rate_drop is not one that XGBoost uses",
            marks=pytest.mark.skipif(DROPOUT_OF_ANY_TREES, reason="XGBoost 3.4 takes dart's parameters for any trees"),
        ),
    ],
)
def test_a_misspelt_parameter_is_named_and_ignored(params: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message) as warned:
        found = LevelsRegressor(**SMALL, **params).fit(X, Y)
    assert len(warned) == 1
    assert found.grower_ == "levels"
    np.testing.assert_array_equal(found.predict(X), LevelsRegressor(**SMALL).fit(X, Y).predict(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotGrownError, match=message.partition(":")[0]):
            LevelsRegressor(**SMALL, **params, strict=True).fit(X, Y)


def test_a_parameter_of_xgboost_is_not_ignored() -> None:
    of_this_version = [{"rate_drop": 0.3}] if DROPOUT_OF_ANY_TREES else []
    for params in (
        {"max_cat_threshold": 3}, {"booster": "dart", "rate_drop": 0.3}, {"process_type": "default"}, *of_this_version
    ):  # fmt: skip
        with pytest.warns(UserWarning, match="XGBoost's hist grows these trees instead"):
            assert LevelsRegressor(**SMALL, **params).fit(X, Y).grower_ == "hist"
