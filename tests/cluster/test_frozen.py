"""Clusters that stop answering, and clusters of other versions: work goes on elsewhere or ends in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from distributed import Client, LocalCluster

from eravane.core.errors import RunError
from eravane.planning.machine import why_unusable
from eravane.zoo import cluster as zoo_cluster
from eravane.zoo import clustercheck
from eravane.zoo.cluster import connect, run_on_dask
from eravane.zoo.clustercheck import bounded, check_versions
from tests.cluster.work import pause
from tests.support import workers


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than a healthy worker is silent under load, and short of the 45 seconds that a run waits.
    monkeypatch.setattr(clustercheck, "SILENT_SECONDS", 6.0)
    monkeypatch.setattr(clustercheck.Heartbeats, "CHECK_EVERY", 1.0)
    monkeypatch.setattr(zoo_cluster, "PATIENCE_SECONDS", 20.0)
    monkeypatch.setattr(zoo_cluster, "CONNECT_SECONDS", 30)


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with workers.cluster(2) as started:
        yield started


def _pids(cluster: LocalCluster) -> list[int]:
    with Client(cluster.scheduler_address) as client:
        return list(client.run(os.getpid).values())


def test_a_frozen_worker_loses_its_tasks_to_others(
    cluster: LocalCluster, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    frozen, _ = _pids(cluster)
    threading.Timer(0.7, os.kill, (frozen, signal.SIGSTOP)).start()
    started = time.monotonic()
    try:
        found = dict(result for _, result in run_on_dask(pause, list(range(8)), cluster.scheduler_address, None))
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert sorted(found) == list(range(8))
    assert time.monotonic() - started < 150
    assert "has been silent for" in caplog.text
    assert "its tasks go to other workers" in caplog.text


def test_a_frozen_scheduler_ends_in_a_sentence(
    impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clustercheck, "SILENT_SECONDS", 3.0)  # no healthy worker waits
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    with subprocess.Popen(
        [*command, "--scheduler-file", str(file)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as scheduler:
        try:
            while not file.exists():
                time.sleep(0.2)
            time.sleep(0.5)
            with Client(scheduler_file=str(file)) as client:
                address = client.scheduler.address
            threading.Timer(1.0, scheduler.send_signal, (signal.SIGSTOP,)).start()
            with pytest.raises(
                RunError,
                match=r"Dask scheduler at .* (has not answered for|is gone|has no workers)|no Dask scheduler answers",
            ):
                list(run_on_dask(pause, [1], address, None))
        finally:
            scheduler.send_signal(signal.SIGCONT)
            scheduler.kill()


def test_equal_versions_pass_and_others_are_named(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    address = cluster.scheduler_address
    with connect(address) as client:
        check_versions(client, address)
    assert why_unusable(address) == ""
    monkeypatch.setattr(clustercheck, "__version__", "9.9.9")
    with connect(address) as client, pytest.raises(RunError, match=r"has eravane 0\.\d.*, here it is 9\.9\.9; install"):
        check_versions(client, address)
    assert "here it is 9.9.9; install the same versions everywhere" in why_unusable(address)


def test_another_python_is_named() -> None:
    here = {"host": {"python": "3.11.7.final.0"}, "packages": {"xgboost": "3.2.0", "distributed": "2026.1"}}
    other = {"host": {"python": "3.13.1.final.0"}, "packages": here["packages"]}
    found = {"client": here, "scheduler": here, "workers": {"tcp://b:1": other}}
    client = cast(Client, SimpleNamespace(get_versions=lambda **_: found))
    with pytest.raises(RunError, match=r"worker tcp://b:1 has Python 3\.13, here it is 3\.11"):
        check_versions(client, "tcp://a:1")


def test_a_call_that_never_returns_is_left() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        bounded(lambda: time.sleep(30), 0.2)
    assert time.monotonic() - started < 25
    assert bounded(lambda: 7, 5) == 7
