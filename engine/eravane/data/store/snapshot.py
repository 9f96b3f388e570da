"""Snapshots of a store: the files that a reader opened stay unchanged while writers change the store.

A snapshot is a folder of hard links to the files of one manifest, `snapshots/FINGERPRINT` in the store; it is a store
itself and costs no space but for labels that were replaced since. It is deleted when unused: no process holds its
lock, and no unfinished run is its owner.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from eravane.core.errors import StoreError
from eravane.core.files import STALE
from eravane.data.catalog import FEATURES_JSON
from eravane.data.store.manifest import MANIFEST
from eravane.data.store.matrixfile import digests_path
from eravane.data.store.store import SNAPSHOTS, EraStore

OWNERS, LOCK = "owners", ".lock"
# How often a store may be swapped while a snapshot is taken before it is given up.
ATTEMPTS = 200


@contextmanager
def held(store: EraStore, owner: Path | None = None) -> Iterator[EraStore]:
    """The store as it is now, kept while the block runs; the store itself where no snapshot can be made of it.

    Args:
        store: an open store.
        owner: a run folder that may continue with the same data after a kill; the snapshot outlives the block until the
            run is finished or deleted.
    """
    if store.path != store.home:
        yield store
        return
    with ExitStack() as stack:
        try:
            stack.callback(delete_unused, store.home)
            kept = _take(store, owner, stack)
        except OSError:  # a read-only folder, or a file system without hard links
            kept = store
        yield kept


def snapshot_of(store: Path, fingerprint: str) -> Path | None:
    """Folder of the snapshot with this content, where a store has one."""
    path = store / SNAPSHOTS / fingerprint
    return path if (path / MANIFEST).is_file() else None


def open_as_of(store: Path, fingerprint: str) -> EraStore:
    """A store with the content that a run saw, where it is still kept; the store as it is now otherwise.

    Raises:
        StoreError: there is no store, or it is damaged.
    """
    kept = snapshot_of(store, fingerprint)
    return EraStore.open(store if kept is None else kept)


def delete_unused(store: Path) -> None:
    """Delete unused snapshots."""
    there: list[Path] = []
    with suppress(OSError):  # another process may delete the folder meanwhile
        there = list((store / SNAPSHOTS).iterdir())
    for path in there:
        with suppress(OSError):
            if path.name.startswith("."):  # of a reader that was killed while it made links
                if time.time() - path.stat().st_mtime > STALE:
                    shutil.rmtree(path)
                continue
            with _alone(path) as alone:
                if alone and not _owned(path):
                    # first, so that a process that waits for the lock takes another
                    (path / MANIFEST).unlink(missing_ok=True)
                    shutil.rmtree(path)
    with suppress(OSError):
        (store / SNAPSHOTS).rmdir()


def _take(store: EraStore, owner: Path | None, stack: ExitStack) -> EraStore:
    for _ in range(ATTEMPTS):
        path = store.path / SNAPSHOTS / store.fingerprint
        try:
            if not (path / MANIFEST).is_file():
                _link(store, path)
            descriptor = _hold(path, owner)
        except (FileNotFoundError, FileExistsError):
            # A writer swapped the store in between, or the last reader deleted the snapshot or the folder of all, which
            # `mkdir` reports as one that exists and is no folder.
            store = EraStore.open(store.path)
            continue
        if (path / MANIFEST).is_file():
            stack.callback(os.close, descriptor)
            return EraStore.open(path)
        os.close(descriptor)
    raise StoreError(f"{store.path} is being rewritten again and again; try again once that has ended")


def _link(store: EraStore, path: Path) -> None:
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}")
    temporary.mkdir(parents=True)
    try:
        for name in store.manifest.files():
            for file in (Path(name), digests_path(Path(name))):
                if (store.path / file).exists() or file == Path(name):
                    (temporary / file).parent.mkdir(exist_ok=True)
                    os.link(store.path / file, temporary / file)
        if (store.path / FEATURES_JSON).exists():
            shutil.copyfile(store.path / FEATURES_JSON, temporary / FEATURES_JSON)
        store.manifest.write(temporary)
        (temporary / LOCK).touch()
        temporary.rename(path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another reader was faster, or is deleting it
            return
        raise


def _hold(path: Path, owner: Path | None) -> int:
    descriptor = os.open(path / LOCK, os.O_RDWR)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _lock_of(path, descriptor):
            raise FileNotFoundError(errno.ENOENT, "the snapshot was deleted before its lock was held", str(path))
        if owner is not None:
            with (path / OWNERS).open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(str(owner.resolve()))}\n")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _lock_of(path: Path, descriptor: int) -> bool:
    """Whether a lock is that of the snapshot now: one that was deleted may have been made anew at the same place."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path / LOCK))
    return False


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether no process reads a snapshot; none can begin to while the block runs."""
    descriptor = os.open(path / LOCK, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield _lock_of(path, descriptor)
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _owned(path: Path) -> bool:
    """Whether an unfinished run continues with the snapshot."""
    with suppress(FileNotFoundError):
        for line in (path / OWNERS).read_text(encoding="utf-8").splitlines():
            with suppress(OSError, ValueError):
                run = json.loads((Path(json.loads(line)) / "manifest.json").read_text(encoding="utf-8"))
                if run["status"] != "complete" and run["data"]["fingerprint"] == path.name:
                    return True
    return False
