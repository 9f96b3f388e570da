"""Resources that a run uses, by stage: CPU time, memory, and the GPU's load, power and energy."""

from __future__ import annotations

import functools
import importlib
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from eravane.core.errors import DeviceError
from eravane.core.memory import status_bytes

NVML = "eravane.backend.cuda_nvml"
INTERVAL_SECONDS = 0.2
# Rows of the stored series; when it is full, every second sample is dropped and the pauses double.
MOST_SAMPLES = 4096


class GpuMeter(Protocol):
    """Reads the counters of GPUs; counters that cannot be read are absent."""

    def sample(self) -> Mapping[str, float]:
        """Present values by name."""
        ...

    def joules(self) -> float | None:
        """Energy used since a fixed time."""
        ...


class _Seen:
    """Summary of the samples of a stage."""

    def __init__(self) -> None:
        self._count, self._throttled = 0, Counter[int]()
        self._sums: dict[str, float] = defaultdict(float)
        self._peaks: dict[str, float] = {}

    def add(self, sample: Mapping[str, float]) -> None:
        """Add a sample."""
        self._count += 1
        for name, value in sample.items():
            self._sums[name] += value
            self._peaks[name] = max(value, self._peaks.get(name, value))
        if "throttle" in sample:
            self._throttled[int(sample["throttle"])] += 1

    def as_dict(self) -> dict[str, object]:
        """Peak of memory, and what the GPUs did, if there are any."""
        gpu: dict[str, object] = {
            name: round(self._sums[name] / self._count, 2)
            for name in ("utilisation", "power_watts", "sm_mhz")
            if name in self._sums
        }
        if "memory_bytes" in self._peaks:
            gpu["memory_bytes"] = int(self._peaks["memory_bytes"])
        if self._throttled:
            gpu["throttled"] = self._reasons()
        return {"peak_bytes": int(self._peaks["rss_bytes"])} | ({"gpu": gpu} if gpu else {})

    def _reasons(self) -> dict[str, float]:
        throttles: Mapping[int, str] = importlib.import_module(NVML).THROTTLES
        seen = {
            reason: sum(n for bits, n in self._throttled.items() if bits & bit) for bit, reason in throttles.items()
        }
        return {reason: round(count / self._count, 4) for reason, count in seen.items() if count}


@dataclass(frozen=True, eq=False)
class Mark:
    """The start of a stage: CPU seconds and joules until then, and the samples since."""

    cpu: float
    joules: float | None
    seen: _Seen


class Telemetry:
    """Samples this process and its GPUs in a thread; use as a context manager.

    Args:
        gpus: counters of the GPUs; None leaves GPUs out.
        interval: seconds between samples.
    """

    def __init__(self, gpus: GpuMeter | None = None, interval: float = INTERVAL_SECONDS) -> None:
        self._gpus, self._interval, self._pause = gpus, interval, interval
        self._samples: list[dict[str, float]] = []
        self._marks: list[Mark] = []
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._started = time.perf_counter()

    def __enter__(self) -> Telemetry:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def mark(self) -> Mark:
        """Begin a stage; stages may nest and overlap."""
        mark = Mark(time.process_time(), self._joules(), _Seen())
        with self._lock:
            self._marks.append(mark)
        return mark

    def since(self, mark: Mark) -> dict[str, Any]:
        """End a stage and return the resources it used, JSON-able.

        Returns:
            `cpu` (seconds of all threads), `peak_bytes` (sampled peak of anonymous memory), and where there are GPUs
            `joules` (whole boards, other programs' share included) and `gpu`: mean `utilisation`, `power_watts` and
            `sm_mhz`, peak `memory_bytes`, and `throttled`: reason -> share of the samples.
        """
        self.sample()
        joules = self._joules()
        with self._lock:
            self._marks.remove(mark)
        used: dict[str, Any] = {"cpu": round(time.process_time() - mark.cpu, 4), **mark.seen.as_dict()}
        if joules is not None and mark.joules is not None:
            used["joules"] = round(joules - mark.joules, 3)
        return used

    def table(self) -> pa.Table:
        """The samples as stored in `telemetry.parquet`: `seconds`, `rss_bytes`, and columns of the GPUs if any."""
        with self._lock:
            samples = list(self._samples)
        names = list(dict.fromkeys(name for sample in samples for name in sample))
        return pa.table({name: pa.array([sample.get(name) for sample in samples], pa.float64()) for name in names})

    def _joules(self) -> float | None:
        return None if self._gpus is None else self._gpus.joules()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            self.sample()

    def sample(self) -> None:
        """Take a sample now, as the thread does every interval."""
        sample = {"seconds": time.perf_counter() - self._started, "rss_bytes": float(anonymous_bytes())}
        if self._gpus is not None:
            sample |= self._gpus.sample()
        with self._lock:
            for mark in self._marks:
                mark.seen.add(sample)
            if not self._samples or sample["seconds"] - self._samples[-1]["seconds"] >= 0.9 * self._pause:
                self._samples.append(sample)
            if len(self._samples) >= MOST_SAMPLES:
                self._samples, self._pause = self._samples[::2], 2 * self._pause


@dataclass(frozen=True)
class WorkerUsage:
    """Resources that a task used on its worker's machine.

    Attributes:
        worker: its name in the cluster.
        host: its machine.
        task: what it did.
        seconds: how long that took.
        used: `Telemetry.since` of its process; tasks that run at the same time in one process share these numbers.
    """

    worker: str
    host: str
    task: str
    seconds: float
    used: Mapping[str, object]

    def as_dict(self) -> dict[str, object]:
        """All fields in one dictionary, JSON-able."""
        facts = {"worker": self.worker, "host": self.host, "task": self.task, "seconds": round(self.seconds, 4)}
        return facts | dict(self.used)


@dataclass(frozen=True)
class UsageReporter:
    """Receives the resources that tasks used on other workers.

    Attributes:
        gpus: whether their GPUs are sampled.
        report: called with the resources of a task.
    """

    gpus: bool
    report: Callable[[WorkerUsage], None] = field(compare=False)


@contextmanager
def on_worker(worker: str, task: str, *, gpus: bool) -> Iterator[Callable[[], WorkerUsage]]:
    """Sample a worker's process and, if requested, its GPU; the yielded function returns the resources used."""
    began = time.perf_counter()
    with Telemetry(meter_of_worker() if gpus else None) as telemetry:
        mark = telemetry.mark()
        yield lambda: WorkerUsage(
            worker, socket.gethostname(), task, time.perf_counter() - began, telemetry.since(mark)
        )


@functools.cache
def meter_of_worker() -> GpuMeter | None:
    """The worker's own GPU: Dask lists the others after it. Opened once per process, which takes a while."""
    return gpu_meter(1)


def gpu_meter(most: int | None = None) -> GpuMeter | None:
    """Counters of the GPUs that this process may use; None where there is no GPU or no driver.

    Args:
        most: leave out all but the first ones (None: no limit).
    """
    try:
        meter: GpuMeter = importlib.import_module(NVML).Gpus(most)
    except (ImportError, DeviceError):
        return None
    return meter


def anonymous_bytes() -> int:
    """Bytes of anonymous memory of this process: memory that no file backs."""
    return status_bytes("RssAnon")
