"""What is imported is declared: a bare machine has nothing that came with somebody else's environment."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"eravane", "eravane_kernels", "benchmarks", "tests", "emulator"}
# Modules whose distribution has another name.
DISTRIBUTIONS = {
    "cuda": ("cuda-bindings",),
    "cupy": ("cupy-cuda12x", "cupy-cuda13x"),
    "cupyx": ("cupy-cuda12x", "cupy-cuda13x"),
    "pylibcudf": ("cudf-cu12", "cudf-cu13"),
    "rmm": ("rmm-cu12", "rmm-cu13"),
    "dask_cuda": ("dask-cuda",),
    "dotenv": ("python-dotenv",),
    "llvmlite": ("numba",),
    "pynvml": ("nvidia-ml-py",),
    "sklearn": ("scikit-learn",),
    "xgboost": ("xgboost-cpu",),
    "yaml": ("pyyaml",),
}
# Imported where it is there, and reported where it is not.
OPTIONAL = {"cudf", "falcata", "polars"}


def _declared(*extras: str) -> set[str]:
    lines = [*PROJECT["dependencies"], *(line for name in extras for line in PROJECT["optional-dependencies"][name])]
    return {re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0].lower() for line in lines}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("engine", ("cpu", "cu12", "cu13", "lightgbm")),
        ("kernels", ("cu12", "cu13")),
        ("benchmarks", tuple(PROJECT["optional-dependencies"])),
        ("tests", tuple(PROJECT["optional-dependencies"])),
    ],
)
def test_every_import_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    declared = _declared(*extras)
    missing: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module in _imports(path):
            if module in sys.stdlib_module_names | OWN | OPTIONAL:
                continue
            if declared.isdisjoint(DISTRIBUTIONS.get(module, (module.replace("_", "-").lower(), module.lower()))):
                missing[module] = str(path.relative_to(ROOT))
    assert missing == {}


def test_every_python_that_is_promised_has_a_lock() -> None:
    promised = {line.split()[-1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    locked = {path.stem.removeprefix("python") for path in (ROOT / "constraints").glob("python*.txt")}
    assert promised == locked


@pytest.mark.parametrize("lock", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda path: path.stem)
def test_locks_cover_what_is_declared_and_name_no_address(lock: Path) -> None:
    text = lock.read_text()
    locked = set(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE))
    assert "://" not in text
    extras = ("cu13",) if lock.stem == "cu13" else ("cpu", "dev")
    assert {name.replace("_", "-") for name in _declared(*extras)} - locked == set()
