"""The features of a store on the device: sent once in a run, and shared by all that read them.

On a GPU the columns of a store lie in one matrix [columns, rows], each at a multiple of 128 bytes. Training tables, era
statistics, imputation, clipping, predictions and neutralisation are views of it. What is kept is decided before work
starts, by the memory that training leaves:

- `whole`: every column that was asked for stays;
- `columns`: as many columns stay as fit, those that were used longest ago make room for others;
- `eras`: nothing stays; rows are sent when they are asked for, eras one ahead of their reader;
- `mapped`: on the CPU, where the store's mapped files are the device's memory: nothing is sent.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from eravane.backend.protocol import Backend
from eravane.core.arrays import Values
from eravane.core.errors import OutOfDeviceMemoryError
from eravane.core.units import format_size
from eravane.data.store.store import EraStore

Mode = Literal["mapped", "whole", "columns", "eras"]
ALIGNMENT = 128


@dataclass(frozen=True)
class Residence:
    """Features that stay on the device.

    Attributes:
        mode: see the module.
        slots: columns that there is room for.
        column_bytes: of a column, all rows of the store.
    """

    mode: Mode
    slots: int = 0
    column_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Memory that stays taken."""
        return self.slots * self.column_bytes

    def __str__(self) -> str:
        size = format_size(self.bytes)
        return {
            "mapped": "features are read from the store's mapped files",
            "whole": f"all {self.slots} columns stay on the device, {size}",
            "columns": f"{self.slots} columns at a time stay on the device, {size}, by least recent use",
            "eras": "no column fits beside training: eras are streamed to the device",
        }[self.mode]


def residence(store: EraStore, device: str, room: int, wanted: int, widest: int, training: int = 0) -> Residence:
    """Decide what of a store stays on a device; arguments as `fitting`."""
    itemsize = np.dtype(store.dtype).itemsize
    return fitting(store.index.rows * itemsize, device, room, wanted, widest, training)


def fitting(column: int, device: str, room: int, wanted: int, widest: int, training: int = 0) -> Residence:
    """Decide what stays on a device.

    Args:
        column: bytes of a column, all rows.
        device: "cpu" or "cuda".
        room: bytes of the device.
        wanted: columns that a run uses.
        widest: columns of its widest cell.
        training: bytes of the largest training task.
    """
    if device == "cpu":
        return Residence("mapped")
    column_bytes = -(-column // ALIGNMENT) * ALIGNMENT
    slots = max(0, room - training) // max(1, column_bytes)
    if slots >= wanted:
        return Residence("whole", wanted, column_bytes)
    if slots >= widest:
        return Residence("columns", slots, column_bytes)
    return Residence("eras", 0, column_bytes)


class Resident:
    """Features of a store on a device.

    Args:
        store: whose features.
        backend: the device.
        kept: what stays there.

    Attributes:
        uploads: how often each column was sent as a whole; 1 for every column in the mode `whole`.
        sent_bytes: bytes sent in all.
    """

    def __init__(self, store: EraStore, backend: Backend, kept: Residence) -> None:
        self.store, self.backend, self.kept = store, backend, kept
        self.uploads: Counter[str] = Counter()
        self.sent_bytes = 0
        self._lock = threading.RLock()
        self._slot_of: OrderedDict[str, int] = OrderedDict()
        self._matrix: Any = None

    @property
    def mapped(self) -> bool:
        """Whether values are views of the store's files."""
        return self.kept.mode == "mapped"

    @property
    def resident_bytes(self) -> int:
        """Memory that is taken now."""
        return 0 if self._matrix is None else int(self._matrix.nbytes)

    def window(self, columns: Sequence[str], first: int, last: int) -> Values:
        """Eras first..last of some columns, [C, N] on the device; not to be written to.

        Raises:
            OutOfDeviceMemoryError: they do not fit.
        """
        if self.mapped:
            window = self.store.window(first, last, columns)
            return window.era(first).values if first == last else window.frame().values
        if not 0 < len(columns) <= self.kept.slots:
            return self._sent(columns, first, last)
        with self._lock:
            places = self._places(columns)
            found = self.backend.columns_of(self._matrix, places, self.store.index.span(first, last))
            # Views live longer than their columns where these make room for others.
            return found if self.kept.mode == "whole" else self.backend.joined([found])

    def eras(self, columns: Sequence[str], first: int, last: int) -> Iterator[tuple[int, Values]]:
        """Eras first..last one by one: number and values on the device."""
        numbers = list(self.store.index.select(first, last))
        if self.mapped or 0 < len(columns) <= self.kept.slots:
            for era in numbers:
                yield era, self.window(columns, era, era)
            return
        window = self.store.window(first, last, columns)
        parts = (cast(Values, np.ascontiguousarray(window.era(era).values)) for era in numbers)
        for era, values in zip(numbers, self.backend.stream(parts), strict=True):
            self.sent_bytes += values.nbytes
            yield era, values

    def release(self) -> None:
        """Give the memory back; columns are sent again when they are asked for."""
        with self._lock:
            self._matrix = None
            self._slot_of.clear()

    def _sent(self, columns: Sequence[str], first: int, last: int) -> Values:
        """Rows that are not kept."""
        window = self.store.window(first, last, columns)
        matrix = self.backend.hold((len(window.columns), window.index.rows), self.store.dtype)
        window.send(self.backend, matrix)
        self.sent_bytes += matrix.nbytes
        return matrix

    def _places(self, columns: Sequence[str]) -> NDArray[np.int64]:
        """Slots of columns, those that are not there sent first."""
        if self._matrix is None:
            self._matrix = self.backend.hold((self.kept.slots, self.store.index.rows), self.store.dtype)
        missing = [name for name in columns if name not in self._slot_of]
        for name in columns:
            if name in self._slot_of:
                self._slot_of.move_to_end(name)
        if missing:
            self._send(missing, set(columns))
        return np.array([self._slot_of[name] for name in columns], dtype=np.int64)

    def _send(self, names: Sequence[str], needed: set[str]) -> None:
        # Where sending failed, what made room for it has left a gap among those in use.
        slots = sorted(set(range(self.kept.slots)).difference(self._slot_of.values()))[: len(names)]
        for name in [name for name in self._slot_of if name not in needed][: len(names) - len(slots)]:
            slots.append(self._slot_of.pop(name))
        if len(slots) < len(names):
            raise OutOfDeviceMemoryError(f"{len(names)} columns do not fit beside those in use")
        slots.sort()
        window = self.store.window(self.store.index.first, self.store.index.last, names)
        begun = 0
        for end in range(1, len(slots) + 1):
            if end == len(slots) or slots[end] != slots[end - 1] + 1:
                run = slice(slots[begun], slots[end - 1] + 1)
                part = self.store.window(window.index.first, window.index.last, window.columns[begun:end])
                part.send(self.backend, self._matrix[run])
                begun = end
        for name, slot in zip(window.columns, slots, strict=True):
            self._slot_of[name] = slot
            self.uploads[name] += 1
        self.sent_bytes += len(names) * self.store.index.rows * np.dtype(self.store.dtype).itemsize


_held: dict[tuple[Path, str], Resident] = {}
_lock = threading.Lock()


def resident(store: EraStore, backend: Backend, kept: Residence | None = None) -> Resident:
    """The features of a store on a device: one object for all callers in this process, while the store stays.

    Args:
        store: whose features.
        backend: the device.
        kept: what stays there, for the first who asks (None: as much as half of the device's memory holds, on a
            worker without a plan).
    """
    key = store.place, backend.name
    with _lock:
        known = _held.get(key)
        same = known is not None and _alike(known.store, store)
        if known is not None and same and kept in (None, known.kept):
            return known
        if kept is None:
            room = 0 if backend.name == "cpu" else backend.room() // 2
            kept = residence(store, backend.name, room, len(store.columns), 1)
        if known is not None:
            _held.pop(key).release()
        made = Resident(store, backend, kept)
        if not made.mapped:
            _held[key] = made
        return made


def _alike(one: EraStore, other: EraStore) -> bool:
    """Whether two stores hold the same."""
    return one.manifest is other.manifest or one.manifest.fingerprint() == other.manifest.fingerprint()


def forget(store: EraStore, device: str) -> None:
    """Give back the memory that features of a store take on a device; they are sent again when they are asked for."""
    with _lock:
        held = _held.pop((store.place, device), None)
        if held is not None:
            held.release()
