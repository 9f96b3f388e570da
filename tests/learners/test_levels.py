"""The level grower as a learner: its models are XGBoost's, byte for byte where both see the same columns."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from eravane.core.config import parse_config
from eravane.core.errors import ConfigError, RunError
from eravane.learners.levels_model import to_ubj
from eravane.learners.protocol import Learner, TakesLevels, TrainingInterruptedError
from eravane.learners.registry import load_booster, make_learner, predict
from eravane.learners.ubj import load
from eravane_kernels.cpu.growth import Grower
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Rules

ROWS, COLUMNS = 3_000, 20


def _learner(name: str, **params: Any) -> Learner:
    return make_learner(parse_config({"zoo": {"learner": name, "params": params}}).zoo, "cpu")[0]


def _values(seed: int, missing: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, (COLUMNS, ROWS)).astype(np.int8)
    values[rng.random(values.shape) < missing] = -1
    return values


def _label(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    signal = (values[0] - 2.0) * (values[1] - 2.0) + values[2]
    return (0.5 + 0.05 * signal + 0.2 * rng.normal(size=ROWS)).astype(np.float32)


def _table(values: np.ndarray, chunks: int = 1) -> pa.Table:
    parts = np.array_split(values, chunks, axis=1)
    return pa.concat_tables(pa.table({f"f{n}": pa.array(row) for n, row in enumerate(part)}) for part in parts)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize("continued", [False, True])
def test_models_are_those_of_xgboost_to_the_byte(missing: float, weighed: bool, holes: float, continued: bool) -> None:
    """Without sampling; more trees than fit a byte, on columns in three chunks."""
    rng, values = np.random.default_rng(4), _values(1, missing)
    label = np.where(rng.random(ROWS) < holes, np.float32(np.nan), _label(values, 2))
    weight = rng.random(ROWS).astype(np.float32) if weighed else None
    margin = (0.5 + 0.1 * rng.normal(size=ROWS)).astype(np.float32) if continued else None
    params = {"colsample_bytree": 1.0, "max_depth": 4, "eta": 0.1, "lambda": 2.0}
    blocks = []
    for name in ("levels", "xgboost"):
        learner = _learner(name, **params)
        matrix = learner.matrix(_table(values, 3))
        blocks.append(learner.fit(matrix, label, weight, trees=140, seed=1, margin_N=margin))
    ours, theirs = (load_booster(block) for block in blocks)
    np.testing.assert_allclose(predict([ours], values), predict([theirs], values), atol=1e-6)
    if not weighed:  # sums of random weights round in the last place
        assert blocks[0] == blocks[1]


def test_both_learners_take_a_missing_level_as_the_lowest_value() -> None:
    """Rows at -1 differ from those at 0: a split between them, which no default direction decides."""
    values = _values(7)
    values[5, ::3] = -1
    label = (0.4 + 0.2 * (values[5] == -1) + 0.01 * np.random.default_rng(1).normal(size=ROWS)).astype(np.float32)
    blocks = []
    for name in ("levels", "xgboost"):
        learner = _learner(name, colsample_bytree=1.0, max_depth=3)
        blocks.append(learner.fit(learner.matrix(_table(values)), label, None, trees=3, seed=1))
    assert blocks[0] == blocks[1]
    trees = load(blocks[0])["learner"]["gradient_booster"]["model"]["trees"]
    assert [(tree["split_indices"][0], tree["split_conditions"][0]) for tree in trees] == [(5, 0.0)] * 3
    assert not any(tree["default_left"].any() for tree in trees)
    booster = load_booster(blocks[0])
    missing = predict([booster], values[:, values[5] == -1])
    assert (missing > predict([booster], np.maximum(values, 0)).max()).all()


def test_a_model_comes_out_of_xgboost_as_it_went_in() -> None:
    values = _values(3, 0.1)
    grower, margin = Grower(LevelColumns.of([values]), Rules(learn_missing=True), 5), np.zeros(ROWS, np.float32)
    rng = np.random.default_rng(5)
    trees = [
        grower.grow(margin - _label(values, 1), None, np.sort(rng.choice(COLUMNS, 5, replace=False)), margin)
        for _ in range(150)
    ]
    assert any(tree.missing_left_K.any() for tree in trees)
    block = to_ubj(trees, [f"feature {n}" for n in range(COLUMNS)], 0.0)
    booster = load_booster(block)
    assert bytes(booster.save_raw("ubj")) == block
    assert booster.num_boosted_rounds() == 150
    assert booster.feature_names == [f"feature {n}" for n in range(COLUMNS)]
    found = booster.inplace_predict(values.T, missing=-1, validate_features=False)
    np.testing.assert_allclose(found, margin, atol=1e-5)
    rows = xgb.DMatrix(values.T, missing=-1, feature_names=booster.feature_names, feature_types=["int"] * COLUMNS)
    shares = booster.predict(rows, pred_contribs=True)
    np.testing.assert_allclose(shares.sum(axis=1), margin, atol=1e-4)


@pytest.mark.parametrize("base", [0.5, 0.0, 0.25, -3.5, 1e-7])
def test_the_intercept_is_written_as_xgboost_writes_it(base: float) -> None:
    assert bytes(load_booster(to_ubj([], ["a"], base)).save_raw("ubj")) == to_ubj([], ["a"], base)


def test_sampling_repeats_and_a_relabelled_matrix_leaves_no_trace() -> None:
    values = _values(6)
    learner = _learner("levels", colsample_bytree=0.3, subsample=0.5)
    matrix, label = learner.matrix(_table(values)), _label(values, 1)
    first = learner.fit(matrix, label, None, trees=20, seed=3)
    learner.fit(matrix, _label(values, 9), np.full(ROWS, 2, np.float32), trees=5, seed=4, margin_N=label)
    assert learner.fit(matrix, label, None, trees=20, seed=3) == first
    assert learner.fit(matrix, label, None, trees=20, seed=4) != first
    frame = load_booster(first).trees_to_dataframe()
    used = frame[frame["Feature"] != "Leaf"].groupby("Tree")["Feature"].nunique()
    assert used.max() <= 6  # 0.3 of 20
    rows_of_roots = frame[frame["Node"] == 0]["Cover"]
    assert rows_of_roots.between(0.45 * ROWS, 0.55 * ROWS).all()
    assert rows_of_roots.nunique() > 10
    margin = predict([load_booster(first)], values)
    assert np.mean((margin - label) ** 2) < np.var(label)


def test_it_stops_between_trees() -> None:
    learner, stop = _learner("levels"), threading.Event()
    stop.set()
    with pytest.raises(TrainingInterruptedError):
        learner.fit(learner.matrix(_table(_values(1))), np.zeros(ROWS, np.float32), None, trees=3, seed=1, stop=stop)


def test_rows_without_labels_alone_are_refused() -> None:
    learner = _learner("levels")
    with pytest.raises(RunError, match="no training row has a label"):
        learner.fit(learner.matrix(_table(_values(1))), np.full(ROWS, np.nan, np.float32), None, trees=3, seed=1)


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_columns_where_they_lie_give_the_bytes_of_their_table(missing: float) -> None:
    values, learner = _values(1, missing), _learner("levels")
    assert isinstance(learner, TakesLevels)
    segments = [np.ascontiguousarray(values[:, :700]), values[:, 700:]]
    columns, table = LevelColumns.of(segments), _table(values)
    columns = LevelColumns(columns.address_SC, columns.row_S, segments, missing=False)
    blocks = [
        learner.fit(matrix, _label(values, 1), None, trees=5, seed=3)
        for matrix in (learner.matrix(table), learner.matrix_of(columns, table.column_names))
    ]
    assert blocks[0] == blocks[1]
    segments[1][3, 9] = 5
    with pytest.raises(RunError, match=r'expected levels 0.*given 5.*segment 1.*zoo.learner = "xgboost"'):
        learner.matrix_of(columns, table.column_names)


@pytest.mark.parametrize("kind", ["floats", "levels"])
def test_other_features_are_for_xgboost(kind: str) -> None:
    values = _values(1).astype(np.float32) if kind == "floats" else _values(1) + np.int8(3)
    message = "integer levels, given float" if kind == "floats" else r"expected levels 0\.\.4 or -1 .*, given 5"
    with pytest.raises(RunError, match=f'{message}.*zoo.learner = "xgboost"'):
        _learner("levels").matrix(_table(values))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"objective": "reg:absoluteerror"}, 'objective is "reg:squarederror"'),
        ({"booster": "dart"}, 'booster is "gbtree"'),
        ({"colsample_bynode": 0.5}, "colsample_bynode is not known"),
        ({"max_depth": 20}, "max_depth: expected 1..12, given 20"),
        ({"reg_lambda": -1}, "reg_lambda: expected 0 or more"),
        ({"subsample": 0}, r"subsample lies in \(0, 1\], given 0"),
        ({"seed": 3}, "seed is set by eravane"),
    ],
)
def test_what_it_cannot_grow_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _learner("levels", **params)
