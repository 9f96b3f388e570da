"""The stand-alone level grower beside XGBRegressor: the same trees from every input, and all that hangs on them."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
import xgboost as xgb
from sklearn.base import clone
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

import eravane
from eravane import LevelsRegressor
from eravane.data.ingest import ingest
from eravane.synth import SynthConfig, synthesise

ROWS, COLUMNS = 2_000, 9
NAMES = [f"feature_{place}" for place in range(COLUMNS)]
SMALL = {"n_estimators": 12, "max_depth": 4, "n_jobs": 1}


def _rows(seed: int = 0) -> np.ndarray:
    x_NC = np.random.default_rng(seed).integers(0, 5, (ROWS, COLUMNS)).astype(np.int8)
    x_NC[:, 2] = np.where(x_NC[:, 2] == 1, 2, x_NC[:, 2])  # a level that does not occur
    return x_NC


def _labels(x_NC: np.ndarray, seed: int = 1) -> np.ndarray:
    """Five values, as Numerai's targets have: sums of them are exact."""
    noise_N = np.random.default_rng(seed).normal(size=len(x_NC))
    signal_N = (x_NC[:, 0] - 2.0) * (x_NC[:, 1] - 2.0) + x_NC[:, 2] + noise_N
    return (np.digitize(signal_N, [0.0, 1.5, 3.0, 5.0]) / 4).astype(np.float32)


X, Y = _rows(), _labels(_rows())


def _peer(**params: Any) -> xgb.XGBRegressor:
    return xgb.XGBRegressor(**{**SMALL, **params})


def _same(ours: LevelsRegressor, theirs: xgb.XGBRegressor, rows: Any, other: Any = None) -> None:
    assert ours.grower_ == "levels"
    other = rows if other is None else other
    np.testing.assert_allclose(ours.predict(rows), theirs.predict(other), atol=2e-7)
    mine, yours = (model.get_booster().trees_to_dataframe() for model in (ours, theirs))
    pd.testing.assert_frame_equal(mine, yours, check_exact=False, rtol=1e-4, atol=1e-6)


def _with_nulls(values: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(3).random(values.shape) < 0.1, np.nan, values.astype(np.float32))


FRAME = pd.DataFrame(np.asfortranarray(X), columns=NAMES)  # as readers of parquet make them: column by column
INPUTS: dict[str, tuple[Any, Any]] = {  # what we are given, and what XGBoost is
    "C order": (X, X),
    "F order": (np.asfortranarray(X), X),
    "a slice": (np.repeat(X, 2, axis=0)[::2], X),
    "uint8": (X.astype(np.uint8), X),
    "int64 from 3": (X.astype(np.int64) + 3, X.astype(np.int64) + 3),
    "float64": (X.astype(np.float64), X.astype(np.float64)),
    "quarters": (X / np.float32(4), X / np.float32(4)),
    "negative levels": (X - 2, X - 2),
    "bool": (X > 2, X > 2),
    "NaN": (_with_nulls(X), _with_nulls(X)),
    "pandas int8": (FRAME, FRAME),
    "pandas mixed": (
        FRAME.astype({NAMES[0]: "float32", NAMES[1]: "Int8", NAMES[3]: "int64", NAMES[4]: "boolean"}, errors="ignore"),
        None,
    ),
    "pandas quarters": (FRAME / 4, FRAME / 4),
    "pandas Int8 with NA": (
        FRAME.astype("Int8").mask(_with_nulls(X) != X),
        None,
    ),
    "pandas categories of numbers": (FRAME.astype({NAMES[0]: "category"}), FRAME),
    "pandas categories of text": (
        FRAME.assign(**{NAMES[1]: pd.Categorical.from_codes(X[:, 1], list("edcba"))}),
        FRAME,
    ),
    "pandas Arrow": (FRAME.astype("int8[pyarrow]"), FRAME),
    "polars": (pl.from_pandas(FRAME), FRAME),
    "polars UInt8": (pl.from_pandas(FRAME).cast(pl.UInt8), FRAME),
    "polars with nulls": (
        pl.from_pandas(FRAME).with_columns(pl.when(pl.col(NAMES[0]) != 4).then(pl.col(NAMES[0]))),
        None,
    ),
    "Arrow": (pa.Table.from_pandas(FRAME), FRAME),
    "Arrow chunks": (pa.concat_tables([pa.Table.from_pandas(part) for part in (FRAME[:300], FRAME[300:])]), FRAME),
    "Arrow batch": (pa.RecordBatch.from_pandas(FRAME), FRAME),
}  # fmt: skip


@pytest.mark.parametrize("kind", INPUTS)
def test_every_input_gives_the_trees_of_xgboost(kind: str) -> None:
    rows, other = INPUTS[kind]
    other = rows if other is None else other
    ours, theirs = LevelsRegressor(**SMALL).fit(rows, Y), _peer().fit(other, Y)
    _same(ours, theirs, rows, other)
    if isinstance(rows, np.ndarray) and "NaN" not in kind:  # the type of a column is in the model, too
        assert ours.get_booster().save_raw("ubj") == theirs.get_booster().save_raw("ubj")


@pytest.mark.parametrize(
    "params",
    [
        {"max_depth": 1},
        {"max_depth": 9, "min_child_weight": 3},
        {"reg_lambda": 3.0, "reg_alpha": 0.5, "gamma": 0.1},
        {"base_score": 0.25, "learning_rate": 0.05},
    ],
)
def test_parameters_mean_what_they_mean_to_xgboost(params: dict[str, Any]) -> None:
    _same(LevelsRegressor(**{**SMALL, **params}).fit(X, Y), _peer(**params).fit(X, Y), X)


def test_columns_are_used_where_they_lie() -> None:
    from eravane.learners.frames import frame_of, plain
    from eravane.learners.levelinput import learn_levels

    for kind in ("F order", "pandas int8", "polars", "Arrow", "Arrow chunks", "uint8"):
        rows = np.asfortranarray(INPUTS[kind][0]) if kind == "uint8" else INPUTS[kind][0]
        table = learn_levels(frame_of(plain(rows)), np.nan)
        written = [owner for owner in table.columns.owner if isinstance(owner, np.ndarray) and owner.ndim == 1]
        assert not written, kind


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("of", [np.asfortranarray, pd.DataFrame, pl.from_numpy])
def test_fitting_holds_the_rows_and_24_bytes_a_row(of: Any, weighted: bool) -> None:
    """What grows with the rows, from two sizes: labels, output, gradient and place of each, and with weights theirs."""
    peaks = []
    for rows in (2_000, 100_000, 300_000):  # the first compiles and imports
        rng = np.random.default_rng(rows)
        x_NC, label_N = of(np.asfortranarray(rng.integers(0, 5, (rows, 3)).astype(np.int8))), rng.random(rows)
        weight_N = rng.random(rows) if weighted else None
        model = LevelsRegressor(**SMALL, colsample_bytree=0.7, subsample=0.8)
        tracemalloc.start()
        try:
            model.fit(x_NC, label_N, sample_weight=weight_N)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert 10 < (peaks[2] - peaks[1]) / 200_000 <= 24


def _mean(label: Any, predicted: Any) -> tuple[Any, Any]:
    return predicted - label, np.ones_like(predicted)


@pytest.mark.parametrize(
    ("objective", "targets", "weighted"),
    [
        ("reg:squarederror", 2, False),
        ("binary:logistic", 1, False),
        ("binary:logistic", 1, True),
        ("binary:logistic", 2, False),
        (_mean, 1, False),
    ],
)
def test_other_objectives_and_several_targets_hold_24_bytes_a_row_and_target(
    objective: Any, targets: int, weighted: bool
) -> None:
    peaks = []
    for rows in (2_000, 100_000, 300_000):  # the first compiles and imports
        rng = np.random.default_rng(rows)
        x_NC, label_NK = np.asfortranarray(rng.integers(0, 5, (rows, 3)).astype(np.int8)), rng.random((rows, targets))
        model = LevelsRegressor(**SMALL, objective=objective, subsample=0.8)
        tracemalloc.start()
        try:
            model.fit(x_NC, label_NK, sample_weight=rng.random(rows).astype(np.float32) if weighted else None)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert 10 < (peaks[2] - peaks[1]) / 200_000 / targets <= 24


def test_an_objective_keeps_the_arrays_that_it_returns() -> None:
    kept = np.ones(ROWS, dtype=np.float32), np.empty(ROWS, dtype=np.float32)

    def caching(label_N: Any, predicted_N: Any) -> tuple[Any, Any]:
        return np.subtract(predicted_N, label_N, out=kept[1]), kept[0]

    label_N = np.where(np.arange(ROWS) == 3, np.nan, Y)
    with pytest.warns(UserWarning, match="1 of .* rows have no label"):
        ours, fresh = (LevelsRegressor(**SMALL, objective=one).fit(X, label_N) for one in (caching, _mean))
    np.testing.assert_array_equal(ours.predict(X), fresh.predict(X))
    np.testing.assert_array_equal(kept[0], 1.0)


def test_weights_threads_and_samples() -> None:
    weight_N = np.random.default_rng(2).integers(0, 4, ROWS).astype(np.float64)
    ours = LevelsRegressor(**SMALL).fit(X, Y, sample_weight=weight_N)
    _same(ours, _peer().fit(X, Y, sample_weight=weight_N), X)
    sampled = {"colsample_bytree": 0.5, "subsample": 0.7, "random_state": 5}
    alone, both = (LevelsRegressor(**{**SMALL, **sampled, "n_jobs": jobs}).fit(X, Y) for jobs in (1, 2))
    np.testing.assert_array_equal(alone.predict(X), both.predict(X))
    other = LevelsRegressor(**{**SMALL, **sampled, "random_state": 6}).fit(X, Y)
    assert not np.array_equal(other.predict(X), alone.predict(X))
    used = alone.get_booster().trees_to_dataframe().query("Feature != 'Leaf'").groupby("Tree")["Feature"].nunique()
    assert used.max() <= COLUMNS // 2


def test_several_targets_grow_together_as_each_would_alone() -> None:
    label_NK = np.stack([Y, _labels(X, 7), 1 - Y], axis=1)
    sampled = {**SMALL, "colsample_bytree": 0.5}
    ours = LevelsRegressor(**sampled).fit(X, label_NK)
    for target in range(3):
        np.testing.assert_array_equal(
            ours.predict(X)[:, target], LevelsRegressor(**sampled).fit(X, label_NK[:, target]).predict(X)
        )
    whole = LevelsRegressor(**SMALL).fit(X, label_NK)
    theirs = _peer().fit(X, label_NK)
    np.testing.assert_allclose(whole.predict(X), theirs.predict(X), atol=1e-6)
    np.testing.assert_array_equal(whole.get_booster().inplace_predict(X), whole.predict(X).astype(np.float32))


def test_rows_without_a_label_are_left_out() -> None:
    label_NK = np.stack([Y, _labels(X, 7)], axis=1)
    label_NK[::7, 1] = np.nan
    known = ~np.isnan(label_NK[:, 1])
    with pytest.warns(UserWarning, match="0, 286 of 2,000 rows have no label"):
        ours = LevelsRegressor(**SMALL).fit(X, label_NK)
    np.testing.assert_array_equal(
        ours.predict(X)[:, 1], LevelsRegressor(**SMALL).fit(X[known], label_NK[known, 1]).predict(X)
    )


def test_logistic_is_xgboosts() -> None:
    label_N = (Y > 0.5).astype(int)
    ours = LevelsRegressor(**SMALL, objective="binary:logistic").fit(X, label_N)
    theirs = _peer(objective="binary:logistic").fit(X, label_N)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-5)
    np.testing.assert_allclose(ours.predict(X), ours.get_booster().inplace_predict(X), atol=1e-6)
    np.testing.assert_allclose(ours.predict(X, output_margin=True), theirs.predict(X, output_margin=True), atol=1e-4)


def test_an_objective_of_ones_own() -> None:
    def squared(label_N: np.ndarray, predicted_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return predicted_N - label_N, np.ones_like(label_N)

    def huber(label_N: np.ndarray, predicted_N: np.ndarray, sample_weight: Any = None) -> tuple[np.ndarray, np.ndarray]:
        scale = 1 if sample_weight is None else sample_weight
        return np.clip(predicted_N - label_N, -0.3, 0.3) * scale, np.ones_like(label_N) * scale

    weight_N = np.random.default_rng(1).random(ROWS)
    _same(LevelsRegressor(**SMALL, objective=squared).fit(X, Y), _peer(objective=squared).fit(X, Y), X)
    ours = LevelsRegressor(**SMALL, objective=huber).fit(X, Y, sample_weight=weight_N)
    theirs = _peer(objective=huber).fit(X, Y, sample_weight=weight_N)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-5)


def test_sets_are_evaluated_and_stop_training() -> None:
    train, held = slice(0, 1500), slice(1500, None)
    weight_N = np.random.default_rng(4).random(500)
    sets = {"eval_set": [(X[train], Y[train]), (X[held], Y[held])], "sample_weight_eval_set": [None, weight_N]}
    many = {**SMALL, "n_estimators": 400, "early_stopping_rounds": 4, "eval_metric": ["mae", "rmse"]}
    ours, theirs = LevelsRegressor(**many), xgb.XGBRegressor(**many)
    ours.fit(X[train], Y[train], **sets)
    theirs.fit(
        X[train], Y[train], eval_set=sets["eval_set"], sample_weight_eval_set=[np.ones(1500), weight_N], verbose=False
    )
    assert ours.best_iteration == theirs.best_iteration
    assert ours.best_score == pytest.approx(theirs.best_score, abs=1e-6)
    for name, metrics in theirs.evals_result().items():
        for metric, values in metrics.items():
            np.testing.assert_allclose(ours.evals_result()[name][metric], values, atol=1e-6)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)
    np.testing.assert_allclose(
        ours.predict(X, iteration_range=(0, 3)), theirs.predict(X, iteration_range=(0, 3)), atol=1e-6
    )
    assert len(ours.evals_result()["validation_0"]["mae"]) < 400

    def unlike(label_N: np.ndarray, predicted_N: np.ndarray) -> tuple[str, float, bool]:
        return "unlike", float(np.corrcoef(label_N, predicted_N)[0, 1]), True

    rising = LevelsRegressor(**{**many, "eval_metric": unlike}).fit(X[train], Y[train], **sets)
    values = rising.evals_result()["validation_1"]["unlike"]
    assert rising.best_iteration == int(np.argmax(values))


def test_callbacks_see_a_booster_and_set_the_rate() -> None:
    sets = {"eval_set": [(X[1500:], Y[1500:])]}
    falling = xgb.callback.LearningRateScheduler(lambda turn: 0.3 * 0.9**turn)
    ours = LevelsRegressor(**SMALL, callbacks=[falling]).fit(X[:1500], Y[:1500], **sets)
    theirs = _peer(callbacks=[falling]).fit(X[:1500], Y[:1500], **sets, verbose=False)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)

    class Seen(xgb.callback.TrainingCallback):
        def __init__(self) -> None:
            self.rounds = list[int]()
            self.first = list[float]()

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            self.rounds.append(model.num_boosted_rounds())
            self.first.append(float(model.inplace_predict(X[:1])[0]))
            assert len(evals_log["validation_0"]["rmse"]) == epoch + 1
            return epoch == 4

    seen = Seen()
    ended = LevelsRegressor(**SMALL).fit(X[:1500], Y[:1500], callbacks=[seen], **sets)
    assert seen.rounds == [1, 2, 3, 4, 5]
    assert ended.get_booster().num_boosted_rounds() == 5
    for turn, value in enumerate(seen.first):
        assert ended.predict(X[:1], iteration_range=(0, turn + 1))[0] == value


def test_growing_goes_on_from_any_model(tmp_path: Path) -> None:
    first, theirs = LevelsRegressor(**SMALL).fit(X, Y), _peer().fit(X, Y)
    first.save_model(tmp_path / "model.json")
    expected = _peer().fit(X, Y, xgb_model=theirs.get_booster())
    for start in (first, theirs, first.get_booster(), tmp_path / "model.json", str(tmp_path / "model.json")):
        found = LevelsRegressor(**SMALL).fit(X, Y, xgb_model=start, eval_set=[(X, Y)])
        _same(found, expected, X)
        np.testing.assert_allclose(found.predict(X), expected.predict(X), atol=1e-6)
        assert found.evals_result()["validation_0"]["rmse"][-1] == pytest.approx(
            np.sqrt(np.mean((found.predict(X) - Y) ** 2)), abs=1e-6
        )


def test_growing_on_draws_other_columns_than_before() -> None:
    sampled = {**SMALL, "colsample_bytree": 0.4, "subsample": 0.6, "base_score": 0.5}
    whole = LevelsRegressor(**sampled).fit(X, Y)
    first = LevelsRegressor(**{**sampled, "n_estimators": 5}).fit(X, Y)
    both = LevelsRegressor(**{**sampled, "n_estimators": 7}).fit(X, Y, xgb_model=first)
    trees = [model.get_booster().trees_to_dataframe() for model in (whole, both)]
    pd.testing.assert_frame_equal(*trees)


def test_what_else_a_model_gives() -> None:
    ours, theirs = LevelsRegressor(**SMALL).fit(FRAME, Y), _peer().fit(FRAME, Y)
    np.testing.assert_allclose(ours.feature_importances_, theirs.feature_importances_, atol=1e-6)
    np.testing.assert_array_equal(ours.apply(FRAME), theirs.apply(FRAME))
    shares = ours.get_booster().predict(xgb.DMatrix(FRAME), pred_contribs=True)
    np.testing.assert_allclose(shares.sum(axis=1), ours.predict(FRAME), atol=1e-5)
    assert list(ours.feature_names_in_) == NAMES
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.predict(FRAME), ours.predict(FRAME))
    assert clone(ours).get_params() == ours.get_params()


def test_unseen_values_go_where_xgboost_sends_them() -> None:
    ours, theirs = LevelsRegressor(**SMALL).fit(X / 4.0, Y), _peer().fit(X / 4.0, Y)
    odd = np.random.default_rng(9).normal(0.5, 0.6, (300, COLUMNS))
    odd[::9, 0] = np.nan
    np.testing.assert_array_equal(ours.predict(odd), theirs.predict(odd))
    holes = _with_nulls(X)
    ours, theirs = LevelsRegressor(**SMALL, missing=-1).fit(np.nan_to_num(holes, nan=-1.0), Y), _peer().fit(holes, Y)
    np.testing.assert_allclose(ours.predict(np.nan_to_num(holes, nan=-1.0)), theirs.predict(holes), atol=1e-6)
    np.testing.assert_allclose(ours.predict(holes), theirs.predict(holes), atol=1e-6)


def test_files_and_stores(tmp_path: Path) -> None:
    data = synthesise(tmp_path / "data", SynthConfig(eras=30, rows=60, features=10, groups=2, seed=5))
    train = data / "train.parquet"
    whole = pd.read_parquet(train)
    features = [name for name in whole if name.startswith("feature")]
    target = "target_ender_20"
    known = whole.dropna(subset=[target])
    expected = LevelsRegressor(**SMALL).fit(known[features], known[target])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        by_path = LevelsRegressor(**SMALL).fit(str(train), target)
    np.testing.assert_array_equal(by_path.predict(train), expected.predict(whole[features]))
    two = LevelsRegressor(**SMALL).fit([train, train], target)
    assert two.get_booster().num_features() == len(features)
    store = ingest(data, tmp_path / "store")
    eras = store.index
    window = store.window(eras.first, eras.last)
    label_N = store.target(target, eras.first, eras.last)
    from_store = LevelsRegressor(**SMALL).fit(window, np.nan_to_num(label_N, nan=0.5))
    assert from_store.predict(window).shape == (eras.rows,)


def test_scikit_learn_accepts_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(LevelsRegressor(n_estimators=10), on_fail=None, on_skip=None)
    assert [found["check_name"] for found in results if found["status"] == "failed"] == []
    assert sum(found["status"] == "passed" for found in results) > 50


def test_searches_pipelines_and_routed_weights() -> None:
    search = GridSearchCV(LevelsRegressor(**SMALL), {"max_depth": [1, 4], "colsample_bytree": [0.5, 1.0]}, cv=2)
    assert search.fit(X, Y).best_params_["max_depth"] == 4
    weight_N = np.random.default_rng(2).random(ROWS)
    with sklearn.config_context(enable_metadata_routing=True, transform_output="pandas"):
        model = LevelsRegressor(**SMALL).set_fit_request(sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(feature_names_out="one-to-one"), model)
        pipeline.fit(FRAME, Y, sample_weight=weight_N)
        expected = LevelsRegressor(**SMALL).fit(FRAME, Y, sample_weight=weight_N)
        np.testing.assert_array_equal(pipeline.predict(FRAME), expected.predict(FRAME))
    assert get_scorer("r2")(expected, FRAME, Y) > 0.1


def test_a_loop_of_trials_clones_and_sets_what_it_likes() -> None:
    """As a study of Optuna uses an estimator."""

    def tried(depth: int, share: float, rate: float) -> float:
        model = clone(LevelsRegressor(**SMALL)).set_params(max_depth=depth, colsample_bytree=share, learning_rate=rate)
        model.fit(FRAME[:1500], Y[:1500], eval_set=[(FRAME[1500:], Y[1500:])], early_stopping_rounds=5)
        return float(model.best_score)

    scores = {depth: tried(depth, 1.0, 0.3) for depth in (1, 4)}
    assert scores[4] < scores[1]


def test_progress_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    LevelsRegressor(**SMALL).fit(X, Y, eval_set=[(X, Y)])
    assert capsys.readouterr().out == ""
    LevelsRegressor(**SMALL).fit(X, Y, eval_set=[(X, Y)], verbose=5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["[0]", "[5]", "[10]", "[11]"]
    assert "validation_0-rmse:0." in lines[0]


def test_it_is_eravanes() -> None:
    assert eravane.LevelsRegressor is LevelsRegressor
