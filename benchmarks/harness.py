"""Common parts of benchmarks: timing, results against goals, the record of the machine, both forms of a report."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

# Factor within which a prediction counts as right.
RIGHT_WITHIN = 1.5
LIBRARIES = (
    "numpy",
    "numba",
    "scipy",
    "pandas",
    "polars",
    "numerai-tools",
    "scikit-learn",
    "torch",
    "xgboost-cpu",
    "xgboost-cu12",
    "xgboost-cu13",
    "cupy-cuda12x",
    "cupy-cuda13x",
)


@dataclass(frozen=True)
class Result:
    """One number, the goal it should reach (None: for information), and how it came about (in the printed report)."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    better: Literal["higher", "lower"] = "higher"
    detail: str = field(default="", compare=False)

    @property
    def verdict(self) -> str:
        """`met` or `MISSED`, empty without a goal."""
        if self.goal is None:
            return ""
        reached = self.value >= self.goal if self.better == "higher" else self.value <= self.goal
        return "met" if reached else "MISSED"


@dataclass(frozen=True)
class Job:
    """Something to time; `share` is the part of the whole job that `call` does."""

    name: str
    call: Callable[[], Any]
    share: float = 1.0


def seconds(jobs: Sequence[Job], repeats: int) -> list[float]:
    """Median CPU seconds of the whole of every job, all jobs in turn in every round, after one round to warm up.

    CPU time of the process, all its threads together: on an idle machine with one thread it is the time that passes,
    and on a busy one it does not count what other programs take from whichever job runs longest.
    """
    taken: list[list[float]] = [[] for _ in jobs]
    for turn in range(repeats + 1):
        for job, times in zip(jobs, taken, strict=True):
            begin = time.process_time()
            job.call()
            if turn:
                times.append((time.process_time() - begin) / job.share)
    return [statistics.median(times) for times in taken]


def ratio(name: str, ours: Job, peer: Job, repeats: int, goal: float | None) -> Result:
    """Ratio of the peer's time to ours."""
    fast, slow = seconds([ours, peer], repeats)
    return Result(name, slow / fast, "x", goal, "higher", described({ours: fast, peer: slow}))


def off(name: str, predicted: float, measured: float, unit: str) -> Result:
    """The factor between what the cost model predicts and what was measured, whichever of the two is the greater."""
    factor = max(predicted / measured, measured / predicted) if predicted > 0 and measured > 0 else math.inf
    detail = f"predicted {predicted:,.3g} {unit}, measured {measured:,.3g} {unit}"
    return Result(name, factor, "x", RIGHT_WITHIN, "lower", detail)


def described(times: dict[Job, float]) -> str:
    """Times in words."""
    parts = []
    for job, taken in times.items():
        scaled = "" if job.share == 1.0 else f" (from {job.share:.3g} of the job)"
        parts.append(f"{job.name} {1000 * taken:,.2f} ms{scaled}")
    return ", ".join(parts)


def environment(name: str, *, quick: bool, threads: int) -> dict[str, str]:
    """Machine, versions and command of a run."""
    command = f"python -m benchmarks {name}{' --quick' if quick else ''}"
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command if threads == 1 else f"{command} --threads {threads}",
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "gpu": _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or "none",
        "threads": str(threads),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }
    return facts | {library: version for library in LIBRARIES if (version := _version(library))}


def _processor() -> str:
    lines = _output("lscpu").splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("Model name:")]
    return named[0] if named else platform.processor() or "unknown"


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def report(name: str, facts: dict[str, str], results: Sequence[Result]) -> str:
    """The printed report, in Markdown."""
    lines = [f"# {name}", "", *(f"- {fact}: {value}" for fact, value in facts.items() if value), ""]
    lines += ["| result | value | goal | | how |", "| --- | ---: | ---: | --- | --- |"]
    for result in results:
        bound = "at least" if result.better == "higher" else "at most"
        goal = "" if result.goal is None else f"{bound} {result.goal:g} {result.unit}"
        value = f"{result.value:,.3g} {result.unit}" if result.value < 1000 else f"{result.value:,.0f} {result.unit}"
        lines.append(f"| {result.name} | {value} | {goal} | {result.verdict} | {result.detail} |")
    return "\n".join(lines)


def write_json(path: Path, facts: dict[str, str], results: Sequence[Result]) -> None:
    """Environment and results: name, value, unit, goal and better of each."""
    rows = [{key: value for key, value in asdict(result).items() if key != "detail"} for result in results]
    path.write_text(json.dumps({"environment": facts, "results": rows}, indent=2) + "\n")


def say(line: str) -> None:
    """Print progress on stderr, apart from the report."""
    print(line, file=sys.stderr, flush=True)
