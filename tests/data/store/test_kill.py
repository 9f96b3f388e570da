"""kill -9 at any point: the store opens complete, or resumes to the same bytes."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from eravane.core.errors import StoreError
from eravane.data.store.store import EraStore
from tests.support import programs
from tests.support.made_store import Dataset, contents, next_week

VICTIM = Path(__file__).with_name("victim.py")


def run(data: Path, store: Path, step: int = 0, number: int = signal.SIGKILL) -> CompletedProcess[str]:
    return programs.run([VICTIM, data, store, step, int(number)])


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two weeks of a dataset, and one that differs from the first in a feature of every training era."""
    folder = tmp_path_factory.mktemp("kill")
    made = Dataset.make()
    made.row_groups = 60
    later = next_week(made)
    later.row_groups = 60
    other = Dataset.make()
    other.row_groups = 60
    other.train["feature_04"] = 4 - other.train["feature_04"]
    return {
        "first": made.write(folder / "first"),
        "second": later.write(folder / "second"),
        "other": other.write(folder / "other"),
    }


def kill_and_resume(data: Path, store: Path, wanted: dict[str, bytes], old: Path | None, step: int) -> None:
    """Kill an ingest at a step, look at what is left, resume, and compare every byte."""
    if old is not None:
        shutil.copytree(old, store)
    before = contents(store) if old is not None else {}
    killed = run(data, store, step)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = contents(store)
    if "manifest.json" in left:
        EraStore.open(store).verify()
        assert left["manifest.json"] in (before.get("manifest.json"), wanted["manifest.json"])
    else:
        assert old is None
        with pytest.raises(StoreError, match=r"unfinished|no store"):
            EraStore.open(store)
    resumed = run(data, store)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(store) == wanted


def steps(total: int, how_many: int, seed: int) -> list[int]:
    return sorted(np.random.default_rng(seed).choice(np.arange(1, total + 1), how_many, replace=False).tolist())


def prove(weeks: dict[str, Path], tmp_path: Path, kind: str, how_many: int, seed: int) -> None:
    whole = tmp_path / "first"
    total = run(weeks["first"], whole)
    old = None
    data = weeks["first"]
    if kind == "append":
        old, data, whole = whole, weeks["second"], tmp_path / "second"
        shutil.copytree(old, whole)
        total = run(data, whole)
    assert total.returncode == 0, total.stderr
    wanted = contents(whole)
    for step in steps(int(total.stdout), how_many, seed):
        kill_and_resume(data, tmp_path / f"{kind}{step}", wanted, old, step)


@pytest.mark.parametrize("kind", ["ingest", "append"])
def test_a_killed_ingest_resumes_to_the_same_bytes(weeks: dict[str, Path], tmp_path: Path, kind: str) -> None:
    prove(weeks, tmp_path, kind, 2, seed=1)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["ingest", "append"])
def test_twenty_kills(weeks: dict[str, Path], tmp_path: Path, kind: str) -> None:
    prove(weeks, tmp_path, kind, 20, seed=2)


def test_what_is_sealed_is_not_written_again(weeks: dict[str, Path], tmp_path: Path) -> None:
    """A resumed ingest keeps the segments that were finished: their files are the same inodes."""
    total = int(run(weeks["first"], tmp_path / "whole").stdout)
    assert run(weeks["first"], tmp_path / "store", total - 15).returncode == -signal.SIGKILL
    sealed = {
        path.with_name(path.name.replace(".digests.npy", ".arrow"))
        for path in (tmp_path / "store" / "segments").glob("*.digests.npy")
    }
    assert len(sealed) > 4
    before = {path: path.stat().st_ino for path in sealed}
    assert run(weeks["first"], tmp_path / "store").returncode == 0
    assert {path: path.stat().st_ino for path in sealed} == before


def test_other_files_after_an_interrupt_start_anew(weeks: dict[str, Path], tmp_path: Path) -> None:
    """What an ingest that was ended by Ctrl-C of other data left behind is not mixed in."""
    total = int(run(weeks["other"], tmp_path / "whole").stdout)
    interrupted = run(weeks["first"], tmp_path / "store", total // 2, signal.SIGINT)
    assert "KeyboardInterrupt" in interrupted.stderr
    assert run(weeks["other"], tmp_path / "store").returncode == 0
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
