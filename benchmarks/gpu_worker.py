"""Steps of `gpu`, one after the other in this process: `python -m benchmarks.gpu_worker SIZES PLACE FOLDER`.

Names of steps come line by line; what a step found goes to FOLDER/<step>.json, and its name to the output.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu_lab import Check, Figure, Lab, SkipError, importable, this_gpu
from benchmarks.gpu_stand_in import stand_in
from benchmarks.gpu_steps import Step, step_named

OF_GPUS = ("dask_cuda", "pylibcudf")
"""Libraries that the stand-in does without, or has doubles of."""


def perform(step: Step, lab: Lab) -> dict[str, Any]:
    """Do a step: its `status` is done, failed or skipped; findings before an error are kept."""
    needs = step.needs if lab.device == "cuda" else [name for name in step.needs if name not in OF_GPUS]
    missing = [module for module in needs if not importable(module)]
    if missing:
        return {"step": step.name, "status": "skipped", "reason": f"needs {', '.join(missing)}, not installed here"}
    module, _, function = step.job.partition(":")
    job = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    found: list[Any] = []
    result: dict[str, Any] = {"step": step.name, "device": lab.name, "sizes": lab.sizes}
    begin = time.perf_counter()
    with _telemetry(lab) as used:
        try:
            found.extend(job(lab)) if not inspect.isgeneratorfunction(job) else _collect(job(lab), found)
            result["status"] = "done"
        except SkipError as reason:
            result |= {"status": "skipped", "reason": str(reason)}
        except Exception as error:
            traceback.print_exc()
            result |= {"status": "failed", "reason": f"{type(error).__name__}: {str(error).strip()[:2000]}"}
    result["checks"] = [entry.as_dict() for entry in found if isinstance(entry, Check)]
    result["figures"] = [entry.as_dict() for entry in found if isinstance(entry, Figure)]
    if result["status"] == "done" and not all(check["holds"] for check in result["checks"]):
        result |= {"status": "failed", "reason": "a check does not hold"}
    return result | {"seconds": round(time.perf_counter() - begin, 2), "used": used}


def _collect(entries: Iterator[Any], found: list[Any]) -> None:
    for entry in entries:
        print(entry, file=sys.stderr, flush=True)
        found.append(entry)


@contextmanager
def _telemetry(lab: Lab) -> Iterator[dict[str, Any]]:
    used: dict[str, Any] = {}
    if not importable("eravane.core.telemetry"):
        yield used
        return
    from eravane.core.telemetry import Telemetry, gpu_meter

    with Telemetry(gpu_meter() if lab.device == "cuda" else None) as telemetry:
        mark = telemetry.mark()
        yield used
        used |= telemetry.since(mark)


def serve(sizes: str, place: str, folder: Path) -> None:
    """Do the steps whose names come in, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    try:
        lab: Lab | SkipError = stand_in() if place == "stand-in" else this_gpu(sizes)  # type: ignore[arg-type]
    except SkipError as reason:
        lab = reason
    for line in sys.stdin:
        step = step_named(line.strip())
        if isinstance(lab, SkipError):
            result: dict[str, Any] = {"step": step.name, "status": "skipped", "reason": str(lab)}
        else:
            result = perform(step, lab)
            gc.collect()
            lab.release()
        path = folder / f"{step.name}.json"
        path.with_suffix(".part").write_text(json.dumps(result) + "\n", encoding="utf-8")
        path.with_suffix(".part").replace(path)
        print(step.name, file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
