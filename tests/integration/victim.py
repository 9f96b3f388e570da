"""A run that dies: killed, or out of disk space, at the n-th time it touches the disk for good."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eravane.core.config import RunConfig
from eravane.pipeline.batch import run


class Moments:
    """Counts the calls that make or unmake files, and does something at one of them.

    Args:
        at: number of the call, from 1; 0 for never.
        act: what happens then, before the call.
    """

    CALLS: tuple[tuple[Any, str], ...] = ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree"))

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.count, self._at, self._act = 0, at, act
        self._before = [(place, name, getattr(place, name)) for place, name in self.CALLS]

    def __enter__(self) -> Moments:
        for place, name, call in self._before:
            setattr(place, name, self._counted(call))
        return self

    def __exit__(self, *_: object) -> None:
        for place, name, call in self._before:
            setattr(place, name, call)

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self._at:
                self._act()
            return call(*arguments, **options)

        return counted


def kill() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full() -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


def run_and_die(data: Path, config: RunConfig, out: Path, cache: Path, at: int) -> None:
    """Run, resuming what is there, until the moment comes."""
    with Moments(at, kill):
        run(data, config, out, resume=out.exists(), cache=cache)
