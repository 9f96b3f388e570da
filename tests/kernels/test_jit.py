"""Compiled functions are cached where that is possible, and never outlive the sources they were made of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eravane_kernels

CALLER = """
from eravane_kernels.cpu.callee import factor
from eravane_kernels.cpu.jit import kernel

@kernel
def product(value: float) -> float:
    return value * factor()
"""
CALLEE = """
from eravane_kernels.cpu.jit import kernel

@kernel
def factor() -> float:
    return {factor}
"""
PROGRAM = """
from eravane_kernels.cpu.caller import product
from eravane_kernels.cpu.jit import cache_folder
print(product(2.0), sum(product.stats.cache_hits.values()), cache_folder())
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package with one compiled function that calls another file's."""
    copy = tmp_path / "copy" / "eravane_kernels"
    shutil.copytree(Path(eravane_kernels.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)  # the sources may be read-only
    (copy / "cpu" / "__init__.py").write_text("")
    (copy / "cpu" / "caller.py").write_text(CALLER)
    (copy / "cpu" / "callee.py").write_text(CALLEE.format(factor=3.0))
    return copy


def _run(package: Path, **environment: str) -> tuple[float, int, str]:
    """Result, how often a compiled function came from disk, and from where."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    kept |= {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=kept, capture_output=True, text=True, check=True)
    result, hits, *folder = done.stdout.split(maxsplit=2)
    return float(result), int(hits), folder[0].strip() if folder else ""


def test_a_change_in_another_file_compiles_again(package: Path) -> None:
    assert _run(package)[:2] == (6.0, 0)
    assert _run(package)[:2] == (6.0, 1)
    (package / "cpu" / "callee.py").write_text(CALLEE.format(factor=5.0))
    assert _run(package)[:2] == (10.0, 0)


def test_where_nothing_can_be_written_beside_the_sources(package: Path, tmp_path: Path) -> None:
    (package / "cpu" / "__pycache__").write_text("no folder")
    result, _, folder = _run(package, XDG_CACHE_HOME=str(tmp_path / "home"))
    assert (result, Path(folder).parent) == (6.0, tmp_path / "home" / "eravane")
    (tmp_path / "empty").mkdir()
    result, _, folder = _run(package, XDG_CACHE_HOME="/dev/null/nowhere", TMPDIR=str(tmp_path / "empty"))
    assert (result, Path(folder).parents[1]) == (6.0, tmp_path / "empty")
    result, _, folder = _run(package, NUMBA_CACHE_DIR=str(tmp_path / "chosen"))
    assert (result, Path(folder).parent) == (6.0, tmp_path / "chosen")


def test_where_nothing_can_be_written_at_all(package: Path) -> None:
    """Nothing is cached, and all works."""
    jit = package / "cpu" / "jit.py"
    jit.write_text(jit.read_text().replace("with suppress(OSError, RuntimeError):", "if not place:"))
    assert _run(package) == (6.0, 0, "")
