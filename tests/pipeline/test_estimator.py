"""The estimator: scikit-learn's own checks, its inputs, its ensemble by hand, and what it may know."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from scipy.stats import norm, rankdata
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from eravane.calendar.splitters import WalkForwardSplit
from eravane.core.config import parse_config
from eravane.core.errors import ConfigError, DataError
from eravane.data.panel import Panel
from eravane.pipeline.estimator import EraGatedRegressor, Grower
from eravane.scoring.by_era import corr_by_era
from eravane.zoo.specs import ModelSpec

ERAS, ROWS, COLUMNS = 48, 40, 12
NAMES = [f"feature_{place}" for place in range(COLUMNS)]
SMALL = {
    "horizon_eras": 4,
    "trees": 8,
    "params": {"max_depth": 2, "eta": 0.3, "colsample_bytree": 1.0},
    "folds": 3,
    "minimum_eras": 2,
    "selection": {"minimum_corr": -1.0},
    "gate": {"warmup": 10, "seeds": 2, "steps": 15, "refit_every": 8},
}


def made(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, a target that follows the first block of columns, and eras 1 to 48."""
    rng = np.random.default_rng(seed)
    x_NC = rng.integers(0, 5, size=(ERAS * ROWS, COLUMNS), dtype=np.int8)
    signal_N = x_NC[:, :3].sum(axis=1) + rng.normal(scale=4.0, size=len(x_NC))
    y_N = np.clip(np.round(2 + (signal_N - 6) / 4), 0, 4) / 4
    return x_NC, y_N, np.repeat(np.arange(1, ERAS + 1), ROWS)


@pytest.fixture(scope="module")
def fitted() -> EraGatedRegressor:
    x_NC, y_N, era_N = made()
    past = era_N <= 40
    return EraGatedRegressor(**SMALL).fit(x_NC[past], y_N[past], eras=era_N[past])


def test_it_passes_the_checks_of_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(EraGatedRegressor(trees=60, horizon_eras=4), on_fail=None)
    assert len(found) > 40
    assert [(check["check_name"], check["exception"]) for check in found if check["status"] == "failed"] == []


def test_it_predicts_unseen_eras_as_ranks(fitted: EraGatedRegressor) -> None:
    x_NC, y_N, era_N = made()
    later = era_N > 48 - 3
    prediction_N = fitted.predict(x_NC[later], eras=era_N[later])
    for era in np.unique(era_N[later]):
        mine_N = prediction_N[era_N[later] == era]
        np.testing.assert_array_equal(mine_N, (rankdata(mine_N) - 0.5) / len(mine_N))
    assert corr_by_era(y_N[later], prediction_N, era_N[later]).mean() > 0.1
    assert fitted.score(x_NC[later], y_N[later], eras=era_N[later]) == pytest.approx(
        corr_by_era(y_N[later], prediction_N, era_N[later]).mean(), abs=1e-15
    )


def test_without_eras_it_is_the_mean_of_the_boosters_in_the_units_of_y(fitted: EraGatedRegressor) -> None:
    import xgboost as xgb

    x_NC, y_N, era_N = made()
    past = era_N <= 40
    raw = []
    for trees in fitted.models_.values():
        places = [int(name.removeprefix("x")) for name in trees.columns]
        booster = xgb.Booster()
        booster.load_model(bytearray(trees.blocks[0]))
        matrix = xgb.DMatrix(x_NC[:, places].astype(np.float32))
        matrix.feature_names = [f"f{place}" for place in range(len(places))]
        raw.append(booster.predict(matrix))
    expected_N = np.mean(raw, axis=0) - 0.5 + y_N[past].mean()
    np.testing.assert_allclose(fitted.predict(x_NC), expected_N, atol=1e-6)
    assert fitted.score(x_NC, y_N) == pytest.approx(r2_score(y_N, expected_N), abs=1e-5)


def test_before_the_gate_has_warmed_up_the_ensemble_is_equal_weight_of_gaussian_ranks() -> None:
    x_NC, y_N, era_N = made()
    model = EraGatedRegressor(**{**SMALL, "gate": {"warmup": 1000}}).fit(x_NC, y_N, eras=era_N)
    future_NC = made(seed=1)[0][:ROWS]
    gaussian = []
    for name in model.models_:
        alone = clone(model)
        alone.fit(x_NC, y_N, eras=era_N)
        alone.weights_ = np.array([float(other == name) for other in model.models_])
        raw_N = alone.predict(future_NC).astype(np.float32)
        gaussian.append(norm.ppf((rankdata(raw_N) - 0.5) / ROWS))
    expected_N = (rankdata(np.round(np.mean(gaussian, axis=0), 9)) - 0.5) / ROWS
    found_N = model.predict(future_NC, eras=np.full(ROWS, 60))
    np.testing.assert_allclose(found_N, expected_N, atol=2 / ROWS)
    assert np.corrcoef(found_N, expected_N)[0, 1] > 0.999


def test_frames_of_every_kind_and_any_row_order_give_the_same() -> None:
    x_NC, y_N, era_N = made()
    frame = pd.DataFrame(x_NC, columns=NAMES)
    expected_N = EraGatedRegressor(**SMALL).fit(frame, y_N, eras=era_N).predict(frame, eras=era_N)
    shuffled_N = np.random.default_rng(5).permutation(len(frame))
    labels = [f"{era:04d}" for era in era_N]
    inputs = {
        "numpy": (x_NC, y_N, era_N),
        "polars": (pl.DataFrame(x_NC, schema=NAMES), pl.Series(y_N), pl.Series(labels)),
        "arrow": (pa.table(frame), pa.array(y_N).to_numpy(), pa.array(labels)),
        "pandas": (frame, pd.Series(y_N), pd.Series(labels)),
    }
    for kind, (x, y, eras) in inputs.items():
        model = EraGatedRegressor(**SMALL).fit(x, y, eras=eras)
        assert (kind == "numpy") != hasattr(model, "feature_names_in_")
        if kind != "numpy":  # seeds of the base models do not depend on column names
            np.testing.assert_array_equal(model.predict(x, eras=eras), expected_N, err_msg=kind)
    within = np.argsort(era_N[shuffled_N], kind="stable")
    model = EraGatedRegressor(**SMALL).fit(frame, y_N, eras=era_N)
    found_N = model.predict(frame.iloc[shuffled_N], eras=era_N[shuffled_N])
    np.testing.assert_array_equal(found_N[within], expected_N[shuffled_N][within])


def test_an_era_is_predicted_alike_whatever_stands_beside_it(fitted: EraGatedRegressor) -> None:
    x_NC, _, era_N = made()
    later = era_N > 45
    together_N = fitted.predict(x_NC[later], eras=era_N[later])
    for era in (48, 46):
        alone_N = fitted.predict(x_NC[era_N == era], eras=era_N[era_N == era])
        np.testing.assert_array_equal(alone_N, together_N[era_N[later] == era])


@pytest.mark.parametrize("label", ["X", "eraX"])
def test_live_rows_are_an_era_after_all_others(fitted: EraGatedRegressor, label: str) -> None:
    """Alone, as a live file has them, and beside history, in any row order."""
    x_NC, _, era_N = made(1)
    live_N, before_N = era_N == ERAS, era_N >= ERAS - 2
    expected_N = fitted.predict(x_NC[live_N], eras=era_N[live_N])
    np.testing.assert_array_equal(fitted.predict(x_NC[live_N], eras=[label] * ROWS), expected_N)
    labels_N = np.array([label if live else f"{era:04d}" for era, live in zip(era_N, live_N, strict=True)])
    mixed_N = np.random.default_rng(0).permutation(np.flatnonzero(before_N))
    found_N = fitted.predict(x_NC[mixed_N], eras=labels_N[mixed_N])
    np.testing.assert_array_equal(
        found_N[labels_N[mixed_N] == label], fitted.predict(x_NC, eras=era_N)[mixed_N][live_N[mixed_N]]
    )
    with pytest.raises(DataError, match="is not a number"):
        clone(fitted).fit(x_NC[before_N], np.ones(before_N.sum()), eras=labels_N[before_N])


def test_models_at_once_are_counted_from_all_cores_below_zero() -> None:
    x_NC, y_N, _ = made()
    plain = EraGatedRegressor(trees=3).fit(x_NC, y_N).predict(x_NC)
    for count in (-1, -2, 2):
        np.testing.assert_array_equal(EraGatedRegressor(trees=3, n_jobs=count).fit(x_NC, y_N).predict(x_NC), plain)
    with pytest.raises(ValueError, match="n_jobs"):
        EraGatedRegressor(trees=3, n_jobs=0).fit(x_NC, y_N)


def test_out_of_fold_predictions_do_not_see_labels_inside_the_purge() -> None:
    x_NC, y_N, era_N = made()
    config = parse_config({"zoo": {name: SMALL[name] for name in ("trees", "params", "folds", "minimum_eras")}})
    columns = tuple(f"x{place}" for place in range(COLUMNS))
    specs = [ModelSpec("columns", "all", "target", 0, columns), ModelSpec("columns", "block", "target", 0, columns[:3])]
    folds = WalkForwardSplit(3, purge=8, minimum=2).folds(era_N)
    changed_N = y_N.copy()
    changed_N[era_N > folds[-1].train_last] = np.random.default_rng(1).permutation(
        changed_N[era_N > folds[-1].train_last]
    )
    leaking_N = y_N.copy()
    leaking_N[era_N == folds[-1].train_last] = 1 - leaking_N[era_N == folds[-1].train_last]
    frame = Panel.of(x_NC, columns, era_N).frame
    found = [
        {era: base for era, base, _ in Grower(frame, labels.astype(np.float32), config, 1).out_of_fold(specs, folds)}
        for labels in (y_N, changed_N, leaking_N)
    ]
    assert folds[-1].predict_first - folds[-1].train_last == 9
    for era in found[0]:
        np.testing.assert_array_equal(found[0][era], found[1][era])
    assert not np.array_equal(found[0][folds[-1].predict_last], found[2][folds[-1].predict_last])


def test_unknown_labels_and_missing_values_are_left_out() -> None:
    x_NC, y_N, era_N = made()
    floats_NC = x_NC.astype(np.float64)
    floats_NC[::7, 1] = np.nan
    known_N = np.where(era_N > 44, np.nan, y_N)
    with_rows = EraGatedRegressor(**SMALL).fit(floats_NC, known_N, eras=era_N)
    prediction_N = with_rows.predict(floats_NC, eras=era_N)
    assert np.isfinite(prediction_N).all()
    unknown_N = era_N > 44
    whole = EraGatedRegressor(**SMALL).fit(x_NC, known_N, eras=era_N)
    without = EraGatedRegressor(**SMALL).fit(x_NC[~unknown_N], y_N[~unknown_N], eras=era_N[~unknown_N])
    np.testing.assert_array_equal(whole.predict(x_NC, eras=era_N), without.predict(x_NC, eras=era_N))


def test_it_survives_pickling_and_prediction_changes_nothing(fitted: EraGatedRegressor) -> None:
    x_NC, _, era_N = made()
    later = era_N > 45
    copy = pickle.loads(pickle.dumps(fitted))
    first_N = fitted.predict(x_NC[later], eras=era_N[later])
    np.testing.assert_array_equal(copy.predict(x_NC[later], eras=era_N[later]), first_N)
    np.testing.assert_array_equal(fitted.predict(x_NC[later], eras=era_N[later]), first_N)


def test_groups_name_columns_or_places_and_models_say_why_they_were_kept() -> None:
    x_NC, y_N, era_N = made()
    frame = pd.DataFrame(x_NC, columns=NAMES)
    groups = {"signal": NAMES[:3], "noise": [3, 4, 5]}
    model = EraGatedRegressor(groups, **{**SMALL, "selection": {"minimum_corr": 0.05, "least": 1}})
    model.fit(frame, y_N, eras=era_N)
    by_group = {verdict.spec.group: verdict for verdict in model.verdicts_}
    assert set(by_group) == {"all", "signal", "noise"}
    assert by_group["noise"].spec.columns == tuple(NAMES[3:6])
    assert by_group["signal"].selected
    assert not by_group["noise"].selected
    assert by_group["noise"].reason.startswith("dropped")


def test_it_is_cross_validated_by_era_in_a_pipeline() -> None:
    x_NC, y_N, era_N = made()
    with sklearn.config_context(enable_metadata_routing=True):
        model = EraGatedRegressor(**SMALL)
        for request in (model.set_fit_request, model.set_predict_request, model.set_score_request):
            request(eras="groups")
        pipeline = make_pipeline(FunctionTransformer(), model)
        found = cross_validate(pipeline, x_NC, y_N, params={"groups": era_N}, cv=WalkForwardSplit(2, chunk=5, purge=8))
    folds = WalkForwardSplit(2, chunk=5, purge=8).folds(era_N)
    by_hand = []
    for fold in folds:
        train_N, test_N = era_N <= fold.train_last, (era_N >= fold.predict_first) & (era_N <= fold.predict_last)
        again = EraGatedRegressor(**SMALL).fit(x_NC[train_N], y_N[train_N], eras=era_N[train_N])
        by_hand.append(corr_by_era(y_N[test_N], again.predict(x_NC[test_N], eras=era_N[test_N]), era_N[test_N]).mean())
    np.testing.assert_allclose(found["test_score"], by_hand, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"gate": {"warmupp": 3}}, ConfigError, "did you mean 'gate.warmup'"),
        ({"trees": 0}, ConfigError, "zoo.trees must be at least 1"),
        ({"groups": {"a": ["nobody"]}}, ConfigError, "group 'a' names 'nobody'"),
        ({"groups": {"a": []}}, ConfigError, "group 'a' has no columns"),
        ({"minimum_eras": 1000}, ConfigError, "1000 training eras"),
        ({"params": {"device": "cuda"}}, ConfigError, "zoo.params.device is set by eravane"),
    ],
)
def test_wrong_parameters_are_named(change: dict[str, object], error: type[Exception], says: str) -> None:
    x_NC, y_N, era_N = made()
    with pytest.raises(error, match=says):
        EraGatedRegressor(**{**SMALL, **change}).fit(x_NC, y_N, eras=era_N)


def test_wrong_eras_are_named(fitted: EraGatedRegressor) -> None:
    x_NC, y_N, era_N = made()
    with pytest.raises(DataError, match="one entry per row"):
        fitted.predict(x_NC, eras=era_N[1:])
    with pytest.raises(DataError, match="fractions or missing"):
        fitted.predict(x_NC, eras=np.where(era_N == 3, np.nan, era_N))
    with pytest.raises(DataError, match="'Y' is not a number"):
        fitted.predict(x_NC, eras=["Y"] * len(x_NC))
    with pytest.raises(ValueError, match="every label in y is missing"):
        EraGatedRegressor().fit(x_NC, np.full(len(y_N), np.nan))
