"""The documentation is true: every key documented, every file named, every example run."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from eravane.core.config import RunConfig
from tests.architecture import configuration

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"^```(\w+)[ ]?([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Language, remark and content of every code block of a page."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield found.group(1), found.group(2), found.group(3)


def test_every_configuration_key_is_documented() -> None:
    assert configuration.PAGE.read_text(encoding="utf-8") == configuration.page(), (
        "run `python -m tests.architecture.configuration`"
    )
    text = configuration.page()
    for name, section in typing.get_type_hints(RunConfig).items():
        keys = dataclasses.fields(section) if dataclasses.is_dataclass(section) else ()
        for key in keys:
            assert len(key.metadata["doc"]) > 10, f"{name}.{key.name} has no sentence"
            assert f"| `{key.name}` |" in text.split(f"## `[{name}]`")[1].split("\n## ")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), f"{page.name} links to {link}"
    for path in re.findall(r"`((?:engine|kernels|tests|configs|docs|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def changed(source: str, diff: str) -> str:
    """A file after one hunk of a diff, whose context and removed lines must stand in the file once."""
    lines = diff.splitlines(keepends=True)
    before, after = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
    assert source.count(before) == 1, f"{before!r} stands {source.count(before)} times in the file"
    return source.replace(before, after)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the engine with every change that the page tells to make."""
    copy = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "engine", copy / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    for language, remark, content in blocks(DOCS / "extending.md"):
        path = copy / remark.removeprefix("file=")
        if language == "diff":
            path.write_text(changed(path.read_text(encoding="utf-8"), content), encoding="utf-8")
        elif remark.startswith("file="):
            assert not path.exists()
            path.write_text(content, encoding="utf-8")
    return copy


def _run(code: str, folder: Path, root: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": f"{root / 'engine'}:{ROOT / 'kernels'}"}
    script = f"import eravane; assert eravane.__file__.startswith({str(root)!r}), eravane.__file__\n{code}"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def _examples(kind: str) -> list[tuple[str, str]]:
    return [
        (f"{page.name}:{number}", content)
        for page in PAGES
        if page.exists()
        for number, (language, remark, content) in enumerate(blocks(page))
        if language == "python" and remark == kind
    ]


@pytest.mark.parametrize(("name", "code"), _examples("run"), ids=lambda value: value[:20])
def test_examples_run(name: str, code: str, tmp_path: Path) -> None:
    done = _run(code, tmp_path, ROOT)
    assert done.returncode == 0, f"{name}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(("name", "code"), _examples("changed"), ids=lambda value: value[:20])
def test_extensions_run_in_a_changed_engine(name: str, code: str, extended: Path, tmp_path: Path) -> None:
    done = _run(code, tmp_path / "extended", extended)
    assert done.returncode == 0, f"{name}\n{done.stdout}{done.stderr}"
    # The engine as it is knows none of it.
    assert "zoo.learner is one of" in _run(code, tmp_path / "unchanged", ROOT).stderr


CONDA = {  # what conda calls a distribution
    "torch": "pytorch",
    "dask": "dask-cuda",
    "distributed": "dask-cuda",
    "cudf-cu13": "cudf",
    "cupy-cuda13x": "cupy",
    "rmm-cu13": "rmm",
    "xgboost-cu13": "py-xgboost",
}


def lowest(versions: str) -> Version:
    """The version that a requirement or a conda pin begins at; conda's `=26.10` is any 26.10."""
    found = re.search(r">?=+\s*([\d.]+)", versions)
    assert found, versions
    return Version(found.group(1))


def test_the_conda_environment_brings_every_dependency() -> None:
    """What conda did not bring would come from PyPI, with binaries that do not fit. Bounds are those of cu13."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    by_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    by_conda = {re.split(r"[ =<>]", entry)[0]: entry for entry in listed if isinstance(entry, str)}
    assert by_pip.pop() == "-e ."
    assert set(by_pip) <= set(project["dependencies"])
    wanted: dict[str, Version] = {}
    for requirement in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["cu13"]]):
        name = CONDA.get(requirement.name, requirement.name)
        if str(requirement) not in by_pip and requirement.name not in ("dask", "distributed"):  # RAPIDS pins those
            wanted[name] = max(wanted.get(name, Version("0")), lowest(str(requirement.specifier)))
    assert set(by_conda) == {*wanted, "python", "cuda-version", "pip"}
    for name, version in wanted.items():
        assert lowest(by_conda[name]) == version, f"{by_conda[name]}: pyproject.toml asks for {version}"
    assert Requirement(f"python{project['requires-python']}").specifier.contains(lowest(by_conda["python"]))
    assert by_conda["py-xgboost"].endswith(" cuda*"), "without a pinned build conda takes the CPU's"


def test_one_xgboost_for_every_machine() -> None:
    """The extras differ in the distribution alone, never in the version that results rest on."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    bounds = {
        str(requirement.specifier)
        for extra in ("cpu", "cu12", "cu13")
        for requirement in map(Requirement, extras[extra])
        if requirement.name.startswith("xgboost")
    }
    conda = next(entry.split()[1] for entry in listed if str(entry).startswith("py-xgboost"))
    assert bounds == {str(SpecifierSet(conda))}
