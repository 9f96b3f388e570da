"""Folders and finished runs that many tests read and that are made once for all workers of a test session."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from eravane.core.config import RunConfig, to_toml


class Shared:
    """Folders by name, made by whichever worker asks first while the others wait.

    Args:
        root: a folder that all workers of the session share.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder of that name, for reading only.

        Args:
            name: says what is in it; the same name must mean the same content.
            make: fills a folder that is empty. One that fails leaves nothing, and is tried again by the next test.
        """
        place, done = self._root / name, self._root / f"{name}.done"
        with FileLock(self._root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                make(place)
                done.touch()
        return place


class Runs:
    """Finished runs, each configuration's made once for all workers, as folders with `run` and its `cache`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def __call__(self, data: Path, config: RunConfig) -> Path:
        """The folder of the finished run of that configuration; for reading only.

        Args:
            data: a dataset in a `Shared` folder, so that all workers mean the same one.
            config: the run's configuration.
        """
        from eravane.pipeline.batch import run  # imports torch, which most tests do without

        digest = hashlib.sha256(f"{data}\n{to_toml(config)}".encode()).hexdigest()[:16]
        return self._shared.folder(
            f"run-{digest}", lambda folder: run(data, config, folder / "run", cache=folder / "cache")
        )

    def started(self, data: Path, config: RunConfig, to: Path) -> Path:
        """A copy of that folder which a test may change."""
        return Path(shutil.copytree(self(data, config), to))
