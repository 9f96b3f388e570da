"""The folder of a store during writing: one writer, a marker, new files beside the current ones, one swap."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from eravane.core.errors import DataError, StoreError
from eravane.core.files import PART, exclusive, write_atomically
from eravane.data.catalog import FEATURES_JSON
from eravane.data.store.manifest import BUILDING, MANIFEST, Manifest
from eravane.data.store.matrixfile import digests_path
from eravane.data.store.snapshot import delete_unused
from eravane.data.store.store import SNAPSHOTS

_SEGMENTS = "segments"
_OWN = (FEATURES_JSON, BUILDING, MANIFEST)


class Site:
    """A store's folder under its writer's lock.

    Attributes:
        path: the folder.
        old: the current manifest; None for a new store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.old = _read_manifest(path)

    def file(self, name: str) -> Path:
        """Path of a file of the next manifest."""
        return self.path / _SEGMENTS / name

    def begin(self, ticket: Mapping[str, object]) -> None:
        """Mark the store as being written; files of an interrupted writer with another ticket are deleted.

        Args:
            ticket: everything that decides what will be written.
        """
        content = json.dumps(ticket, sort_keys=True).encode()
        marker = self.path / BUILDING
        if not marker.exists() or marker.read_bytes() != content:
            self._clear(self.old)
            write_atomically(marker, content)
        (self.path / _SEGMENTS).mkdir(exist_ok=True)

    def commit(self, manifest: Manifest, catalog: Path) -> None:
        """Replace the manifest and the copy of `features.json`, and delete files that it does not name."""
        if catalog.exists():
            write_atomically(self.path / FEATURES_JSON, catalog.read_bytes())
        manifest.write(self.path)
        self._clear(manifest)
        delete_unused(self.path)

    def discard(self) -> None:
        """Delete everything that the current manifest does not name."""
        self._clear(self.old)

    def delete(self) -> None:
        """Delete the store; snapshots that are read stay."""
        self._clear(None)
        for name in _OWN:
            (self.path / name).unlink(missing_ok=True)
        delete_unused(self.path)
        self.old = None

    def _parts(self) -> list[Path]:
        return [part for name in _OWN for part in self.path.glob(f"{name}.*{PART}")]

    def _clear(self, manifest: Manifest | None) -> None:
        kept = set() if manifest is None else set(manifest.files())
        kept |= {digests_path(Path(name)).as_posix() for name in kept}
        for file in (self.path / _SEGMENTS).glob("*"):
            if file.relative_to(self.path).as_posix() not in kept:
                file.unlink()
        (self.path / BUILDING).unlink(missing_ok=True)
        for part in self._parts():
            part.unlink(missing_ok=True)
        if manifest is None and (self.path / _SEGMENTS).exists():
            (self.path / _SEGMENTS).rmdir()


@contextmanager
def writing(path: Path, wait: Callable[[str], None] | None = None) -> Iterator[Site]:
    """Lock a store's folder for one writer, creating it if absent; after bad data it is unchanged.

    Args:
        path: the folder.
        wait: called with a line while another process is writing; None does not wait.

    Raises:
        StoreError: the folder holds something else, another process is writing, or the disk is full.
        DataError: passed on.
    """
    with _storage_errors(path), ExitStack() as stack:
        held = False
        while not held:
            fresh = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # deleted by another writer, whose data was bad, while this one waited
                stack.enter_context(exclusive(path, wait))
                held = True
        site = Site(path)
        try:
            yield site
        except DataError:
            site.discard()
            if fresh:
                path.rmdir()
            raise


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.read(path)
    except FileNotFoundError:
        ours = {_SEGMENTS, SNAPSHOTS, *_OWN}
        foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in ours and not _is_part(entry))
        if foreign:
            raise StoreError(f"{path} is not a store, it holds {foreign[0]!r}; give a new or empty folder") from None
        return None


def _is_part(path: Path) -> bool:
    return path.name.endswith(PART) and path.name.startswith(tuple(f"{name}." for name in _OWN))


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Raise StoreError for a disk that is full or cannot be written, and for a file elsewhere that cannot be read."""
    try:
        yield
    except OSError as error:
        name = error.filename
        if isinstance(name, str) and not _on_one_path(Path(name).absolute(), path.absolute()):
            raise StoreError(f"{name} cannot be used: {error.strerror or error}; put a file in its place") from error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space and run again to resume" if full else "check the path and its permissions"
        raise StoreError(f"cannot write the store {path}: {error.strerror or error}; {advice}") from error


def _on_one_path(first: Path, second: Path) -> bool:
    return first.is_relative_to(second) or second.is_relative_to(first)
