"""Unfolded trees against XGBoost's own prediction: the same bits, for any trees and any rows."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.core.errors import OutOfDeviceMemoryError
from eravane.learners import forest
from eravane.learners.forest import DeviceForest, Forest, Predictor
from eravane.learners.registry import predict
from eravane.learners.ubj import dump, load
from eravane_kernels import cuda
from eravane_kernels.cpu import walk
from eravane_kernels.cpu.forest import DEEPEST
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.cuda.runtime import upload
from tests.support.emulator import compiler_missing
from tests.support.emulator.devices import ANY_DEVICE, on

ROWS = 900


def _values(seed: int, columns: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 5, (columns, rows)).astype(np.int8)


def _grown(values_CN: np.ndarray, trees: int, seed: int, **params: Any) -> xgb.Booster:
    rng = np.random.default_rng(seed)
    label_N = rng.random(values_CN.shape[1]) + (values_CN[0] > 2) - 0.3 * values_CN[-1]
    return xgb.train({"seed": seed, "nthread": 1, **params}, xgb.DMatrix(values_CN.T, label_N), trees)


def _says(booster: xgb.Booster, values_CN: np.ndarray, margin_N: np.ndarray | None = None) -> np.ndarray:
    margin: np.ndarray = booster.inplace_predict(values_CN.T, predict_type="margin", base_margin=margin_N)
    return margin


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    depth=st.integers(1, walk.DEEPEST),
    columns=st.integers(1, 9),
    trees=st.integers(1, 12),
    rows=st.sampled_from([1, 2, 31, 32, 33, 1023, 1024, 1025, 2500]),
    lossguide=st.booleans(),
)
def test_the_bits_are_those_of_xgboost(
    seed: int, depth: int, columns: int, trees: int, rows: int, lossguide: bool
) -> None:
    grow = {"grow_policy": "lossguide", "max_leaves": 6} if lossguide else {}
    booster = _grown(_values(seed, columns, ROWS), trees, seed, max_depth=depth, colsample_bynode=0.6, **grow)
    asked_CN = _values(seed + 1, columns, rows)
    margin_N = np.random.default_rng(seed).normal(size=rows).astype(np.float32)
    unfolded = Forest.of(booster)
    assert unfolded is not None
    np.testing.assert_array_equal(unfolded.predict(asked_CN), _says(booster, asked_CN))
    np.testing.assert_array_equal(unfolded.predict(asked_CN, margin_N), _says(booster, asked_CN, margin_N))


@pytest.mark.parametrize("value", [-2, 14])
def test_values_that_deep_trees_do_not_take_are_left_to_xgboost(value: int) -> None:
    values_CN = _values(4, 6, 40 * ROWS)
    deep = _grown(values_CN, 2, 3, max_depth=DEEPEST + 2, min_child_weight=0)
    odd_CN = values_CN.copy()
    odd_CN[3, 77] = value
    predictor = Predictor(bytes(deep.save_raw("ubj")))
    for asked_CN in (values_CN, odd_CN, values_CN):
        np.testing.assert_array_equal(predictor.output(asked_CN), deep.inplace_predict(asked_CN.T))
    forest = Forest.of(deep)
    assert forest is not None
    assert forest.predict(values_CN) is not None
    assert forest.predict(odd_CN) is None


def test_columns_may_lie_apart_and_backwards() -> None:
    whole_CN = _values(1, 12, 3 * ROWS)
    booster = _grown(np.ascontiguousarray(whole_CN[::2, 7 : 7 + ROWS]), 5, 1, max_depth=4)
    unfolded = Forest.of(booster)
    assert unfolded is not None
    for part_CN in (whole_CN[::2, 7 : 7 + ROWS], whole_CN[::-2, 100:1200], np.asfortranarray(whole_CN[::2])):
        np.testing.assert_array_equal(unfolded.predict(part_CN), _says(booster, np.ascontiguousarray(part_CN)))


def test_conditions_beyond_the_levels_are_kept() -> None:
    """A split at a fraction, at a whole number, below and above every int8."""
    values_CN = np.array([[-128, -1, 0, 1, 2, 3, 4, 127]], dtype=np.int8)
    for condition in (0.5, 2.0, -1000.0, -128.0, 126.5, 127.0):
        wide_N = np.array([condition - 1, condition] * 50)
        booster = xgb.train({"max_depth": 1, "nthread": 1}, xgb.DMatrix(wide_N[:, None], np.arange(100.0) % 2), 1)
        unfolded = Forest.of(booster)
        assert unfolded is not None
        np.testing.assert_array_equal(unfolded.predict(values_CN), _says(booster, values_CN))


def test_trees_that_cannot_be_unfolded_are_left_to_xgboost() -> None:
    values_CN = _values(3, 6, 4 * ROWS)
    deep = _grown(values_CN, 2, 3, max_depth=walk.DEEPEST + 1, min_child_weight=0)
    classes = {"objective": "multi:softprob", "num_class": 3}
    several = xgb.train(classes, xgb.DMatrix(values_CN.T, values_CN[0] % 3), 2)
    for booster in (deep, several):
        assert Forest.of(booster) is None
        predictor = Predictor(bytes(booster.save_raw("ubj")))
        np.testing.assert_array_equal(predictor.output(values_CN), booster.inplace_predict(values_CN.T))


GROWN: dict[str, dict[str, Any]] = {
    "shallow": {"max_depth": 3},
    "a root alone": {"max_depth": 1, "gamma": 1e9},
    "deeper than is unfolded": {"max_depth": walk.DEEPEST + 3, "min_child_weight": 0},
    "by leaves": {"grow_policy": "lossguide", "max_leaves": 50, "max_depth": 0},
    "several trees a round": {"num_parallel_tree": 3, "subsample": 0.5, "max_depth": 5},
    "leaves that are pruned": {"gamma": 0.5, "max_depth": 8},
    **{f"reg:{name}": {"objective": f"reg:{name}"} for name in ("squaredlogerror", "pseudohubererror")},
    "medians": {"objective": "reg:absoluteerror"},
    "a quantile": {"objective": "reg:quantileerror", "quantile_alpha": 0.3},
}


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize("how", GROWN)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_the_bits_on_a_gpu_are_those_of_xgboost_on_a_cpu(
    device: Any, how: str, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values at thresholds, missing on the side that was learned, subnormal, and both zeros."""
    rng = np.random.default_rng(len(how))
    values_CN = _values(7, 9, 2 * ROWS).astype(dtype)
    if dtype is np.float32:
        values_CN *= rng.choice([0.5, 1.0, 1e-41, -0.0], (9, 1)).astype(np.float32)
        values_CN[rng.random(values_CN.shape) < 0.1] = np.nan
    label_N = rng.random(2 * ROWS) + 0.3 * np.nan_to_num(values_CN[0] + values_CN[1])
    grow = {"seed": 1, "nthread": 1, "base_score": 0.5, "colsample_bynode": 0.5, **GROWN[how]}
    booster = xgb.train(grow, xgb.DMatrix(values_CN.T, np.maximum(label_N, 0)), 30)
    asked_CN = values_CN[:, 100:777]
    margin_N = rng.normal(size=asked_CN.shape[1]).astype(np.float32)
    predictor = Predictor(bytes(booster.save_raw("ubj")))
    with on(device), monkeypatch.context() as patched:
        patched.setattr(xgb.Booster, "load_model", lambda *_: pytest.fail("XGBoost loaded the model"))
        whole = upload(values_CN)
        for there in (whole[:, 100:777], upload(np.ascontiguousarray(asked_CN.T)).T):
            np.testing.assert_array_equal(predictor.output(there), _says(booster, asked_CN))
            np.testing.assert_array_equal(predictor.margin(there, margin_N), _says(booster, asked_CN, margin_N))
        assert predictor.output(whole[:, :0]).shape == (0,)


DROPOUT = {"booster": "dart", "rate_drop": 0.4, "one_drop": 1}
TRANSFORMED: dict[str, dict[str, Any]] = {
    **{name: {"objective": name} for name in ("binary:logistic", "binary:hinge", "count:poisson", "reg:gamma")},
    "reg:tweedie": {"objective": "reg:tweedie", "tweedie_variance_power": 1.3},
    "an intercept that is given": {"objective": "reg:logistic", "base_score": 0.3},
    "dropout": DROPOUT,
    "dropout of a logistic": {**DROPOUT, "objective": "binary:logistic", "normalize_type": "forest"},
}


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize("how", TRANSFORMED)
@pytest.mark.parametrize("device", [None, *ANY_DEVICE])
def test_what_is_made_of_the_sum_of_trees_is_xgboosts(device: Any, how: str, dtype: type) -> None:
    """Objectives that transform the sum, and trees that dropout weighs; on the host too, where it evaluates floats."""
    values_CN = _values(11, 6, 2 * ROWS).astype(dtype)
    if dtype is np.float32:
        values_CN[np.random.default_rng(1).random(values_CN.shape) < 0.1] = np.nan
    label_N = (np.nan_to_num(values_CN[0] + values_CN[1]) > 2).astype(np.float32)
    grow = {"max_depth": 4, "nthread": 1, "verbosity": 0, **TRANSFORMED[how]}
    booster = xgb.train(grow, xgb.DMatrix(values_CN.T, 0.9 * label_N + 0.05), 12)
    asked_CN = values_CN[:, 100:777]
    rows = xgb.DMatrix(asked_CN.T)
    expected_N, plain_N = booster.predict(rows), booster.predict(rows, output_margin=True)
    margin_N = np.random.default_rng(2).normal(size=asked_CN.shape[1]).astype(np.float32)
    added_N = booster.predict(xgb.DMatrix(asked_CN.T, base_margin=margin_N), output_margin=True)
    predictor = Predictor(bytes(booster.save_raw("ubj")))
    with on(device) if device is not None else nullcontext():
        there = asked_CN if device is None else upload(values_CN)[:, 100:777]
        np.testing.assert_array_equal(predictor.output(there), expected_N)
        np.testing.assert_array_equal(predictor.margin(there), plain_N)
        np.testing.assert_array_equal(predictor.margin(there, margin_N), added_N)
        assert predictor.output(there[:, :0]).shape == (0,)
        assert (device is None and dtype is np.float32) == ("booster" in vars(predictor))


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_several_classes_are_left_to_xgboost_on_a_gpu_too(device: Any) -> None:
    values_CN = _values(3, 6, ROWS)
    classes = {"objective": "multi:softprob", "num_class": 3}
    booster = xgb.train(classes, xgb.DMatrix(values_CN.T, values_CN[0] % 3), 3)
    with on(device):
        assert DeviceForest.read(bytes(booster.save_raw("ubj"))) is None
        found = Predictor(bytes(booster.save_raw("ubj"))).output(upload(values_CN))
    np.testing.assert_array_equal(found, booster.inplace_predict(values_CN.T))


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_columns_that_trees_split_on_and_that_are_not_there_are_refused(device: Any) -> None:
    booster = _grown(_values(3, 6, ROWS), 3, 1, max_depth=4)
    with on(device):
        forest = DeviceForest.read(bytes(booster.save_raw("ubj")))
        assert forest is not None
        with pytest.raises(ValueError, match="expected at least 6 columns, given 2"):
            forest.predict(upload(_values(3, 2, ROWS)))


@pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing())
def test_predictions_that_do_not_fit_are_tried_again_with_memory_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    values_CN = _values(3, 6, ROWS)
    booster = _grown(values_CN, 3, 1, max_depth=9)
    real, failures, reclaimed = cuda.add_trees, [1], list[str]()

    def add_trees(*given: Any) -> Any:
        if failures[0]:
            failures[0] -= 1
            raise MemoryError
        return real(*given)

    monkeypatch.setattr(cuda, "add_trees", add_trees)
    gpu = SimpleNamespace(reclaim=lambda: reclaimed.append("cuda"), room=lambda: 0)
    monkeypatch.setattr(forest, "backend_of", {"cuda": gpu}.__getitem__)
    with on(0):
        predictor, there_CN = Predictor(bytes(booster.save_raw("ubj"))), upload(values_CN)
        np.testing.assert_array_equal(predictor.output(there_CN), _says(booster, values_CN))
        assert reclaimed == ["cuda"]
        failures[0] = 2
        with pytest.raises(OutOfDeviceMemoryError, match="predictions of 900 rows did not fit on the GPU"):
            predictor.output(there_CN)


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_a_model_of_several_targets_is_left_to_xgboost(strategy: str) -> None:
    label_N2 = np.random.default_rng(2).random((50, 2))
    matrix = xgb.DMatrix(np.arange(50.0)[:, None], label_N2)
    booster = xgb.train({"max_depth": 2, "nthread": 1, "multi_strategy": strategy}, matrix, 2)
    assert Forest.of(booster) is None


@pytest.mark.parametrize("place", ["a booster around them", "beside the trees", "among them"])
def test_trees_are_weighed_whatever_the_version_calls_it(place: str) -> None:
    """XGBoost 3.2 writes trees with dropout as a booster of their own, 3.3 and 3.4 as gbtree with weights."""
    booster = _grown(_values(5, 3, 64), 5, 2, max_depth=2)
    document = load(bytes(booster.save_raw("ubj")))
    plain, weights = document["learner"]["gradient_booster"], np.array([0.5, 1, 0.3, 0, 0.7], dtype=np.float32)
    if place == "a booster around them":
        document["learner"]["gradient_booster"] = {"gbtree": plain, "name": "dart", "weight_drop": weights}
    else:
        (plain if place == "beside the trees" else plain["model"])["weight_drop"] = weights
    weighed, alone = Forest.read(dump(document)), Forest.of(booster)
    assert weighed is not None
    assert alone is not None
    np.testing.assert_array_equal(weighed.leaf_TL, alone.leaf_TL * weights[:, None])
    np.testing.assert_array_equal(weighed.below_TK, alone.below_TK)


def test_xgboost_loads_a_model_where_it_is_asked_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    values_CN = _values(4, 5, ROWS)
    booster = _grown(values_CN, 4, 4, max_depth=5)
    predictor = Predictor(bytes(booster.save_raw("ubj")))
    with monkeypatch.context() as patched:
        patched.setattr(xgb.Booster, "load_model", lambda *_: pytest.fail("XGBoost loaded the model"))
        found = [predictor.output(values_CN[:, :rows]) for rows in (1, ROWS)]
    for one in found:
        np.testing.assert_array_equal(one, _says(booster, values_CN[:, : one.size]))
    floats_CN = values_CN.astype(np.float32) + np.float32(0.4)
    np.testing.assert_array_equal(predictor.output(floats_CN), _says(booster, floats_CN))
    assert predictor.num_boosted_rounds() == 4
    assert predictor.booster.num_features() == 5
    again = copy.copy(predictor)
    np.testing.assert_array_equal(again.margin(floats_CN), _says(booster, floats_CN))


@pytest.mark.parametrize("kind", ["shallow", "deep", "too deep", "dart"])
def test_columns_at_addresses_are_predicted_as_their_matrix(kind: str) -> None:
    wide_CN = _values(5, 9, 3 * ROWS)
    params = {"shallow": {"max_depth": 4}, "deep": {"max_depth": DEEPEST + 2}, "too deep": {"max_depth": 13}}
    booster = _grown(wide_CN[::2], 4, 1, min_child_weight=0, **params.get(kind, {"booster": "dart"}))
    segments = [wide_CN[:, 10:1300], wide_CN[:, 1300:1301], wide_CN[:, 1500:]]
    columns = LevelColumns.of(segments)
    columns = LevelColumns(columns.address_SC[:, ::2].copy(), columns.row_S, columns.owner, columns.missing)
    expected_CN = np.concatenate([part[::2] for part in segments], axis=1)
    np.testing.assert_array_equal(columns.matrix(), expected_CN)
    predictor = Predictor(bytes(booster.save_raw("ubj")))
    expected_N = booster.predict(xgb.DMatrix(expected_CN.T))  # `inplace_predict` rounds dropout otherwise up to 3.2
    np.testing.assert_array_equal(predictor.output(columns), expected_N)
    np.testing.assert_array_equal(predict([predictor, predictor], columns), expected_N + expected_N)
    parts = [predict([predictor], part) for part in columns.parts(500)]
    assert [len(part) for part in parts] == [500, 500, 290, 1, 500, 500, 200]
    np.testing.assert_array_equal(np.concatenate(parts), expected_N)


def test_trees_on_columns_that_do_not_exist_are_refused() -> None:
    values_CN = _values(5, 9, ROWS)
    unfolded = Forest.of(_grown(values_CN, 4, 1, max_depth=4))
    assert unfolded is not None
    with pytest.raises(ValueError, match="column_TK"):
        unfolded.predict_at(LevelColumns.of([values_CN[:1]]))
