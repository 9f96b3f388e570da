"""Checkpoints: folders that are complete or absent, by temporary name, fsync and rename, with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from eravane.core.errors import LayoutError, RunError
from eravane.core.files import sync_folder

MANIFEST = "manifest.json"
# What a checkpoint's files are called and hold; 1 (release 0.1.0) named the release in the identity. A reader of a
# newer format reads every older one.
FORMAT, FIRST_FORMAT = 2, 1
ADVICE = (
    "continue the run with the eravane that wrote it (`versions` in its manifest.json), or delete the numbered folders "
    "in its checkpoints: the next `eravane step`, or `eravane run ... --resume`, does the loop again from its start"
)


class Checkpoints:
    """The last two checkpoints of a run, each one folder with a manifest of checksums.

    Args:
        folder: where they lie.
        identity: what a checkpoint must have been made with (configuration, data): name -> what it may be, the
            first of which new checkpoints get; a checkpoint with another identity is refused.
    """

    KEPT = 2

    def __init__(self, folder: Path, identity: Mapping[str, Sequence[str]]) -> None:
        self._folder, self._identity = folder, {name: tuple(known) for name, known in identity.items()}

    def save(self, step: int, files: Mapping[str, bytes], facts: Mapping[str, object]) -> None:
        """Write checkpoint `step` and drop all but the last two."""
        self._folder.mkdir(parents=True, exist_ok=True)
        target, temporary = self._path(step), self._folder / f".{step:06d}.{os.getpid()}"
        for half_written in self._folder.glob(".*"):  # by a process that was killed
            shutil.rmtree(half_written)
        temporary.mkdir()
        try:
            for name, content in files.items():
                _write(temporary / name, content)
            manifest = {
                "format": FORMAT,
                "identity": {name: known[0] for name, known in self._identity.items()},
                "facts": dict(facts),
                "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
            }
            _write(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
            sync_folder(temporary)
            shutil.rmtree(target, ignore_errors=True)
            temporary.replace(target)
            sync_folder(self._folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise RunError(
                f"cannot write checkpoint {target}: {error.strerror}; earlier ones are complete: fix this and continue "
                "with --resume"
            ) from error
        for old in self.steps()[: -self.KEPT]:
            shutil.rmtree(self._path(old))

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def drop_from(self, step: int) -> None:
        """Delete the checkpoints of `step` and later, the newest first."""
        for later in reversed(self.steps()):
            if later >= step:
                shutil.rmtree(self._path(later))

    def facts(self) -> list[dict[str, Any]]:
        """Facts of every checkpoint that can be read, oldest first."""
        found: list[dict[str, Any]] = []
        for step in self.steps():
            with suppress(OSError, ValueError):
                found.append(_read(self._path(step))[1]["facts"])
        return found

    def load(self) -> tuple[int, dict[str, bytes], dict[str, Any], list[str]] | None:
        """The newest complete checkpoint.

        Returns:
            Step, files, facts and a note for every damaged checkpoint that was passed over; None where there is none.

        Raises:
            RunError: a whole checkpoint was made with another configuration, data or version (named).
        """
        notes: list[str] = []
        for step in reversed(self.steps()):
            try:
                files, manifest = _read(self._path(step))
            except (OSError, ValueError) as error:
                notes.append(f"checkpoint {self._path(step)} is damaged ({error}); using the one before")
                continue
            self._check_format(manifest.get("format", FIRST_FORMAT))
            self._check_identity(manifest["identity"])
            return step, files, manifest["facts"], notes
        return None

    @contextmanager
    def laid_out(self, step: int) -> Iterator[None]:
        """Names the checkpoint `step` in an error about the layout of what it holds.

        Raises:
            RunError: in place of a LayoutError.
        """
        try:
            yield
        except LayoutError as error:
            raise RunError(
                f"checkpoint {self._path(step)} was written by another eravane: this one {error}; {ADVICE}"
            ) from None

    def _check_format(self, found: int) -> None:
        if found > FORMAT:
            raise RunError(
                f"the checkpoint in {self._folder} is of format {found}, written by a newer eravane; this one reads "
                f"formats up to {FORMAT}: upgrade it"
            )

    def _check_identity(self, found: Mapping[str, str]) -> None:
        differing = [
            f"{name} was {found.get(name)}, is {known[0]}"
            for name, known in self._identity.items()
            if found.get(name) not in known
        ]
        if differing:
            raise RunError(
                f"the checkpoint in {self._folder} belongs to another run: {'; '.join(differing)}; continue with the "
                "data and the run.toml that made it, or start a new run"
            )

    def _path(self, step: int) -> Path:
        return self._folder / f"{step:06d}"


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    tables = {"identity": dict, "facts": dict, "sha256": dict}
    wanted: dict[str, type] = tables | ({"format": int} if "format" in manifest else {})
    wrong = [name for name, kind in wanted.items() if not isinstance(dict(manifest).get(name), kind)]
    if wrong:
        raise ValueError(f"{MANIFEST} has no {wrong[0]!r}")
    files = {name: (folder / name).read_bytes() for name in manifest["sha256"]}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != manifest["sha256"][name]:
            raise ValueError(f"{name} does not match its checksum")
    return files, manifest
