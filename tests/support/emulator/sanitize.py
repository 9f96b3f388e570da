"""Cases under a sanitizer, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from .compiler import Sanitizer, compiler_missing, preload

OPTIONS: dict[Sanitizer, dict[str, str]] = {
    "none": {},
    "address": {"ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1"},
    "thread": {"TSAN_OPTIONS": "halt_on_error=1:report_bugs=1"},
}


def run(sanitizer: Sanitizer, *cases: str, edit: tuple[str, str] = ("", "")) -> subprocess.CompletedProcess[str]:
    """Runs cases of `cases.py`, with an edit to the kernels' sources, and returns the finished process.

    Skips the test, with the reason, where the compiler lacks that sanitizer, or Python does not start under it.
    """
    if reason := compiler_missing(sanitizer) or _does_not_start(sanitizer):
        pytest.skip(reason)
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "emulator", sanitizer, json.dumps(edit), *cases],
        cwd=Path(__file__).resolve().parent.parent,
        env={**os.environ, **_library(sanitizer), **OPTIONS[sanitizer], **one_thread},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _library(sanitizer: Sanitizer) -> dict[str, str]:
    return {} if sanitizer == "none" else {"LD_PRELOAD": preload(sanitizer)}


@cache
def _does_not_start(sanitizer: Sanitizer) -> str:
    """Why a Python that does nothing fails under a sanitizer: libraries of older compilers crash on some machines."""
    environment = {**os.environ, **_library(sanitizer), **OPTIONS[sanitizer]}
    done = subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    what = f"Python does not start under the {sanitizer} sanitizer of this compiler"
    return f"{what}: exit {done.returncode} {done.stderr[-300:]}"
