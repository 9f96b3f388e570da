"""The README is true: its commands exist with their options, and those that need no network run as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from eravane.core.config import to_toml
from eravane.pipeline.demo import demo_config

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
NETWORK = {"fetch", "submit", "diagnose", "scores", "upload", "rules"}
FENCE = re.compile(r"^```(?:\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Every `eravane` and `make` command of a page's code blocks, without its remark, in order."""
    lines = [line for block in FENCE.findall(page.read_text(encoding="utf-8")) for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("#")[0].split("&&")]
    return [part for part in parts if part.startswith(("eravane ", "make "))]


def _known_commands() -> dict[str, Any]:
    from eravane.cli import dataset, machine, runs, tournament  # noqa: F401
    from eravane.cli.app import app

    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def test_there_are_commands_to_check() -> None:
    assert {"make demo", "make test"} <= set(commands(README))
    assert sum(command.startswith("eravane run ") for command in commands(README)) >= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    known = _known_commands()
    for line in commands(page):
        program, name, *rest = shlex.split(line)
        if program == "make":
            assert name in targets, f"{page.name}: {line}"
            continue
        assert name in known, f"{page.name}: {line}"
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-")} <= options, f"{page.name}: {line}"
    for path in re.findall(r"--config (\S+\.toml)", page.read_text(encoding="utf-8")):
        assert path.startswith("RUN/") or (ROOT / path).is_file(), f"{page.name}: {path}"


@pytest.mark.full
def test_the_commands_of_the_readme_work_in_order(tmp_path: Path) -> None:
    """Made data stand for those of `fetch`, and a tiny configuration for the one that the README runs them with."""
    (tmp_path / "configs").mkdir()
    for path in re.findall(r"--config (\S+)", README.read_text(encoding="utf-8")):
        (tmp_path / path).write_text(to_toml(demo_config("tiny")), encoding="utf-8")
    _succeeds("eravane synth data --preset tiny", tmp_path)
    walked = 0
    for printed in commands(README):
        line = printed.replace("--preset small", "--preset tiny")
        program, name, *_ = shlex.split(line)
        if program == "eravane" and name not in NETWORK and "store" not in shlex.split(line):
            _succeeds(f"{line} --no-submit" if name == "step" else line, tmp_path)  # there is no account to send to
            walked += 1
    assert walked >= 7
    assert (tmp_path / "runs" / "first" / "report.html").is_file()


def _succeeds(line: str, folder: Path) -> None:
    _, *words = shlex.split(line)
    program = Path(sys.executable).parent / "eravane"
    if "--device" in words:
        words[words.index("--device") + 1] = "cpu"
    done = subprocess.run(
        [program, *words],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "ERAVANE_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    # `doctor` fails where something hinders runs; it must still say so in words.
    accepted = (0, 1) if words[0] == "doctor" else (0,)
    assert done.returncode in accepted, f"{line}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
