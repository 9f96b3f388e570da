"""Prepared features and labels of a store by era: what trees are trained on and what they predict from."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.backend.cpu import CpuBackend
from eravane.backend.protocol import Backend
from eravane.calendar.eras import EraFrame
from eravane.core.arrays import Values
from eravane.core.config import PrepareConfig
from eravane.core.errors import DataError
from eravane.data.prepare import Preparer, joined
from eravane.data.resident import Resident, resident
from eravane.data.store.store import EraStore
from eravane_kernels.arrays import Levels
from eravane_kernels.cpu.levelcolumns import LevelColumns


class Outside(Protocol):
    """A column from outside."""

    @property
    def values_N(self) -> NDArray[np.float32]:
        """Every row of the store, float32 [N]."""
        ...

    @property
    def live_N(self) -> NDArray[np.float32] | None:
        """The live rows, float32 [N]; None where the store has none."""
        ...


class Features:
    """A store seen through imputation and clipping; where those change nothing, every result is a view.

    Args:
        store: the opened store.
        preparer: fills and clips an era from what is known at that era.
        backend: where values lie and are prepared; on a GPU all values of features are arrays of the device.
    """

    def __init__(self, store: EraStore, preparer: Preparer, backend: Backend | None = None) -> None:
        self.store, self._preparer = store, preparer
        self._backend = backend or CpuBackend()
        self._members: Mapping[str, Outside] = {}
        self._meta: Outside | None = None
        self._live: EraFrame | None = None  # on the device

    @property
    def _resident(self) -> Resident:
        """Source of values; looked up at each call, since residence on a device is decided after opening."""
        return resident(self.store, self._backend)

    @classmethod
    def open(cls, path: Path, config: PrepareConfig, backend: Backend | None = None) -> Features:
        """Open a store; every worker does.

        Args:
            path: the store.
            config: the [prepare] section.
            backend: the device that features are to lie on (None: the CPU).

        Raises:
            StoreError: the store is unfinished or damaged.
        """
        backend = backend or CpuBackend()
        return cls(EraStore.open(path), Preparer(config, backend.kernels), backend)

    def with_outside(self, members: Mapping[str, Outside], meta_model: Outside | None = None) -> Features:
        """The same features with predictions from outside: members by name, and the meta model."""
        other = copy.copy(self)
        other._members, other._meta = dict(members), meta_model
        return other

    def member(self, name: str, first: int, last: int) -> NDArray[np.float32]:
        """Predictions of a member from outside over eras first..last, float32 [N]."""
        return self._members[name].values_N[self.store.index.span(first, last)]

    def live_member(self, name: str) -> NDArray[np.float32]:
        """Predictions of a member from outside for the live rows, float32 [N]."""
        live_N = self._members[name].live_N
        assert live_N is not None, "a store with live rows gives its members live values"
        return live_N

    def meta_model(self, first: int, last: int) -> NDArray[np.float32] | None:
        """Predictions of the meta model over eras first..last, float32 [N] with NaN; None where it is not read."""
        return None if self._meta is None else self._meta.values_N[self.store.index.span(first, last)]

    def eras(self, first: int, last: int) -> list[int]:
        """Eras first..last that the store holds."""
        return list(self.store.index.select(first, last))

    def raw(self, era: int) -> Values:
        """All columns of an era as stored, [C, N]; a view where they stay on the device or are mapped."""
        values_CN: Values = self._resident.window(self.store.columns, era, era)
        return values_CN

    def era(self, era: int, columns: Sequence[str]) -> EraFrame:
        """Prepared columns of one era; indicator columns, where they are switched on, come last."""
        names, index = tuple(columns), self.store.index.select(self.needed(era), era)
        values_CN = self._resident.window(names, index.first, era)
        frame = EraFrame(values_CN, names, index, None if self._preparer.history else self.ids(era, era))
        return self._preparer.apply(frame, era)

    def each(self, first: int, last: int, columns: Sequence[str]) -> Iterator[EraFrame]:
        """Prepared columns of eras first..last, one by one; the next is on its way while the caller uses the last."""
        names = tuple(columns)
        if self._preparer.history:
            yield from (self.era(era, names) for era in self.eras(first, last))
            return
        if self._resident.mapped:
            for frame in self.store.window(first, last, names):
                yield self._preparer.apply(frame, frame.index.first)
            return
        for era, values_CN in self._resident.eras(names, first, last):
            index = self.store.index.select(era, era)
            yield self._preparer.apply(EraFrame(values_CN, names, index, self.ids(era, era)), era)

    def levels(self, columns: Sequence[str], first: int, last: int, *, every: int = 1) -> LevelColumns | None:
        """Prepared columns of every n-th era of first..last, all eras where they lie, else copied into one block.

        None where they are prepared, floats or on a device.
        """
        if self.store.dtype != "int8" or not self._resident.mapped or not self._preparer.keeps("int8"):
            return None
        window = self.store.window(first, last, tuple(columns))
        return window.levels() if every == 1 else LevelColumns.unchecked(cast(Levels, window.every(every)))

    def live_rows(self) -> EraFrame:
        """The live rows as stored, where features lie, under the number of the era after the newest.

        Raises:
            DataError: the dataset has no live rows.
        """
        frame = self.store.live()
        if frame is None:
            raise DataError("the dataset has no live.parquet; `eravane fetch` gets it")
        if self._resident.mapped:
            return frame
        if self._live is None:
            self._live = replace(frame, values=self._backend.to_device(frame.values))
        return self._live

    def live(self, columns: Sequence[str]) -> EraFrame:
        """Prepared columns of the live rows.

        Raises:
            DataError: the dataset has no live rows.
        """
        rows = self.live_rows()
        names = tuple(columns)
        era = rows.index.first
        values_CN = self._backend.columns_of(rows.values, rows.positions(names), slice(0, rows.index.rows))
        frame = EraFrame(values_CN, names, rows.index, rows.ids)
        if self._preparer.history:
            index = self.store.index.select(self.needed(era), era - 1)
            before_CN = self._resident.window(names, index.first, index.last)
            frame = joined(EraFrame(before_CN, names, index), frame, self._backend.joined)
        return self._preparer.apply(frame, era)

    def needed(self, era: int) -> int:
        """Oldest era that the preparation of `era` reads."""
        return era - self._preparer.history

    def values(self, columns: Sequence[str], first: int, last: int) -> Values:
        """Prepared columns of eras first..last side by side, [C, N] where they lie; a view where one suffices."""
        if self._preparer.keeps(self.store.dtype):
            kept_CN: Values = self._resident.window(tuple(columns), first, last)
            return kept_CN
        joined_CN: Values = self._backend.joined([self.era(era, columns).values for era in self.eras(first, last)])
        return joined_CN

    def table(self, columns: Sequence[str], first: int, last: int, *, every: int = 1) -> Any:
        """Prepared columns of every n-th era of first..last to train on: an Arrow table, on a GPU a `DeviceTable`."""
        if self._resident.mapped:
            if every == 1 and self._preparer.keeps(self.store.dtype):
                return self.store.window(first, last, tuple(columns)).arrow()
            names = tuple(columns)
            if self._preparer.keeps(self.store.dtype):
                return _as_table(names, self.store.window(first, last, names).every(every))
            return self._gathered(names, self.eras(first, last)[::every])
        if every == 1 and self._preparer.keeps(self.store.dtype):
            return self._backend.table(self._resident.window(tuple(columns), first, last), tuple(columns))
        frames = [self.era(era, columns) for era in self.eras(first, last)[::every]]
        return self._backend.table(self._backend.joined([frame.values for frame in frames]), frames[0].columns)

    def _gathered(self, columns: tuple[str, ...], eras: Sequence[int]) -> pa.Table:
        """Prepared columns of some eras, copied into one block: trees grow faster on it than on a chunk per era."""
        if not eras:
            return pa.table({name: pa.array([], pa.from_numpy_dtype(self.store.dtype)) for name in columns})
        spans = [self.store.index.rows_of(era) for era in eras]
        edges = np.cumsum([0, *(span.stop - span.start for span in spans)]).tolist()
        first = self.era(eras[0], columns)
        values_CN = np.empty((len(first.columns), edges[-1]), dtype=first.values.dtype)
        for place, era in enumerate(eras):
            frame = first if place == 0 else self.era(era, columns)
            values_CN[:, edges[place] : edges[place + 1]] = frame.values
        return _as_table(first.columns, values_CN)

    def labels(
        self, target: str, first: int, last: int, *, every: int = 1, hidden: Collection[int] = ()
    ) -> NDArray[np.float32]:
        """Labels of every n-th era of first..last, float32 [N], NaN where not known and in the `hidden` eras."""
        labels = self.store.target(target, first, last)
        if hidden:
            eras = self.store.index.select(first, last).per_row()
            labels = np.where(np.isin(eras, list(hidden)), np.float32(np.nan), labels)
        return labels if every == 1 else labels[self._every(first, last, every)]

    def era_of_rows(self, first: int, last: int, *, every: int = 1) -> NDArray[np.int64]:
        """Era number of every row of every n-th era of first..last, int64 [N]."""
        eras = self.store.index.select(first, last).per_row()
        return eras if every == 1 else eras[self._every(first, last, every)]

    def ids(self, first: int, last: int) -> pa.StringArray:
        """Row ids of eras first..last."""
        return self.store.ids(first, last)

    def _every(self, first: int, last: int, every: int) -> NDArray[np.bool_]:
        index = self.store.index.select(first, last)
        return np.repeat(np.arange(len(index)) % every == 0, index.counts)


def _as_table(names: Sequence[str], values_CN: Values) -> pa.Table:
    """An Arrow table over a contiguous matrix, without a copy."""
    kind, rows, width = pa.from_numpy_dtype(values_CN.dtype), values_CN.shape[1], values_CN.strides[0]
    whole = pa.py_buffer(values_CN)
    arrays = [
        pa.Array.from_buffers(kind, rows, [None, whole.slice(at * width, rows * values_CN.itemsize)], null_count=0)
        for at in range(len(values_CN))
    ]
    return pa.Table.from_arrays(arrays, names=list(names))
