"""What must hold of the code as a whole: light imports, small files, every folder described."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "engine" / "eravane", ROOT / "kernels" / "eravane_kernels")
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
HEAVY = {
    "torch",
    "xgboost",
    "numba",
    "pandas",
    "cupy",
    "cudf",
    "rmm",
    "dask",
    "dask_cuda",
    "distributed",
    "pynvml",
    "plotly",
}
GPU = {"cupy", "cudf", "rmm", "dask_cuda", "pynvml"}
WHOLE_BATCH = "import eravane.pipeline.batch, eravane_kernels.cpu, eravane.backend"
MOST_LINES = 400
LONGEST_FUNCTION = 60


@cache
def _loaded_by(statement: str) -> tuple[set[str], bool]:
    """Packages that a fresh interpreter has loaded after a statement, and whether it has mapped CUDA's driver."""
    code = (
        f"{statement}\nimport sys\nprint(' '.join({{name.partition('.')[0] for name in sys.modules}}))\n"
        "print('libcuda.so' in open('/proc/self/maps').read())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, mapped = found.stdout.splitlines()
    return set(names.split()), mapped == "True"


@pytest.mark.parametrize("statement", ["import eravane", "import eravane_kernels", "import eravane.cli"])
def test_importing_is_light(statement: str) -> None:
    assert _loaded_by(statement)[0] & HEAVY == set()


def test_the_whole_batch_on_the_cpu_imports_no_gpu_library() -> None:
    loaded, _ = _loaded_by(WHOLE_BATCH)
    assert "xgboost" in loaded  # the statement does load the engine
    assert loaded & (GPU - {"pynvml"}) == set()  # torch itself imports pynvml, which is plain Python


def test_importing_makes_no_cuda_context() -> None:
    """A context is made by cuInit; the driver library would be mapped into the process."""
    _, mapped = _loaded_by(WHOLE_BATCH)
    assert not mapped


def _documented(text: str) -> int:
    """How many lines docstrings take: explaining an interface well must not cut its module in two."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, holders) and ast.get_docstring(node)]
    return sum((node.body[0].end_lineno or 0) - node.body[0].lineno + 1 for node in nodes)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") - _documented(text) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def test_no_package_folder_holds_code_of_its_own() -> None:
    assert not (ROOT / "engine" / "__init__.py").exists()
    assert not (ROOT / "kernels" / "__init__.py").exists()


FOLDERS = sorted(path for path in (ROOT / "engine" / "eravane").iterdir() if (path / "__init__.py").is_file())
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PARAGRAPH = re.compile(r"\A\w.+?(?=\n\n)", re.DOTALL)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_folder_is_described(folder: Path) -> None:
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    paragraph = PARAGRAPH.search(ARCHITECTURE.read_text(encoding="utf-8").partition(f"**`{folder.name}/`** ")[2])
    assert paragraph
    assert len(paragraph.group()) > 40


def test_the_architecture_page_lists_no_folder_that_is_gone() -> None:
    listed = re.findall(r"^\*\*`(\w+)/`\*\* ", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == [folder.name for folder in FOLDERS]


def _imported(path: Path) -> set[str]:
    """Modules of the tests that a file of theirs imports, with what is taken from them."""
    found = set()
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            start = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [start, node.module]))
            found |= {f"{module}.{entry.name}" for entry in node.names}
        elif isinstance(node, ast.Import):
            found |= {entry.name for entry in node.names}
    return {name for name in found if name.startswith("tests.")}


TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_take_helpers_from_support_or_from_their_own_folder(path: Path) -> None:
    own = ".".join(path.relative_to(ROOT).parts[:2])
    for name in _imported(path):
        parts = name.split(".")
        assert not any(part.startswith("test_") or part == "conftest" for part in parts), f"{name} is no helper"
        assert name.startswith(("tests.support", own)), f"{name} is another folder's: move it to tests/support"
