"""What a run uses: sampled on a fake driver, absent where there is no GPU, cheap."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eravane.core import telemetry
from eravane.core.errors import DeviceError
from eravane.core.events import EventLog
from eravane.core.telemetry import Telemetry, gpu_meter
from eravane.report.facts import stage_usage
from eravane.report.load import load_run
from eravane.report.page import render
from tests.support.nvml import NVML, Driver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """A driver in place of the real one, and the module that reads it imported anew."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made, held = Driver(), sys.modules.pop(NVML, None)
    monkeypatch.setitem(sys.modules, "pynvml", made)
    yield made
    sys.modules.pop(NVML, None)
    if held is not None:
        sys.modules[NVML] = held


def gpus() -> Any:
    return importlib.import_module(NVML).Gpus()


def test_boards_are_summed_or_averaged(driver: Driver) -> None:
    assert gpus().sample() == {
        "utilisation": 60.0,
        "memory_bytes": float(6 << 30),
        "power_watts": 400.0,
        "sm_mhz": 1800.0,
        "throttle": 4.0,
    }


@pytest.mark.parametrize(
    ("visible", "watts"),
    [
        ("1", 100.0),
        ("GPU-b", 100.0),
        ("0,1", 400.0),
        ("0", 300.0),
        ("1,MIG-x,0", 100.0),
        ("MIG-known", 100.0),
        ("0,9", 300.0),
    ],
)
def test_only_visible_boards_count(driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str, watts: float) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus().sample()["power_watts"] == watts


@pytest.mark.parametrize(
    ("visible", "message"),
    [
        ("", "set and empty, which hides every GPU; unset it"),
        ("-1", "-1 hides every GPU listed after it, so that none is left"),
        ("MIG-3", "no MIG instance of this machine is 'MIG-3'"),
        ("7", "no GPU of this machine is '7', there are 0 to 1: GPU-a0, GPU-b0, so that none is left"),
        ("GPU-", "no GPU of this machine is 'GPU-'"),
        ("1,1", "names a GPU twice"),
    ],
)
def test_without_a_visible_board_there_is_no_meter(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str, message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_meter() is None
    with pytest.raises(DeviceError, match=message):
        gpus()


def test_what_the_driver_cannot_tell_is_absent(driver: Driver) -> None:
    driver.silent = {"utilisation", "energy", "reasons"}
    meter = gpus()
    assert set(meter.sample()) == {"memory_bytes", "power_watts", "sm_mhz"}
    assert meter.joules() is None
    with Telemetry(meter, 0.01) as sampler:
        used = sampler.since(sampler.mark())
    assert "joules" not in used
    assert set(used["gpu"]) == {"power_watts", "sm_mhz", "memory_bytes"}


def test_a_stage_gets_what_it_used(driver: Driver) -> None:
    with Telemetry(gpus(), 0.01) as sampler:
        mark, began, cpu = sampler.mark(), time.perf_counter(), time.process_time()
        ballast = np.ones(8_000_000)
        while time.perf_counter() - began < 0.2:
            pass
        used, took, spent = sampler.since(mark), time.perf_counter() - began, time.process_time() - cpu
    assert used["joules"] == pytest.approx(400 * took, rel=0.1)
    assert used["cpu"] == pytest.approx(spent, rel=0.1)
    assert used["peak_bytes"] > ballast.nbytes
    assert used["gpu"] == {
        "utilisation": 60.0,
        "power_watts": 400.0,
        "sm_mhz": 1800.0,
        "memory_bytes": 6 << 30,
        "throttled": {"power cap": 1.0},
    }


def test_without_a_gpu_rows_are_absent_not_zero(driver: Driver, tmp_path: Path) -> None:
    driver.boards = 0
    meter = gpu_meter()
    assert meter is None
    with Telemetry(meter, 0.01) as sampler:
        log = EventLog(tmp_path / "events.jsonl", "cpu", sampler)
        with log.stage("zoo", models=3):
            time.sleep(0.5)  # fifty samples, of which a loaded machine takes a few
        table = sampler.table()
    (event,) = load_run(tmp_path).events
    assert set(event) == {"event", "stage", "seconds", "models", "cpu", "peak_bytes", "time", "bytes", "device"}
    assert table.column_names == ["seconds", "rss_bytes"]
    assert table.num_rows >= 2


def test_a_missing_binding_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    held = sys.modules.pop(NVML, None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    try:
        assert gpu_meter() is None
    finally:
        if held is not None:
            sys.modules[NVML] = held


def test_the_series_stays_short_and_even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MOST_SAMPLES", 16)
    with Telemetry(interval=0.002) as sampler:
        time.sleep(1.0)
        table = sampler.table()
    times = table["seconds"].to_numpy()
    assert 6 <= times.size < 16
    assert times[-1] > 0.25
    assert np.all(np.diff(times) > 0)


def test_sampling_takes_less_than_a_hundredth_of_a_core(driver: Driver) -> None:
    """CPU time of a sample times samples per second, with a driver that answers at once."""
    sampler, rounds = Telemetry(gpus()), 300
    mark, began = sampler.mark(), time.thread_time()
    for _ in range(rounds):
        sampler.sample()
    share = (time.thread_time() - began) / rounds / telemetry.INTERVAL_SECONDS
    assert driver.calls >= 5 * rounds
    assert share < 0.01
    assert sampler.since(mark)["gpu"]["utilisation"] == 60.0


def test_the_report_shows_what_stages_used(tmp_path: Path) -> None:
    gpu = {"utilisation": 90.0, "power_watts": 500.0, "sm_mhz": 1755.0, "memory_bytes": 7_000_000_000}
    events: list[dict[str, Any]] = [
        {"event": "stage", "stage": "ingest", "seconds": 3.0, "cpu": 2.5, "peak_bytes": 10**9, "device": "cuda"},
        {"event": "stage", "stage": "zoo", "seconds": 9.0, "cpu": 8.0, "peak_bytes": 2 * 10**9, "joules": 7200.0,
         "gpu": gpu | {"throttled": {"power cap": 0.5}}, "device": "cuda"},
        {"event": "usage", "stage": "loop", "cpu": 4.0, "peak_bytes": 10**9, "joules": 3600.0, "gpu": gpu},
        {"event": "usage", "stage": "loop", "cpu": 1.0, "peak_bytes": 3 * 10**9, "joules": 3600.0, "gpu": gpu},
    ]  # fmt: skip
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    view = load_run(tmp_path)
    used = stage_usage(view)
    assert list(used.index) == ["ingest", "zoo", "loop"]
    assert used.loc["loop", "cpu"] == 5.0
    assert used.loc["loop", "peak_bytes"] == 3 * 10**9
    assert used.loc["loop", "joules"] == 7200.0
    assert np.isnan(used.loc["ingest", "gpu_utilisation"])
    assert np.isnan(used.loc["ingest", "joules"])
    page = render(view).split("<script>")[0]
    assert "power cap" in page
    assert "GPU busy" in page
    assert ">2.00<" in page  # 7200 J are 2 Wh


def test_the_report_of_a_cpu_run_shows_no_gpu(tmp_path: Path) -> None:
    event = {"event": "stage", "stage": "zoo", "seconds": 3.0, "cpu": 2.5, "peak_bytes": 10**9, "device": "cpu"}
    (tmp_path / "events.jsonl").write_text(json.dumps(event) + "\n")
    page = render(load_run(tmp_path)).split("<script>")[0]
    assert "CPU time" in page
    assert "GPU" not in page
