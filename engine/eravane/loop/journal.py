"""What the loop has done, one file per era, from which every result file of the run is assembled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from eravane.errors import RunError
from eravane.files import write_atomically

FloatArray = NDArray[np.float64]

COMPARATOR = "comparator."


@dataclass(frozen=True, eq=False)
class EraRecord:
    """One predicted era.

    Attributes:
        era: era number.
        base_MN: float32 [M, N], raw predictions of every base model, those closed at the time included.
        prediction_N: float64 [N], the ensemble in (0, 1).
        weights_M: float64 [M], what the gate decided; 0 where closed.
        open_M: bool [M], which models ran.
        comparators: name -> float64 [M], other weightings that used the same past.
    """

    era: int
    base_MN: NDArray[np.float32]
    prediction_N: FloatArray
    weights_M: FloatArray
    open_M: NDArray[np.bool_]
    comparators: Mapping[str, FloatArray]

    def to_bytes(self) -> bytes:
        """The record as safetensors."""
        arrays: dict[str, NDArray[Any]] = {
            "base": self.base_MN,
            "prediction": self.prediction_N,
            "weights": self.weights_M,
            "open": self.open_M,
        }
        arrays |= {COMPARATOR + name: weights for name, weights in self.comparators.items()}
        content: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        return content

    @classmethod
    def from_bytes(cls, era: int, content: bytes) -> EraRecord:
        """Read what `to_bytes` wrote."""
        arrays = load(content)
        # safetensors keeps no order, result files need one.
        comparators = {
            name.removeprefix(COMPARATOR): arrays[name] for name in sorted(arrays) if name.startswith(COMPARATOR)
        }
        return cls(era, arrays["base"], arrays["prediction"], arrays["weights"], arrays["open"], comparators)


class Journal:
    """The records of a run's loop, one file per era.

    Args:
        folder: where they lie; created when the first record is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, record: EraRecord) -> None:
        """Store a record; after a kill it is whole or not there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(record.era), record.to_bytes())

    def read(self, era: int) -> EraRecord:
        """The record of one era.

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self._path(era)
        try:
            return EraRecord.from_bytes(era, path.read_bytes())
        except (OSError, SafetensorError, KeyError) as error:
            raise RunError(f"{path} cannot be read ({error}); start the run again in a new folder") from error

    def eras(self) -> list[int]:
        """Eras that have a record, ascending."""
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.safetensors"))

    def __iter__(self) -> Iterator[EraRecord]:
        return (self.read(era) for era in self.eras())

    def forget_after(self, era: int) -> None:
        """Drop records of later eras: they were written after the checkpoint that a resumed run starts from."""
        for later in self.eras():
            if later > era:
                self._path(later).unlink()

    def _path(self, era: int) -> Path:
        return self._folder / f"{era:04d}.safetensors"
