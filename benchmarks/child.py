"""Measures a job in a process of its own: time, CPU time, time in fsync, and the peak of its anonymous memory.

python -m benchmarks.child MODULE:FUNCTION ARGUMENT...
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 0.005


@dataclass(frozen=True)
class Cost:
    """Cost of a job.

    Attributes:
        seconds, cpu: wall and CPU time, without the time in fsync.
        synced: seconds in fsync.
        anonymous: peak of anonymous resident memory, of descendants too, above what was held before, bytes.
        peak: the same peak with what it held before.
        resident: peak of all resident memory, pages of files among it, bytes.
    """

    seconds: float
    cpu: float
    synced: float
    anonymous: int
    peak: int
    resident: int


def measure(job: str, *arguments: object) -> Cost:
    """Run `module:function` with text arguments in a fresh process; `function.prepare`, if any, runs before the clock.

    Raises:
        RuntimeError: the job failed.
    """
    command = [sys.executable, "-m", "benchmarks.child", job, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{job} failed:\n{done.stderr}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def anonymous_memory(process: int | str = "self", kind: str = "RssAnon") -> int:
    """Bytes of anonymous memory that a process holds, or of another kind of /proc/PID/status."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    return 0


def _family(process: int) -> Iterator[int]:
    """A process and its descendants."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from _family(int(child))


def _held() -> int:
    total = 0
    for process in _family(os.getpid()):
        with suppress(OSError):  # it ended meanwhile
            total += anonymous_memory(process)
    return total


class _Peak(threading.Thread):
    """Samples the anonymous memory of the process and its descendants."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            with suppress(OSError):
                self.highest = max(self.highest, _held())


def _main(job: str, arguments: list[str]) -> Cost:
    module, _, name = job.partition(":")
    function = getattr(importlib.import_module(module), name)
    prepare = getattr(importlib.import_module(module), f"prepare_{name}", None)
    if prepare is not None:
        prepare()
    synced, fsync = [0.0, 0.0], os.fsync

    def timed(fd: Any) -> None:
        begin, cpu = time.perf_counter(), time.thread_time()
        fsync(fd)
        synced[0] += time.perf_counter() - begin
        synced[1] += time.thread_time() - cpu

    os.fsync = timed
    before, peak = anonymous_memory(), _Peak()
    peak.start()
    wall, cpu = time.perf_counter(), time.process_time()
    function(*arguments)
    seconds, cpu = time.perf_counter() - wall - synced[0], time.process_time() - cpu - synced[1]
    peak.ended.set()
    resident = anonymous_memory(kind="VmHWM")
    return Cost(seconds, cpu, synced[0], max(0, peak.highest - before), peak.highest, resident)


if __name__ == "__main__":
    print(json.dumps(asdict(_main(sys.argv[1], sys.argv[2:]))))
