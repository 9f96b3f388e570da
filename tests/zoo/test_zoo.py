"""The zoo's models against plain XGBoost on pandas, and what its tasks do with caches, labels and odd cells."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numerai_tools.scoring import correlation_contribution, numerai_corr

from eravane.core.errors import ConfigError, DeviceError, RunError
from eravane.core.seeds import derive_seed
from eravane.learners import xgboost as trees
from eravane.learners.outside import BLOCK as GIVEN
from eravane.learners.registry import load_booster, make_learner, predict
from eravane.zoo.oof import OutOfFold, out_of_fold, score_out_of_fold
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo, balanced, start_models
from eravane.zoo.training import Finished, TrainTask, train
from eravane_kernels import cpu
from tests.support.zoo_case import SETTINGS, TARGETS, Case, blocks_of, configured, make_case


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def rows(case: Case) -> pd.DataFrame:
    """The dataset as pandas reads it."""
    whole = pd.concat(pd.read_parquet(case.data / f"{name}.parquet") for name in ("train", "validation"))
    return whole.assign(era=whole["era"].astype(int)).sort_values("era", kind="stable")


def _zoo(case: Case, cache: Path | None = None, **changes: Any) -> Zoo:
    config = configured(zoo=changes)
    return Zoo(case.store.path, config, case.timeline, xgboost_device="cpu", cache=cache)


@pytest.mark.parametrize(
    "changes", [{}, {"every": 3}, {"half_life": 7.0}, {"window": 12}], ids=["all", "every", "half_life", "window"]
)
def test_a_model_is_what_plain_xgboost_makes_of_the_rows(
    changes: dict[str, Any], case: Case, rows: pd.DataFrame
) -> None:
    zoo = _zoo(case, **changes)
    spec = next(spec for spec in case.specs if spec.feature_set == "all" and spec.target == TARGETS[1])
    task = zoo.fold_tasks([spec])[-1]
    found = train(task).predictions[spec.model_id]
    assert task.train_last == task.predict_first - 17  # a 60-day target keeps its own purge
    eras = sorted(era for era in rows["era"].unique() if task.train_first <= era <= task.train_last)
    assert len(eras) == changes.get("window", task.train_last)
    used = rows[rows["era"].isin(eras[:: changes.get("every", 1)])].dropna(subset=[spec.target])
    half_life = changes.get("half_life", np.inf)
    weight = 0.5 ** ((task.train_last - used["era"]) / half_life)
    matrix = xgb.DMatrix(used[list(spec.columns)], used[spec.target], weight=weight)
    params = {**SETTINGS["zoo"]["params"], "base_score": 0.5, "tree_method": "hist", "nthread": 1}
    seed = derive_seed(0, spec.model_id, task.train_last)
    plain = xgb.train({**params, "seed": seed}, matrix, 6)
    shown = rows[(rows["era"] >= task.predict_first) & (rows["era"] <= task.predict_last)]
    np.testing.assert_allclose(found, plain.predict(xgb.DMatrix(shown[list(spec.columns)])), atol=1e-6)
    assert found.std() > 0


def test_workers_and_splits_change_no_byte(case: Case) -> None:
    alone = blocks_of(case.zoo(workers=1), case.specs)
    zoo = case.zoo(workers=4)
    assert len(balanced(zoo.fold_tasks(case.specs), 4)) > len(zoo.fold_tasks(case.specs))  # some are split
    assert blocks_of(zoo, case.specs) == alone


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 8)), min_size=1, max_size=12),
    workers=st.integers(1, 16),
)
def test_balanced_tasks_hold_every_model_once_the_longest_first(sizes: list[tuple[int, int]], workers: int) -> None:
    learner, _ = make_learner(configured().zoo, "cpu")
    tasks = [
        TrainTask(
            store=Path(), prepare=configured().prepare, predict_first=0, predict_last=-1, train_first=1, train_last=9,
            rows=100, every=1, half_life=0, trees=50, learner=learner, seed=0, cache=None,
            specs=tuple(ModelSpec("s", str(t), "y", m, ("x",) * columns) for m in range(models)),
        )
        for t, (columns, models) in enumerate(sizes)
    ]  # fmt: skip
    ordered = balanced(tasks, workers)
    names = [spec.model_id for task in ordered for spec in task.specs]
    assert sorted(names) == sorted(spec.model_id for task in tasks for spec in task.specs)
    costs = [task.cost for task in ordered]
    assert costs == sorted(costs, reverse=True)
    fair = 0.5 * sum(task.cost for task in tasks) / workers
    if workers == 1:
        assert len(ordered) == len(tasks)
    else:
        assert all(task.cost <= fair or len(task.specs) == 1 for task in ordered)


def test_a_finished_model_is_never_trained_again_and_a_damaged_one_is(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = blocks_of(case.zoo(tmp_path, workers=2), case.specs)
    finished: list[Finished] = []
    assert blocks_of(case.zoo(tmp_path, workers=2), case.specs, finished.append) == first
    assert [done.cached for done in finished] == [True] * len(first)
    damaged = sorted(tmp_path.glob("*.ubj"))[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    finished.clear()
    with caplog.at_level(logging.WARNING, "eravane"):
        assert blocks_of(case.zoo(tmp_path, workers=2), case.specs, finished.append) == first
    assert sum(not done.cached for done in finished) == 1
    assert f"{damaged.name} is damaged and is trained again" in caplog.text


def test_the_cache_knows_what_decides_a_model(case: Case, tmp_path: Path) -> None:
    spec = case.specs[0]

    def names(zoo: Zoo) -> set[str]:
        before = set(tmp_path.glob("*.ubj"))
        for _ in zoo.run(zoo.start_tasks([spec], 42)):
            pass
        return {path.name for path in set(tmp_path.glob("*.ubj")) - before}

    assert len(names(_zoo(case, tmp_path))) == 1
    assert names(_zoo(case, tmp_path)) == set()
    for changes in ({"trees": 7}, {"half_life": 3.0}, {"every": 2}, {"window": 9}, {"params": {"max_depth": 2}}):
        assert len(names(_zoo(case, tmp_path, **changes))) == 1, changes
    zoo = _zoo(case, tmp_path)
    (task,) = zoo.start_tasks([spec], 42)
    list(zoo.run([dataclasses.replace(task, hidden={spec.target: (20,)})]))
    assert len(list(tmp_path.glob("*.ubj"))) == 7


def test_progress_tells_every_model_and_its_speed(case: Case) -> None:
    finished: list[Finished] = []
    blocks = blocks_of(case.zoo(workers=2), case.specs, finished.append)
    assert sorted((done.model_id, done.train_last) for done in finished) == sorted(blocks)
    done = next(done for done in finished if done.model_id.startswith("all.all."))
    counts = case.store.index.select(1, done.train_last).counts
    assert done.work == counts.sum() * len(case.store.columns) * 6
    assert done.seconds > 0
    assert done.device == "cpu"


def test_hidden_labels_count_as_absent(case: Case) -> None:
    # Without sampling the seed, which is another one per newest training era, decides nothing.
    zoo, spec = _zoo(case, params={"max_depth": 3}), case.specs[0]
    learner, _ = make_learner(configured(zoo={"params": {"max_depth": 3, "colsample_bytree": 1.0}}).zoo, "cpu")
    task = dataclasses.replace(zoo.start_tasks([spec], 42)[0], learner=learner)
    hidden = tuple(range(task.train_last - 3, task.train_last + 1))
    values = case.features().era(40, spec.columns).values

    def predicted(task: TrainTask) -> np.ndarray:
        return predict([load_booster(train(task).blocks[spec.model_id])], values)

    without = predicted(dataclasses.replace(task, hidden={spec.target: hidden}))
    np.testing.assert_array_equal(without, predicted(dataclasses.replace(task, train_last=task.train_last - 4)))
    assert (without != predicted(task)).any()


def test_a_cell_of_one_feature(case: Case) -> None:
    spec = dataclasses.replace(case.specs[0], group="one", columns=case.store.columns[:1])
    found = blocks_of(case.zoo(workers=1), [spec])
    values = case.features().era(30, spec.columns).values
    for block in found.values():
        prediction = predict([load_booster(block)], values)
        assert len(set(prediction.tolist())) <= 5


def test_a_fold_without_labels_is_refused_before_anything_is_trained(case: Case) -> None:
    zoo = case.zoo(workers=1)
    (task,) = zoo.start_tasks([case.specs[0]], 42)
    bare = dataclasses.replace(task, train_first=55, train_last=56)  # the newest eras have no label
    finished: list[Finished] = []
    with pytest.raises(RunError, match=r"target 'target_ender_20' has no label in eras 55 to 56.*zoo.targets"):
        list(zoo.run([task, bare], finished.append))
    assert finished == []


def test_members_from_outside_are_never_trained(case: Case) -> None:
    spec = ModelSpec("given", "mine", TARGETS[0], 0, ())
    zoo = case.zoo(workers=1)
    assert zoo.fold_tasks([spec]) == []
    assert start_models(zoo, [spec], 42)[spec.model_id].blocks == (GIVEN,)
    values = np.arange(4, dtype=np.float32)[None]
    np.testing.assert_array_equal(predict([load_booster(GIVEN)], values), values[0])


def test_a_gpu_that_is_not_there_is_an_error(case: Case) -> None:
    zoo = Zoo(case.store.path, configured(), case.timeline, xgboost_device="cuda", cache=None)
    with pytest.raises(DeviceError):
        list(zoo.run(zoo.fold_tasks(case.specs[:1])))


@pytest.mark.parametrize("failures", [1, 9])
def test_too_little_device_memory_is_tried_again_and_then_refused_with_the_bytes(
    failures: int, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [failures]
    plain = trees.quantile_matrix

    def short(table: Any, params: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise xgb.core.XGBoostError("[17:00:00] bulk_allocate: cudaErrorMemoryAllocation: out of memory\n stack")
        return plain(table, params)

    monkeypatch.setattr(trees, "quantile_matrix", short)
    zoo = Zoo(case.store.path, configured(), case.timeline, xgboost_device="cpu", cache=None, memory_budget=10**9)
    tasks = zoo.start_tasks(case.specs[:1], 42)
    if failures == 1:
        assert len(list(zoo.run(tasks))) == 1
    else:
        with pytest.raises(
            DeviceError, match=r"needs about [\d.]+ [kM]B on cpu \(\d,\d+ rows x \d+ features\).*zoo\.window"
        ):
            list(zoo.run(tasks))


@pytest.fixture(scope="module")
def oof(case: Case, tmp_path_factory: pytest.TempPathFactory) -> OutOfFold:
    zoo, folder = case.zoo(workers=2), tmp_path_factory.mktemp("oof")
    return out_of_fold(zoo, case.specs, case.timeline.folds, case.features(), folder=folder)


def test_predictions_on_disk_equal_those_in_memory(case: Case, oof: OutOfFold) -> None:
    kept = out_of_fold(case.zoo(workers=1), case.specs, case.timeline.folds, case.features())
    assert kept.values.keys() == oof.values.keys()
    for name, values in oof.values.items():
        assert isinstance(values, np.memmap)
        np.testing.assert_array_equal(values, kept.values[name])


def test_scores_equal_numerai_tools(case: Case, oof: OutOfFold, rows: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    reference_N = rng.random(case.store.index.rows)
    reference_N[case.store.index.rows_of(oof.first_era)] = np.nan
    reference_N[rng.random(reference_N.size) < 0.1] = np.nan
    newest = case.timeline.selection_end
    found = score_out_of_fold(oof, case.features(), TARGETS[0], newest, cpu, {"mmc": reference_N})
    assert found.eras == tuple(range(oof.first_era, newest + 1))
    frame = rows.assign(reference=reference_N)
    frame = frame[(frame["era"] >= oof.first_era) & (frame["era"] <= oof.last_era)]
    frame = frame.assign(**dict(oof.values))
    names = list(oof.values)
    for position, era in enumerate(found.eras):
        known = frame[frame["era"] == era].dropna(subset=[TARGETS[0]])
        corr = numerai_corr(known[names].astype(float), known[TARGETS[0]])
        np.testing.assert_allclose(found.scores_ME[:, position], corr[names], atol=1e-9)
        known = known.dropna(subset=["reference"])
        if known.empty:
            assert np.isnan(found.beyond["mmc"][:, position]).all()
            continue
        mmc = correlation_contribution(known[names].astype(float), known["reference"], known[TARGETS[0]])
        np.testing.assert_allclose(found.beyond["mmc"][:, position], mmc[names], atol=1e-9)


def test_lightgbm_is_a_learner_of_the_same_kind(case: Case, rows: pd.DataFrame) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="needs LightGBM")
    zoo = _zoo(case, learner="lightgbm", params={"feature_fraction": 1.0, "min_data_in_leaf": 5})
    spec = next(spec for spec in case.specs if spec.feature_set == "all")
    task = zoo.fold_tasks([spec])[-1]
    found = train(task)
    used = rows[rows["era"] <= task.train_last].dropna(subset=[spec.target])
    params = {
        "objective": "regression", "max_depth": 5, "num_leaves": 32, "learning_rate": 0.05, "min_data_in_leaf": 5,
        "min_data_in_bin": 1, "verbosity": -1, "num_threads": 1, "boost_from_average": False, "deterministic": True,
        "feature_pre_filter": False, "force_col_wise": True,
    }  # fmt: skip
    label = used[spec.target].astype(np.float32)
    data = lightgbm.Dataset(used[list(spec.columns)].to_numpy(np.float32), label, init_score=np.full(len(used), 0.5))
    plain = lightgbm.train(params, data, 6)
    shown = rows[(rows["era"] >= task.predict_first) & (rows["era"] <= task.predict_last)]
    expected = 0.5 + plain.predict(shown[list(spec.columns)].to_numpy(np.float32))
    np.testing.assert_allclose(found.predictions[spec.model_id], expected, atol=1e-6)
    assert train(task).blocks == found.blocks
    assert load_booster(found.blocks[spec.model_id]).num_boosted_rounds() == 6


def test_lightgbm_relabels_its_matrix_exactly() -> None:
    pytest.importorskip("lightgbm", reason="needs LightGBM")
    import pyarrow as pa

    learner, _ = make_learner(configured(zoo={"learner": "lightgbm", "params": {}}).zoo, "cpu")
    rng = np.random.default_rng(1)
    values = rng.integers(0, 5, (8, 900)).astype(np.int8)
    label = (0.5 + 0.1 * (values[0] - 2) + 0.05 * rng.normal(size=900)).astype(np.float32)
    matrix = learner.matrix(pa.table({str(n): pa.array(row) for n, row in enumerate(values)}))
    first = learner.fit(matrix, label, None, trees=5, seed=3)
    holed = np.where(rng.random(900) < 0.5, label, np.float32(np.nan))
    learner.fit(matrix, holed, np.full(900, 2, np.float32), trees=5, seed=4, margin_N=label)
    assert learner.fit(matrix, label, None, trees=5, seed=3) == first
    margin = predict([load_booster(first)], values)
    second = learner.fit(matrix, label, None, trees=20, seed=5, margin_N=margin)
    both = predict([load_booster(first), load_booster(second)], values)
    assert np.mean((both - label) ** 2) < np.mean((margin - label) ** 2)


def test_lightgbm_refuses_what_it_cannot_do() -> None:
    pytest.importorskip("lightgbm", reason="needs LightGBM")
    config = configured(zoo={"learner": "lightgbm", "params": {}}).zoo
    with pytest.raises(ConfigError, match="on the CPU, given cuda"):
        make_learner(config, "cuda")
    with pytest.raises(ConfigError, match=r"zoo\.params\.num_threads"):
        make_learner(dataclasses.replace(config, params={"num_threads": 4}), "cpu")
