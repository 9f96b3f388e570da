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
from tests.support import programs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
]
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


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading: lower case, words joined by hyphens, punctuation dropped."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Every anchor of a page; code blocks hold no headings."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """Relative links and paths of a page that lead nowhere."""
    text, broken = page.read_text(encoding="utf-8"), []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    named = re.findall(r"`((?:engine|kernels|tests|configs|docs|benchmarks|tools)/[\w./-]+)`", text)
    return broken + [path for path in named if not (root / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_anchors_and_paths_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_anchor_or_path_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A heading: `code`, and more\n\n```sh\n# no heading\n```\n", encoding="utf-8")
    page = tmp_path / "page.md"
    good = "[a](other.md) [b](other.md#a-heading-code-and-more) [c](https://example.org/x) [d](#here)\n\n## Here\n"
    bad = "[e](none.md) [f](other.md#no-heading) [g](#gone) `tests/none.py`\n"
    page.write_text(good + bad, encoding="utf-8")
    assert broken_links(page, tmp_path) == ["none.md", "other.md#no-heading", "#gone", "tests/none.py"]


def test_every_decision_is_dated_and_listed() -> None:
    index = (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d{4}-\d\d-\d\d) \| \[[^\]]+\]\((\S+)\) \| (\w+) \|$", index, re.MULTILINE)
    files = sorted(path.name for path in (DOCS / "decisions").glob("*.md") if path.name != "README.md")
    assert sorted(name for _, name, _ in listed) == files
    for date, name, status in listed:
        head = (DOCS / "decisions" / name).read_text(encoding="utf-8")
        assert name.startswith(date)
        assert f"- Date: {date}\n- Status: {status}" in head
        assert status in ("accepted", "superseded")
        assert status == "accepted" or re.search(r"- Status: superseded by ", head)


def changed(source: str, diff: str) -> str:
    """A file after one hunk of a diff, whose context and removed lines must stand in the file once."""
    lines = diff.splitlines(keepends=True)
    before, after = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
    assert source.count(before) == 1, f"{before!r} stands {source.count(before)} times in the file"
    return source.replace(before, after)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the engine with every change that the page describes."""
    copy = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "engine", copy / "engine")  # with the bytecode of what stays as it is
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
    if root == ROOT:
        return programs.run(["-c", script], folder, environment)
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
    "xxhash": "python-xxhash",
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
