"""What a run tells while it goes on: one JSON line per step, and one line per step for people."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

logger = logging.getLogger("eravane")


class Progress(Protocol):
    """Where a long piece of work shows how far it is."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` steps; the stage before it is over."""

    def advance(self, detail: str = "") -> None:
        """One step is done."""

    def say(self, text: str) -> None:
        """Tell the user a fact worth a line."""


class Silent:
    """Progress for library use: facts go to the log, steps nowhere."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage."""
        logger.debug("%s: %d steps", stage, total)

    def advance(self, detail: str = "") -> None:
        """One step is done."""

    def say(self, text: str) -> None:
        """Log a fact."""
        logger.info(text)


class Meter(Protocol):
    """Tells what a stage used."""

    def mark(self) -> Any:
        """Begin a stage."""

    def since(self, mark: Any) -> dict[str, Any]:
        """End it: JSON-able facts."""


class EventLog:
    """Appends one JSON object per line to `events.jsonl`.

    Args:
        path: the file; None keeps no record (for library use).
        device: name of the device, written into every line.
        meter: tells what stages use; None leaves it out.
    """

    def __init__(self, path: Path | None, device: str = "cpu", meter: Meter | None = None) -> None:
        self._path = path
        self._device = device
        self._meter = meter

    def write(self, event: str, **facts: Any) -> None:
        """Append one event; `facts` are JSON-able values such as era and seconds; memory in use is added as `bytes`."""
        if self._path is None:
            return
        told = {"event": event, "time": round(time.time(), 3), **facts, "bytes": resident(), "device": self._device}
        line = json.dumps(told)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextmanager
    def stage(self, stage: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Time a stage; what the block puts into the yielded dictionary is written with it."""
        started = time.perf_counter()
        found: dict[str, Any] = {}
        with self.usage() as used:
            yield found
        self.write("stage", stage=stage, seconds=round(time.perf_counter() - started, 4), **facts, **found, **used)

    @contextmanager
    def usage(self) -> Iterator[dict[str, Any]]:
        """A dictionary that holds, after the block, what the block used."""
        used: dict[str, Any] = {}
        mark = None if self._meter is None else self._meter.mark()
        yield used
        if self._meter is not None:
            used |= self._meter.since(mark)


def resident() -> int:
    """Bytes of memory that this process holds now, mapped files that it has read included."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read `events.jsonl`; a last line cut by a kill is left out."""
    events: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events
