"""The zoo on Dask: the same bytes as in threads, whatever happens to workers and scheduler."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

from eravane.core.errors import RunError
from eravane.zoo import cluster as zoo_cluster
from eravane.zoo.executor import run_tasks
from eravane.zoo.fleet import TaskControl
from eravane.zoo.spanning import era_ranges, part_of
from eravane.zoo.trainer import Zoo
from eravane.zoo.training import Finished
from tests.support import workers
from tests.support.zoo_case import SETTINGS, Case, blocks_of, configured, make_case


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def threaded(case: Case) -> dict[tuple[str, int], bytes]:
    """The oracle: every booster, trained in one thread without a cache."""
    return blocks_of(case.zoo(workers=1), case.specs)


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with workers.cluster(2) as started:
        yield started


def _once(action: Callable[[], None]) -> Callable[[Finished], None]:
    """Do something when the first model is done."""
    calls: list[Finished] = []

    def on_model(done: Finished) -> None:
        calls.append(done)
        if len(calls) == 1:
            action()

    return on_model


def test_a_killed_worker_changes_no_byte(
    case: Case, threaded: dict[tuple[str, int], bytes], cluster: LocalCluster, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> None:
        with Client(cluster) as client:
            killed.append(min(client.run(os.getpid).values()))
        os.kill(killed[0], signal.SIGKILL)

    done: list[Finished] = []
    first = _once(kill)
    zoo = case.zoo(tmp_path / "cache", scheduler=cluster.scheduler_address)
    found = blocks_of(zoo, case.specs, lambda model: (done.append(model), first(model)))
    assert found == threaded
    assert len(killed) == 1
    assert sorted((model.model_id, model.train_last) for model in done) == sorted(threaded)  # each is reported once


def test_a_worker_that_joins_late(case: Case, threaded: dict[tuple[str, int], bytes]) -> None:
    with workers.cluster(0) as late:
        timer = threading.Timer(1.5, late.scale, (1,))
        timer.start()
        found = blocks_of(case.zoo(scheduler=late.scheduler_address), case.specs)
        timer.join()
    assert found == threaded


def test_nobody_works(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo_cluster, "PATIENCE_SECONDS", 1.0)
    with LocalCluster(n_workers=0, dashboard_address=None) as empty, pytest.raises(RunError, match="has no workers"):
        blocks_of(case.zoo(scheduler=empty.scheduler_address), case.specs)


def test_no_scheduler_answers(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo_cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(RunError, match="no Dask scheduler answers at tcp://127"):
        blocks_of(case.zoo(scheduler="tcp://127.0.0.1:9"), case.specs)


def test_a_scheduler_that_vanishes_is_one_error_and_finished_models_stay(
    case: Case, threaded: dict[tuple[str, int], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address_file = tmp_path / "scheduler.json"
    scheduler = _dask("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(address_file))
    worker = _dask(
        "worker", "--scheduler-file", str(address_file), "--nworkers", "1", "--nthreads", "1", "--no-dashboard"
    )
    try:
        with Client(scheduler_file=str(address_file), timeout="30s") as client:
            client.wait_for_workers(1, timeout=60)
            address = client.scheduler.address
        zoo = case.zoo(tmp_path / "cache", scheduler=address)

        def vanish() -> None:
            monkeypatch.setattr(
                zoo_cluster, "PATIENCE_SECONDS", 3.0
            )  # not before: a busy machine's worker needs longer
            scheduler.kill()

        with pytest.raises(RunError, match="is gone; finished models are in the cache"):
            blocks_of(zoo, case.specs, _once(vanish))
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    finished: list[Finished] = []
    assert blocks_of(case.zoo(tmp_path / "cache", workers=1), case.specs, finished.append) == threaded
    assert any(model.cached for model in finished)


def _dask(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dask", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.1)
    return process


def test_one_booster_over_two_workers(case: Case, cluster: LocalCluster) -> None:
    """Rows on two workers: the sums round otherwise, so that the predictions agree to float precision."""
    narrow = [spec for spec in case.specs if spec.feature_set == "small"][:2]
    here, there = case.zoo(workers=1), case.zoo(scheduler=cluster.scheduler_address, booster_spans="cluster")
    alone = {task.label: trained for task, trained in here.run(here.fold_tasks(narrow))}
    finished: list[Finished] = []
    together = {task.label: trained for task, trained in there.run(there.fold_tasks(narrow), finished.append)}
    assert alone.keys() == together.keys()
    assert len(finished) == sum(len(trained.blocks) for trained in alone.values())
    for label, trained in together.items():
        for name, prediction in trained.predictions.items():
            assert prediction == pytest.approx(alone[label].predictions[name], abs=1e-5)


@pytest.mark.parametrize(("every", "workers"), [(1, 2), (2, 2), (3, 2), (3, 5), (50, 2)])
def test_parts_of_a_spread_booster_hold_every_nth_era_once(case: Case, every: int, workers: int) -> None:
    """What the workers load together is what one worker would: labels, rows and features, and nothing of weight 0."""
    zoo = Zoo(
        case.store.path,
        configured(zoo=SETTINGS["zoo"] | {"every": every}),
        case.timeline,
        xgboost_device="cpu",
        cache=None,
    )
    task = dataclasses.replace(zoo.fold_tasks(case.specs)[-1], spread=workers)
    features, spec = case.features(), case.specs[0]
    parts = [part_of(task, spec, first, last) for first, last in era_ranges(task)]
    x_NC, label_N, weight_N = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    eras = features.eras(task.train_first, task.train_last)[::every]
    np.testing.assert_array_equal(x_NC, np.concatenate([features.era(era, spec.columns).values.T for era in eras]))
    expected_N = np.concatenate([features.labels(spec.target, era, era) for era in eras])
    np.testing.assert_array_equal(weight_N, ~np.isnan(expected_N))
    np.testing.assert_array_equal(label_N, np.nan_to_num(expected_N))
    assert len(x_NC) == task.rows


def test_workers_that_die_of_a_task_are_one_error() -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        workers.cluster(1) as fragile,
        pytest.raises(
            RunError,
            match=r"1 workers died of it, the last tcp:.* with [\d.]+ GB allowed .*, most likely out of memory",
        ),
    ):
        list(run_tasks(_die, ["too large"], scheduler=fragile.scheduler_address))


def _die(task: str, control: TaskControl) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
