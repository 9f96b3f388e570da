"""Models that grow together on one pass over the columns: each is, to the byte, what it is alone."""

from __future__ import annotations

import dataclasses
import threading
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eravane.core.config import parse_config
from eravane.core.errors import RunError
from eravane.learners.levels import BYTES_PER_ROW, Growth, Levels, grown
from eravane.learners.protocol import Learner, TrainingInterruptedError
from eravane.learners.registry import load_booster, make_learner
from eravane.zoo.fleet import TaskControl
from eravane.zoo.trainer import Zoo
from eravane.zoo.training import Finished, TrainTask, train
from eravane_kernels.growth import Tree
from tests.support.zoo_case import Case, configured, make_case

PARAMS = {"max_depth": 3, "eta": 0.2, "colsample_bytree": 0.4, "subsample": 0.7}


TARGETS = ("target_cyrusd_20", "target_ender_20", "target_jasper_20")
ZOO = {"learner": "levels", "targets": TARGETS, "half_life": 20.0, "params": PARAMS}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Three targets of one lag, two seeds, weights that fall with age."""
    return make_case(tmp_path_factory.mktemp("together"), zoo=ZOO)


def _zoo(case: Case, **compute: Any) -> Zoo:
    config = configured(zoo=ZOO, compute=compute)
    return Zoo(case.store.path, config, case.timeline, xgboost_device="cpu", cache=None)


def _task(case: Case) -> TrainTask:
    """All models of the widest cell, trained up to the newest fold."""
    tasks = _zoo(case).fold_tasks(case.specs)
    return max(tasks, key=lambda task: (len(task.specs[0].columns), task.train_last))


def _alone(task: TrainTask) -> dict[str, bytes]:
    """Every model in a task of its own."""
    return {
        spec.model_id: train(dataclasses.replace(task, specs=(spec,), cache=None)).blocks[spec.model_id]
        for spec in task.specs
    }


def _finished(task: TrainTask) -> tuple[Mapping[str, bytes], list[Finished]]:
    finished: list[Finished] = []
    trained = train(task, TaskControl(report=finished.append))
    assert tuple(finished) == trained.finished
    return trained.blocks, finished


def test_a_model_is_the_same_alone_in_a_batch_and_beside_cached_ones(case: Case, tmp_path: Path) -> None:
    task = _task(case)
    assert {len(batch) for batch in task.batches()} == {len(case.config.targets)}
    alone = _alone(task)
    assert len(set(alone.values())) == len(alone)
    together, finished = _finished(task)
    assert together == alone
    assert list(together) == [spec.model_id for spec in task.specs]
    assert {done.model_id for done in finished} == set(alone)
    assert all(done.seconds > 0 and not done.cached for done in finished)
    # Every second model comes from the cache.
    kept = dataclasses.replace(task, cache=tmp_path)
    train(dataclasses.replace(kept, specs=kept.specs[::2]))
    again, finished = _finished(kept)
    assert again == alone
    assert {done.model_id for done in finished if done.cached} == {spec.model_id for spec in kept.specs[::2]}
    assert _finished(kept)[0] == alone
    assert all(done.cached for done in _finished(kept)[1])


def test_halves_and_workers_change_no_byte(case: Case) -> None:
    task = _task(case)
    found = {name: block for half in task.halves() for name, block in train(half).blocks.items()}
    assert found == train(task).blocks
    for half in task.halves():  # two seeds in two halves: every batch is whole
        assert [len(batch) for batch in half.batches()] == [len(case.config.targets)]


def test_targets_of_a_seed_draw_alike_and_seeds_do_not(case: Case) -> None:
    task = _task(case)
    roots: dict[int, list[list[float]]] = {}
    for spec in task.specs:
        frame = load_booster(train(dataclasses.replace(task, specs=(spec,))).blocks[spec.model_id]).trees_to_dataframe()
        roots.setdefault(spec.seed, []).append(frame[frame["Node"] == 0]["Cover"].tolist())
    first, second = roots[0], roots[1]
    assert all(covers == first[0] for covers in first)  # the same rows are drawn
    assert first[0] != second[0]


def test_many_targets_are_grown_in_batches_of_like_size(case: Case) -> None:
    task, spec = _task(case), case.specs[0]
    many = tuple(dataclasses.replace(spec, target=f"t{number}", seed=seed) for number in range(17) for seed in range(2))
    wide = dataclasses.replace(task, specs=many)
    assert [len(batch) for batch in wide.batches()] == [5, 6, 6, 5, 6, 6]
    assert all(len({spec.seed for spec in batch}) == 1 for batch in wide.batches())
    left = wide.batches({spec.model_id for spec in many if spec.target != "t3"})
    assert [[spec.seed for spec in batch] for batch in left] == [[0], [1]]
    # What is left of a task never needs more memory than was stated for the whole.
    left = wide.batches({spec.model_id for spec in many if spec.target == "t0"})
    assert max(map(len, left)) == 6
    xgboost, _ = make_learner(parse_config({"zoo": {"learner": "xgboost"}}).zoo, "cpu")
    assert {len(batch) for batch in dataclasses.replace(wide, learner=xgboost).batches()} == {1}
    learner = task.learner
    assert wide.bytes_needed(1) == learner.bytes_needed(task.rows, len(spec.columns), 1, 6)
    assert learner.bytes_needed(9000, 50, 1, 6) > learner.bytes_needed(9000, 50, 1) + 5 * 9000 * 18


def test_a_task_that_is_given_up_keeps_the_batches_it_finished(case: Case, tmp_path: Path) -> None:
    task, stop = dataclasses.replace(_task(case), cache=tmp_path), threading.Event()
    finished: list[Finished] = []

    def tell(done: Finished) -> None:
        finished.append(done)
        stop.set()

    with pytest.raises(TrainingInterruptedError):
        train(task, TaskControl(stop, tell))
    first, second = task.batches()
    assert [done.model_id for done in finished] == [spec.model_id for spec in first]
    blocks, again = _finished(task)
    assert blocks == _alone(task)
    assert {done.model_id for done in again if not done.cached} == {spec.model_id for spec in second}


def _learner(**params: Any) -> Learner:
    return make_learner(parse_config({"zoo": {"learner": "levels", "params": params}}).zoo, "cpu")[0]


@pytest.mark.parametrize("weighed", [False, True])
def test_labels_that_are_missing_in_one_target_are_not_in_the_others(weighed: bool) -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(-1, 5, (12, 4_000)).astype(np.int8)
    label_BN = (0.5 + 0.1 * values[:4] + 0.2 * rng.normal(size=(4, 4_000))).astype(np.float32)
    label_BN[1, :1500] = np.nan
    label_BN[2, rng.random(4_000) < 0.3] = np.nan
    weight_N = rng.random(4_000).astype(np.float32) if weighed else None
    learner = _learner(**PARAMS)
    assert isinstance(learner, Levels)
    matrix = learner.matrix(pa.table({f"f{n}": pa.array(row) for n, row in enumerate(values)}))
    label_BN.flags.writeable = False
    blocks = learner.fit_together(matrix, label_BN, weight_N, trees=7, seed=5)
    assert blocks == [learner.fit(matrix, label_N, weight_N, trees=7, seed=5) for label_N in label_BN]
    label_BN = label_BN.copy()
    label_BN[3] = np.nan
    with pytest.raises(RunError, match="no training row has a label"):
        learner.fit_together(matrix, label_BN, weight_N, trees=7, seed=5)


@pytest.mark.parametrize("models", [1, 5])
@pytest.mark.parametrize("weighed", [False, True])
def test_memory_is_as_stated(models: int, weighed: bool) -> None:
    """The peak, labels and weights included, is below the figure, and not far from what this counts for the models."""
    rng, rows = np.random.default_rng(3), 300_000
    learner = _learner(max_depth=4)
    assert isinstance(learner, Levels)
    matrix = learner.matrix(pa.table({f"f{n}": pa.array(rng.integers(0, 5, rows).astype(np.int8)) for n in range(30)}))
    learner.fit_together(matrix, np.zeros((1, rows), np.float32), None, trees=1, seed=1)  # compiled
    tracemalloc.start()
    try:
        label_BN = rng.random((models, rows), dtype=np.float32)
        weight_N = rng.random(rows, dtype=np.float32) if weighed else None
        learner.fit_together(matrix, label_BN, weight_N, trees=3, seed=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    planned = learner.bytes_needed(rows, 30, 1, models)
    assert 0.6 * (planned - rows * BYTES_PER_ROW) < peak < planned


class _Slow(Growth):
    """Rounds that take a time each; says how many were asked for at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked = seconds, list[int]()

    def grow(self, rounds: int) -> list[list[Tree]]:
        self.asked.append(rounds)
        time.sleep(rounds * self.seconds)
        return [[] for _ in range(rounds)]


@pytest.mark.parametrize(("seconds", "most"), [(0.002, 0.5), (0.3, 0.7)])
def test_it_stops_within_a_call_of_bounded_length(seconds: float, most: float) -> None:
    """After a fifth of a second or a round, whichever is longer, whatever number of rounds fits into it."""
    stop, slow = threading.Event(), _Slow(seconds)
    threading.Timer(0.7, stop.set).start()
    began = time.perf_counter()
    with pytest.raises(TrainingInterruptedError):
        grown(slow, 10**6, stop)
    assert time.perf_counter() - began < 0.7 + most
    assert slow.asked[0] == 1
    assert max(slow.asked) == 1 if seconds > 0.2 else 16 <= max(slow.asked) <= 100


def test_training_stops_soon_after_the_caller_gives_up() -> None:
    rng, stop = np.random.default_rng(1), threading.Event()
    values = rng.integers(0, 5, (40, 60_000)).astype(np.int8)
    learner = _learner(**PARAMS)
    matrix = learner.matrix(pa.table({f"f{n}": pa.array(row) for n, row in enumerate(values)}))
    label_N = rng.random(60_000).astype(np.float32)
    learner.fit(matrix, label_N, None, trees=1, seed=1)  # compiled
    threading.Timer(0.5, stop.set).start()
    began = time.perf_counter()
    with pytest.raises(TrainingInterruptedError):
        learner.fit(matrix, label_N, None, trees=10**6, seed=1, stop=stop)
    assert time.perf_counter() - began < 2.0


def test_all_rounds_asked_for_are_grown_and_no_more() -> None:
    slow = _Slow(0.0)
    assert len(grown(slow, 137, None)) == 137
    assert sum(slow.asked) == 137
    assert len(slow.asked) < 8


def test_a_zoo_of_many_targets_is_one_of_single_ones(case: Case) -> None:
    """Several workers and split tasks, against models trained one by one."""
    zoo, found = _zoo(case, workers=3), 0
    for task, trained in zoo.run(zoo.start_tasks([spec for spec in case.specs if spec.feature_set == "small"], 42)):
        assert trained.blocks == _alone(task)
        found += len(trained.blocks)
    assert found == sum(spec.feature_set == "small" for spec in case.specs)
