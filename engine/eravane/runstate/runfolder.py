"""The run folder, the product's data interface; its files are written atomically."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eravane import __version__
from eravane.core.config import RunConfig, digest_of, to_toml, translate_config
from eravane.core.editions import CHANGES, EDITION, FIRST_EDITION, Change
from eravane.core.errors import RunError
from eravane.core.files import delete_stale_parts, exclusive, json_able, replacing, write_atomically
from eravane.core.settings import Reading
from eravane.learners.choice import with_learner

# Every library whose version can change a result; a run lists those that are installed.
VERSIONED = (
    *("numpy", "pandas", "pyarrow", "numba", "scipy", "torch", "numerai-tools", "lightgbm"),
    *("xgboost", "xgboost-cpu", "xgboost-cu12", "xgboost-cu13"),
    *("cupy-cuda12x", "cupy-cuda13x", "pylibcudf-cu12", "pylibcudf-cu13"),
)

MANIFEST, CONFIG = "manifest.json", "run.toml"
# In the manifest: times at which the run's owner let newer rules in.
ADOPTED = "adopted"
# Keys that run.toml of edition 1 leaves out where they are unset.
UNSET = ("score_lag", "tree_lag")
MANIFEST_KEYS = ("status", "target", "periods", "lags")
DATA_KEYS = ("path", "store", "fingerprint")


class RunFolder:
    """Paths and writers of one run.

    Args:
        path: the folder; `create` and `open` check it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunFolder:
        """Make a new run folder and write its configuration.

        Raises:
            RunError: the folder exists and is not empty, or cannot be made.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path} exists already; give another --out, or --resume to continue it")
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder.write_config(config)
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror}") from error
        return folder

    @classmethod
    @contextmanager
    def held(
        cls, path: Path, config: RunConfig, *, resume: bool, adopt: bool = False
    ) -> Iterator[tuple[RunFolder, RunConfig]]:
        """Hold a run folder, new or that of an interrupted run, for one program; gives it with its configuration.

        Args:
            path: the folder; config: the configuration that is asked for.
            resume: continue an interrupted run; adopt: under the present rules from now on.

        Raises:
            RunError: as `create` and `resume` do.
            StoreError: another process holds it.
        """
        if resume:
            cls.open(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise RunError(f"{path} is a file; give another --out") from None
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror}") from error
        with exclusive(path):
            delete_stale_parts(path)
            if resume and adopt:
                cls.open(path).adopt()
            yield cls.resume(path, config) if resume else (cls.create(path, config), config)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run folder.

        Raises:
            RunError: there is none.
        """
        if not (path / CONFIG).is_file():
            raise RunError(f"{path} is not a run folder: it has no run.toml")
        return cls(path)

    @classmethod
    def resume(cls, path: Path, config: RunConfig) -> tuple[RunFolder, RunConfig]:
        """Open the folder of an interrupted run; the configuration gets the run's learner where it leaves that open.

        Raises:
            RunError: there is none, or it was started with another configuration.
        """
        folder = cls.open(path)
        started = folder.config()
        if config.zoo.learner == "auto":
            config = with_learner(config, started.zoo.learner)
        if started.digest() != config.digest():
            raise RunError(f"{path} was started with another configuration (see its run.toml); resume with that one")
        return folder, config

    @property
    def started(self) -> bool:
        """Whether the run got past reading its input."""
        return (self.path / MANIFEST).exists()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.started and self.read_json(MANIFEST).get("status") == "complete"

    def config(self, *, adopt: bool = False) -> RunConfig:
        """The configuration the run was started with, under the edition of its beginning.

        Args:
            adopt: let present rules take the place of those that this release no longer has.

        Raises:
            RunError: its file is damaged, or the run needs a rule that this release no longer has.
            ConfigError: it has a key or value that no release knows.
        """
        reading = self.reading(adopt=adopt)
        if adopt:
            return replace(reading.config, edition=EDITION)
        unlike = [*reading.lost, *(change.what for change in unlike_present(reading.config) if not change.kept)]
        if unlike:
            raise RunError(
                f"{self.path} was begun by an older eravane, and its results would change: {'; '.join(unlike)}; "
                f"{self._adopting()} continues with the present rules from the next era on, and the release that made "
                "it (versions in manifest.json) continues as before"
            )
        return reading.config

    def _adopting(self) -> str:
        step = f"eravane step {self.path} --adopt ..."
        return f"`{step}`" if self.finished else f"`eravane run ... --out {self.path} --resume --adopt`"

    def reading(self, *, adopt: bool = False) -> Reading[RunConfig]:
        """The configuration with what became of its keys that are no more.

        Args:
            adopt: read them by the present rules.

        Raises:
            RunError: its file is damaged.
            ConfigError: it has a key or value that no release knows.
        """
        return translate_config(self._tables(), str(self.path / CONFIG), FIRST_EDITION, adopt=adopt)

    def adopt(self) -> tuple[str, ...]:
        """Replace rules that this release no longer has by the present ones, from now on.

        Returns:
            What is computed otherwise; empty where nothing is.
        """
        reading, known = self.reading(adopt=True), self.known_digests()
        unlike = [*reading.lost, *(change.what for change in unlike_present(reading.config))]
        if unlike:
            if self.started:
                change = {"edition": reading.config.edition, "digests": list(known), "changes": unlike}
                self.write_json(MANIFEST, {**self.read_json(MANIFEST), ADOPTED: [*self.adopted, change]})
            self.write_config(self.config(adopt=True))
        return tuple(unlike)

    @property
    def adopted(self) -> list[dict[str, Any]]:
        """Adoptions of newer rules: edition and digests that were left, and changes, oldest first."""
        found: list[dict[str, Any]] = self.read_json(MANIFEST).get(ADOPTED, []) if self.started else []
        return found

    def read_as_begun(self, tables: Mapping[str, object], *, adopt: bool = False) -> RunConfig:
        """A configuration that the run is continued with: what it leaves out means what it did when the run began.

        Args:
            tables: its keys; adopt: read them as the run's own are when it adopts the present rules.

        Raises:
            ConfigError: a key is unknown, or a value is wrong.
        """
        began = next(
            (change["edition"] for change in self.adopted if "edition" in change), self.reading().config.edition
        )
        adopt = adopt or bool(self.adopted)
        config = translate_config(dict(tables), "configuration", began, adopt=adopt).config
        return replace(config, edition=EDITION) if adopt else config

    def known_digests(self) -> tuple[str, ...]:
        """Digests of the configuration that a checkpoint of this run may have, the present one first."""
        older = [digest for change in self.adopted for digest in change["digests"]]
        return (self.reading().config.digest(), digest_of_all_keys(self._tables()), *older)

    def _tables(self) -> dict[str, Any]:
        path = self.path / CONFIG
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}") from error

    def write_config(self, config: RunConfig) -> None:
        """Write the run's configuration, every key of it."""
        write_atomically(self.path / CONFIG, to_toml(config).encode())

    def manifest(self) -> dict[str, Any]:
        """The manifest, with everything in it that others read.

        Raises:
            RunError: it is missing or damaged.
        """
        content = self.read_json(MANIFEST)
        data = content.get("data")
        lacking = [key for key in MANIFEST_KEYS if key not in content]
        lacking += [f"data.{key}" for key in DATA_KEYS if not isinstance(data, dict) or key not in data]
        if lacking:
            raise RunError(f"{self.path / MANIFEST} is damaged: it has no {lacking[0]!r}")
        return content

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a parquet file atomically."""
        with replacing(self.path / name) as file:
            pq.write_table(table, file)

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file atomically; numbers that are not finite become null."""
        write_atomically(self.path / name, (json.dumps(json_able(content), indent=2) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise RunError(f"{self.path / name} is damaged: it holds no table of keys")
        return content


def unlike_present(config: RunConfig) -> list[Change]:
    """Changes since a configuration's edition that alter its results."""
    return [change for change in CHANGES if change.edition > config.edition and change.affects(config)]


def digest_of_all_keys(tables: Mapping[str, Any]) -> str:
    """The digest that release 0.1.0 gave a run.toml: over every key but those of [compute]."""
    content = {name: value for name, value in tables.items() if name != "compute"}
    content["time"] = {**dict.fromkeys(UNSET), **tables.get("time", {})}
    return digest_of(content)


def versions() -> dict[str, str]:
    """Versions of eravane, Python and every library that decides a result."""
    found = {"eravane": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def changed_versions(before: Mapping[str, str]) -> list[str]:
    """Libraries that a run noted in another version than the installed one: "numpy 2.3.0 to 2.4.6"."""
    now = versions()
    return [f"{name} {old} to {now.get(name, 'none')}" for name, old in before.items() if now.get(name) != old]
