"""The learner against plain `xgboost.train`."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from eravane.backend.protocol import DeviceTable
from eravane.core.errors import ConfigError, RunError
from eravane.learners.protocol import TrainingInterruptedError
from eravane.learners.registry import Trees, load_booster, predict
from eravane.learners.xgboost import fit, quantile_matrix, resolve_params

ROWS, COLUMNS = 3000, 12


@pytest.fixture(scope="module", params=["int8", "float32"])
def values(request: pytest.FixtureRequest) -> np.ndarray:
    rng = np.random.default_rng(1)
    if request.param == "int8":
        return rng.integers(0, 5, (COLUMNS, ROWS)).astype(np.int8)
    return rng.normal(size=(COLUMNS, ROWS)).astype(np.float32)


@pytest.fixture(scope="module")
def label(values: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(2).normal(size=ROWS)
    return (0.5 + 0.05 * values[0] + 0.03 * values[1] * values[2] + 0.1 * noise).astype(np.float32)


def _table(values: np.ndarray, chunks: int = 1) -> pa.Table:
    bounds = np.linspace(0, values.shape[1], chunks + 1).astype(int)
    names = [f"f{n}" for n in range(values.shape[0])]
    parts = [
        pa.table({name: pa.array(row[a:b]) for name, row in zip(names, values, strict=True)})
        for a, b in itertools.pairwise(bounds)
    ]
    return pa.concat_tables(parts)


PARAMS, _ = resolve_params({"colsample_bytree": 0.5}, "cpu")


def _plain(values: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None, trees: int = 20) -> np.ndarray:
    matrix = xgb.DMatrix(values.T, label, weight=weight)
    return xgb.train({**PARAMS, "seed": 5}, matrix, trees).predict(xgb.DMatrix(values.T))


def test_a_matrix_without_a_data_frame_gives_the_same_trees(values: np.ndarray, label: np.ndarray) -> None:
    names = tuple(f"f{n}" for n in range(COLUMNS))
    one, other = quantile_matrix(DeviceTable(values, names), PARAMS), quantile_matrix(_table(values), PARAMS)
    assert one.feature_names == other.feature_names
    blocks = [fit(matrix, label, None, trees=10, params=PARAMS, seed=3) for matrix in (one, other)]
    assert blocks[0] == blocks[1]


def test_trees_equal_plain_xgboost(values: np.ndarray, label: np.ndarray) -> None:
    block = fit(quantile_matrix(_table(values, 3), PARAMS), label, None, trees=20, params=PARAMS, seed=5)
    found = predict([load_booster(block)], values)
    np.testing.assert_allclose(found, _plain(values, label), atol=1e-6)
    assert np.corrcoef(found, label)[0, 1] > 0.5


def test_a_matrix_is_relabelled_exactly(values: np.ndarray, label: np.ndarray) -> None:
    matrix = quantile_matrix(_table(values), PARAMS)
    first = fit(matrix, label, None, trees=5, params=PARAMS, seed=5)
    fit(matrix, label[::-1].copy(), np.linspace(0, 1, ROWS).astype(np.float32), trees=5, params=PARAMS, seed=6,
        margin_N=label)  # fmt: skip
    assert fit(matrix, label, None, trees=5, params=PARAMS, seed=5) == first


def test_rows_without_a_label_do_not_count() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 5, (COLUMNS, ROWS)).astype(np.int8)
    label = (0.1 * values[0] + rng.normal(size=ROWS)).astype(np.float32)
    known = rng.random(ROWS) < 0.7
    holed = np.where(known, label, np.float32(np.nan))
    block = fit(quantile_matrix(_table(values), PARAMS), holed, None, trees=20, params=PARAMS, seed=5)
    dropped = fit(quantile_matrix(_table(values[:, known]), PARAMS), label[known], None, trees=20, params=PARAMS,
                  seed=5)  # fmt: skip
    np.testing.assert_array_equal(predict([load_booster(block)], values), predict([load_booster(dropped)], values))


def test_an_appended_block_continues_the_model(values: np.ndarray, label: np.ndarray) -> None:
    """Blocks on a margin give what XGBoost's own continuation gives, up to the order of float additions."""
    params, _ = resolve_params({"colsample_bytree": 1.0}, "cpu")
    matrix = quantile_matrix(_table(values), params)
    first = fit(matrix, label, None, trees=10, params=params, seed=5)
    margin = predict([load_booster(first)], values)
    second = fit(matrix, label, None, trees=10, params=params, seed=6, margin_N=margin)
    whole = xgb.train({**params, "seed": 6}, xgb.DMatrix(values.T, label), 20)
    trees = Trees((first, second), tuple(f"f{n}" for n in range(COLUMNS)))
    np.testing.assert_allclose(predict(trees.boosters(), values), whole.predict(xgb.DMatrix(values.T)), atol=1e-5)
    assert trees.rounds == 20


def test_gpu_hist_is_translated_and_contradictions_are_refused() -> None:
    params, notes = resolve_params({"tree_method": "gpu_hist", "max_depth": 3}, "cpu")
    assert (params["tree_method"], params["max_depth"], len(notes)) == ("hist", 3, 1)
    for wrong in ({"tree_method": "exact"}, {"max_bin": 4}, {"nthread": 8}, {"device": "cuda"}):
        with pytest.raises(ConfigError, match=r"zoo\.params"):
            resolve_params(wrong, "cpu")


def test_no_label_at_all_and_an_interruption(values: np.ndarray, label: np.ndarray) -> None:
    matrix = quantile_matrix(_table(values), PARAMS)
    with pytest.raises(RunError, match="no training row"):
        fit(matrix, np.full(ROWS, np.nan, np.float32), None, trees=1, params=PARAMS, seed=1)
    stop = threading.Event()
    stop.set()
    with pytest.raises(TrainingInterruptedError):
        fit(matrix, label, None, trees=1, params=PARAMS, seed=1, stop=stop)
