"""Journal of the loop, one file per era, from which every result file of the run is assembled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Floats, Named
from eravane.core.layout import Layout
from eravane.runstate.eradisk import EraFiles

COMPARATOR = "comparator."


@dataclass(frozen=True, eq=False)
class EraRecord:
    """One predicted era.

    Attributes:
        era: era number.
        base_MN: float32 [M, N], raw predictions of every base model, those closed at the time included.
        prediction_N: float64 [N], the ensemble in (0, 1).
        weights_M: float64 [M], the gate's decision; 0 where closed.
        open_M: bool [M], which models ran.
        comparators: name -> float64 [M], other weightings that used the same past.
    """

    era: int
    base_MN: NDArray[np.float32]
    prediction_N: Floats
    weights_M: Floats
    open_M: NDArray[np.bool_]
    comparators: Mapping[str, Floats]

    def as_arrays(self) -> Named:
        """The record as named arrays."""
        arrays: Named = {
            "base": self.base_MN,
            "prediction": self.prediction_N,
            "weights": self.weights_M,
            "open": self.open_M,
        }
        return arrays | {COMPARATOR + name: weights for name, weights in self.comparators.items()}

    @classmethod
    def from_layout(cls, era: int, layout: Layout) -> EraRecord:
        """Rebuild what `as_arrays` gave.

        Raises:
            LayoutError: it is something else.
        """
        base_MN, prediction_N = layout.take("base", "f4", "M", "N"), layout.take("prediction", "f8", "N")
        weights_M, open_M = layout.take("weights", "f8", "M"), layout.take("open", "bool", "M")
        # safetensors keeps no order, result files need one.
        names = sorted(layout.names(COMPARATOR))
        comparators = {name.removeprefix(COMPARATOR): layout.take(name, "f8", "M") for name in names}
        layout.end()
        return cls(era, base_MN, prediction_N, weights_M, open_M, comparators)


class Journal(EraFiles):
    """The records of a run's loop, one file per era."""

    def write(self, record: EraRecord) -> None:
        """Store a record; after a kill it is complete or absent."""
        self.put(record.era, record.as_arrays())

    def read(self, era: int) -> EraRecord:
        """The record of one era.

        Raises:
            RunError: the file is missing or damaged.
        """
        return self.get(era, lambda layout: EraRecord.from_layout(era, layout))

    def __iter__(self) -> Iterator[EraRecord]:
        return (self.read(era) for era in self.eras())
