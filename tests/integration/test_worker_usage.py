"""What workers of a Dask cluster use: sampled where they run, sent with their results, shown in the report."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

from eravane.core import telemetry
from eravane.core.telemetry import UsageReporter, WorkerUsage
from eravane.pipeline.batch import run
from eravane.report.facts import worker_usage
from eravane.report.load import load_run
from eravane.zoo import cluster as zoo_cluster
from eravane.zoo.executor import run_tasks
from eravane.zoo.fleet import TaskControl
from tests.support import workers
from tests.support.nvml import NVML, Driver
from tests.support.zoo_case import Case, configured, make_case

SECONDS, BALLAST = 0.3, 50_000_000


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with workers.cluster(2) as started:
        yield started


def _install(boards: int, dask_worker: Any = None) -> None:
    """A driver of so many boards on a worker, which sees its own board first, as Dask arranges it."""
    sys.modules["pynvml"] = Driver(boards)
    sys.modules.pop(NVML, None)
    telemetry.meter_of_worker.cache_clear()
    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1" if dask_worker.name == 0 else "1,0"


def _work(task: int, control: TaskControl) -> int:
    ballast, ends = np.ones(BALLAST, dtype=np.int8), time.perf_counter() + SECONDS
    while time.perf_counter() < ends:
        time.sleep(0.01)
    return task + len(ballast)


def _usages(cluster: LocalCluster, boards: int, *, gpus: bool, tasks: int = 6) -> list[WorkerUsage]:
    usages: list[WorkerUsage] = []
    with Client(cluster) as client:
        client.run(_install, boards)
    done = run_tasks(
        _work, range(tasks), scheduler=cluster.scheduler_address, reporter=UsageReporter(gpus, usages.append)
    )
    assert sorted(result - task for task, result in done) == [BALLAST] * tasks
    return usages


def test_each_task_tells_what_it_used_on_its_worker(cluster: LocalCluster) -> None:
    usages = _usages(cluster, 2, gpus=True)
    assert len(usages) == 6
    assert {usage.worker for usage in usages} == {"0", "1"}
    for usage in usages:
        watts, busy = (300, 80) if usage.worker == "0" else (100, 40)
        assert usage.task == "_work"
        assert SECONDS <= usage.seconds < 10 * SECONDS
        assert usage.used["peak_bytes"] > BALLAST
        assert usage.used["cpu"] < usage.seconds
        assert usage.used["gpu"]["power_watts"] == watts
        assert usage.used["gpu"]["utilisation"] == busy
        assert usage.used["joules"] == pytest.approx(watts * usage.seconds, rel=0.2)


@pytest.mark.parametrize(("boards", "gpus"), [(0, True), (2, False)])
def test_without_a_gpu_nothing_is_reported_of_one(cluster: LocalCluster, boards: int, gpus: bool) -> None:
    for usage in _usages(cluster, boards, gpus=gpus, tasks=2):
        assert set(usage.as_dict()) == {"worker", "host", "task", "seconds", "cpu", "peak_bytes"}


def test_a_run_on_a_cluster_reports_its_workers(case: Case, cluster: LocalCluster, tmp_path: Path) -> None:
    config = configured(compute={"device": "cpu", "scheduler": cluster.scheduler_address})
    out = run(case.data, config, tmp_path / "run", cache=tmp_path / "cache").path
    events = [event for event in load_run(out).events if event["event"] == "worker"]
    assert {event["worker"] for event in events} == {"0", "1"}
    assert all(event["seconds"] > 0 and event["peak_bytes"] > 10**7 and "gpu" not in event for event in events)
    used = worker_usage(load_run(out))
    assert used["tasks"].sum() == len(events)
    assert used["cpu"].sum() == pytest.approx(sum(event["cpu"] for event in events))
    page = (out / "report.html").read_text()
    assert "Used by workers" in page
    assert all(name in page for name in used.index)


def test_a_booster_over_the_cluster_is_sampled_on_every_worker(case: Case, cluster: LocalCluster) -> None:
    usages: list[WorkerUsage] = []
    zoo = case.zoo(scheduler=cluster.scheduler_address, booster_spans="cluster")
    zoo.reporter = UsageReporter(False, usages.append)
    tasks = zoo.fold_tasks([spec for spec in case.specs if spec.feature_set == "small"][:2])
    assert len(list(zoo.run(tasks))) == len(tasks)
    assert sorted((usage.task, usage.worker) for usage in usages) == sorted(
        (task.label, worker) for task in tasks for worker in "01"
    )
    assert all(usage.seconds > 0 and usage.used["cpu"] > 0 and usage.used["peak_bytes"] > 10**7 for usage in usages)
    with Client(cluster) as client:
        with pytest.raises(ZeroDivisionError), zoo_cluster.sampled(client, "fails", zoo.reporter):
            raise ZeroDivisionError
        threads = client.run(lambda: [thread.name for thread in threading.enumerate()])
        assert not any("telemetry" in names for names in threads.values())


def test_a_worker_that_has_just_died_does_not_end_the_sampling() -> None:
    usages: list[WorkerUsage] = []
    with (
        workers.cluster(2) as started,
        Client(started) as client,
    ):
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        with zoo_cluster.sampled(client, "task", UsageReporter(False, usages.append)):
            pass
    assert usages  # the other worker is sampled


def test_what_workers_used_is_put_together(tmp_path: Path) -> None:
    lines = [
        '{"event": "worker", "worker": "0", "host": "a", "seconds": 1, "cpu": 1, "peak_bytes": 5, "joules": 100,'
        ' "gpu": {"utilisation": 90, "power_watts": 200, "throttled": {"power cap": 1}}}',
        '{"event": "worker", "worker": "0", "host": "a", "seconds": 3, "cpu": 2, "peak_bytes": 4, "joules": 300,'
        ' "gpu": {"utilisation": 50, "power_watts": 100}}',
        '{"event": "worker", "worker": "1", "host": "b", "seconds": 2, "cpu": 2, "peak_bytes": 6}',
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    used = worker_usage(load_run(tmp_path))
    one, other = used.loc["0 on a"], used.loc["1 on b"]
    assert (one["tasks"], one["seconds"], one["cpu"], one["peak_bytes"], one["joules"]) == (2, 4, 3, 5, 400)
    assert (one["gpu_utilisation"], one["gpu_power_watts"], one["throttled"]) == (60, 125, "power cap")
    assert (other["tasks"], other["seconds"]) == (1, 2)
    assert np.isnan([other["joules"], other["gpu_utilisation"]]).all()
