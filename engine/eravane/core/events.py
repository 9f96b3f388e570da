"""Events and progress of a run: one JSON line per step for programs, one line per step for people."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from eravane.core.memory import status_bytes

logger = logging.getLogger("eravane")

ByFile = Callable[[str, int, int], None]
"""Called with a file's name, what is done of it and what there is in all (cells, or bytes)."""


class Progress(Protocol):
    """Shows the progress of a long piece of work."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` steps and end the one before it."""

    def advance(self, detail: str = "") -> None:
        """One step is done."""

    def note(self, text: str) -> None:
        """Show a fact on a line of its own."""


class Silent:
    """Progress for library use: facts are logged, steps are not shown."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage."""
        logger.debug("%s: %d steps", stage, total)

    def advance(self, detail: str = "") -> None:
        """One step is done."""

    def note(self, text: str) -> None:
        """Log a fact."""
        logger.info(text)


class Meter(Protocol):
    """Measures the resources of a stage."""

    def mark(self) -> Any:
        """Begin a stage."""

    def since(self, mark: Any) -> dict[str, object]:
        """End it and return JSON-able facts."""


class EventLog:
    """Appends one JSON object per line to `events.jsonl`.

    Args:
        path: the file; None writes nothing (for library use).
        device: name of the device, written into every line.
        meter: measures stages; None leaves that out.
    """

    def __init__(self, path: Path | None, device: str = "cpu", meter: Meter | None = None) -> None:
        self._path = path
        self._device = device
        self._meter = meter

    def write(self, event: str, **facts: object) -> None:
        """Append one event with the resident `bytes`; `facts` are JSON-able values such as era and seconds."""
        if self._path is None:
            return
        record = {
            "event": event,
            "time": round(time.time(), 3),
            **facts,
            "bytes": status_bytes("VmRSS"),
            "device": self._device,
        }
        line = json.dumps(record)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextmanager
    def stage(self, stage: str, **facts: object) -> Iterator[dict[str, object]]:
        """Time a stage; entries that the block adds to the yielded dictionary are written with it."""
        started = time.perf_counter()
        found: dict[str, object] = {}
        with self.usage() as used:
            yield found
        self.write("stage", stage=stage, seconds=round(time.perf_counter() - started, 4), **facts, **found, **used)

    @contextmanager
    def usage(self) -> Iterator[dict[str, object]]:
        """A dictionary that holds the resources used by the block once it has ended."""
        used: dict[str, object] = {}
        mark = None if self._meter is None else self._meter.mark()
        yield used
        if self._meter is not None:
            used |= self._meter.since(mark)
