"""Atomic file replacement, and a lock that admits one writer."""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from eravane.core.errors import StoreError

Place = str | PathLike[str]
"""A path as users give it."""
CACHE_VARIABLE = "ERAVANE_CACHE"

PART = ".part"
# Half-written files of processes that were killed are deleted after this many seconds.
STALE = 24 * 3600.0
# Seconds between two looks at a lock that another process holds, and between two lines about it.
LOOK_EVERY, NOTE_EVERY = 0.2, 30.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` when the block succeeds.

    It has a temporary name until then; a kill or an error leaves the old file.

    Raises:
        OSError: the disk is full or cannot be written; the old file, if any, is untouched.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{PART}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the name that its user knows
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_file(path: Path) -> bytes:
    """The content of a file that a user names.

    Raises:
        OSError: it is not there or cannot be read; or it is a pipe or a device, which may never end.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "Is a pipe or a device; write its content to a file", str(path))
    return path.read_bytes()


def write_atomically(path: Path, content: bytes) -> None:
    """Write bytes to a file, whole or not at all.

    Raises:
        OSError: the disk is full or cannot be written; the old file, if any, is untouched.
    """
    with replacing(path) as file:
        file.write(content)


def json_able(value: object) -> object:
    """Nested mappings and lists as JSON takes them: text keys, and null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): json_able(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_able(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete_stale_parts(folder: Path) -> None:
    """Delete half-written files that a killed process left in a folder, or below it, long ago."""
    with suppress(OSError):
        for path in folder.rglob(f"*{PART}"):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink(missing_ok=True)


@contextmanager
def exclusive(folder: Path, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a folder for one writer; the lock goes with the process, however it ends.

    Where the file system has no locks, that is logged, and the folder is not held.

    Args:
        folder: the folder.
        wait: called with a line while another process holds it; None does not wait.

    Raises:
        StoreError: another process holds it.
        FileNotFoundError: there is no such folder, or it was deleted while this waited for it.
    """
    while True:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _lock(descriptor, folder, wait)
            if not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                continue  # it was made anew while this waited: the lock is that of the deleted one
            yield
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, folder: Path, wait: Callable[[str], None] | None) -> None:
    noted = -NOTE_EVERY
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if wait is None:
                raise StoreError(f"another process is writing to {folder}; wait for it to end") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logging.getLogger("eravane").warning(
                "%s is on a file system without locks: start no second program that writes to it", folder
            )
            return
        if time.monotonic() - noted >= NOTE_EVERY:
            noted = time.monotonic()
            wait(f"waiting for another process that writes to {folder}")
        time.sleep(LOOK_EVERY)


def default_cache() -> Path:
    """Folder of stores and finished boosters: $ERAVANE_CACHE, else ~/.cache/eravane."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "eravane")
