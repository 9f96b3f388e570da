"""One step of `gpu` in this process: `python -m benchmarks.gpu_child STEP SIZES FILE` writes what it found to FILE."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu_lab import Check, Figure, Lab, SkipError, importable, this_gpu
from benchmarks.gpu_steps import STEPS, Step


def perform(step: Step, lab: Lab) -> dict[str, Any]:
    """Do a step and tell what came of it: `status` is done, failed or skipped; findings before an error are kept."""
    module, _, function = step.job.partition(":")
    job = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    found: list[Any] = []
    told: dict[str, Any] = {"step": step.name, "device": lab.name, "sizes": lab.sizes}
    begin = time.perf_counter()
    with _telemetry(lab) as used:
        try:
            found.extend(job(lab)) if not inspect.isgeneratorfunction(job) else _collect(job(lab), found)
            told["status"] = "done"
        except SkipError as reason:
            told |= {"status": "skipped", "reason": str(reason)}
        except Exception as error:
            traceback.print_exc()
            told |= {"status": "failed", "reason": f"{type(error).__name__}: {str(error).strip()[:2000]}"}
    told["checks"] = [entry.as_dict() for entry in found if isinstance(entry, Check)]
    told["figures"] = [entry.as_dict() for entry in found if isinstance(entry, Figure)]
    if told["status"] == "done" and not all(check["holds"] for check in told["checks"]):
        told |= {"status": "failed", "reason": "a check does not hold"}
    return told | {"seconds": round(time.perf_counter() - begin, 2), "used": used}


def _collect(entries: Iterator[Any], found: list[Any]) -> None:
    for entry in entries:
        print(entry, flush=True)
        found.append(entry)


@contextmanager
def _telemetry(lab: Lab) -> Iterator[dict[str, Any]]:
    used: dict[str, Any] = {}
    if not importable("eravane.core.telemetry"):
        yield used
        return
    from eravane.core.telemetry import Telemetry, gpu_meter

    with Telemetry(gpu_meter() if lab.device == "cuda" else None) as watch:
        mark = watch.mark()
        yield used
        used |= watch.since(mark)


def write(arguments: list[str]) -> None:
    """Perform the step that the arguments name."""
    name, sizes, path = arguments
    step = next(step for step in STEPS if step.name == name)
    missing = [module for module in step.needs if not importable(module)]
    if missing:
        told: dict[str, Any] = {
            "step": name,
            "status": "skipped",
            "reason": f"needs {', '.join(missing)}, not installed",
        }
    else:
        try:
            told = perform(step, this_gpu(sizes))  # type: ignore[arg-type]
        except SkipError as reason:
            told = {"step": name, "status": "skipped", "reason": str(reason)}
    Path(path).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(sys.argv[1:])
