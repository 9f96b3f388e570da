"""Sources of an era's rows: the store's history, or the live rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.calendar.eras import EraFrame
from eravane.core.arrays import Values
from eravane.core.errors import DataError
from eravane.data.features import Features
from eravane.zoo.specs import ModelSpec
from eravane_kernels.cpu.levelcolumns import LevelColumns


@dataclass(frozen=True)
class EraSource:
    """Feature values of one era: all columns raw for the gate, a cell's columns prepared for the trees.

    Attributes:
        features: of the store.
        era: the era.
        live: the live rows, where they are this era's; None for an era of the history.
    """

    features: Features
    era: int
    live: EraFrame | None = None

    @property
    def ids(self) -> pa.StringArray:
        """Row ids, N strings."""
        return self.features.ids(self.era, self.era) if self.live is None else self.live.ids

    def raw(self) -> Values:
        """All stored columns, unprepared, [C, N]."""
        return self.features.raw(self.era) if self.live is None else self.live.values

    def stored(self) -> Values:
        """All stored columns, unprepared, [C, N] on the host."""
        store = self.features.store
        frame = store.window(self.era, self.era, store.columns).era(self.era) if self.live is None else store.live()
        assert frame is not None, "there are live rows"
        return frame.values

    def cell(self, columns: tuple[str, ...]) -> Values:
        """Prepared columns of one cell, [C, N]."""
        return (self.features.era(self.era, columns) if self.live is None else self.features.live(columns)).values

    def member(self, name: str) -> NDArray[np.float32]:
        """Predictions of a member from outside, float32 [N]."""
        features = self.features
        return features.member(name, self.era, self.era) if self.live is None else features.live_member(name)


def values_of(source: EraSource, spec: ModelSpec) -> Values | LevelColumns:
    """Inputs of a base model: its prepared columns [C, N], or a member's prediction [1, N]."""
    if spec.outside:
        return source.member(spec.group)[None]
    levels = None if source.live is not None else source.features.levels(spec.columns, source.era, source.era)
    return source.cell(spec.columns) if levels is None else levels


def has_era(features: Features, era: int) -> bool:
    """Whether the store holds an era, as history or as live rows."""
    live = features.store.live()
    return era in features.store.index or (live is not None and live.index.first == era)


def source_of(features: Features, era: int) -> EraSource:
    """The source of an era: the store's history, else its live rows.

    Raises:
        DataError: neither holds it.
    """
    if era in features.store.index:
        return EraSource(features, era)
    live = features.live_rows()
    if live.index.first != era:
        raise DataError(f"era {era} is not in the data; the live rows are era {live.index.first}")
    return EraSource(features, era, live)


def digest_of_rows(source: EraSource) -> str:
    """Sixteen hex digits over ids and features of an era, in row order."""
    whole = hashlib.sha256("\n".join(source.ids.to_pylist()).encode())
    for row in source.stored():
        whole.update(np.ascontiguousarray(row).tobytes())
    return whole.hexdigest()[:16]
