"""Facts from outside: numbers per era of the user's own (volatility, rates, breadth) that the gate reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eravane.core.arrays import Floats as FloatArray
from eravane.core.errors import ConfigError

ERA = "era"


class OutsideFacts:
    """Columns of numbers by era, of which era t reads the row of era t - lag; NaN where there is none.

    Args:
        eras: ascending; values_ED: float64 [E, D], NaN for missing.
        names: of the columns; lag: eras until a row is published.
    """

    def __init__(self, eras: NDArray[np.int64], values_ED: FloatArray, names: tuple[str, ...], lag: int) -> None:
        self.names, self._lag = names, lag
        self._row_of = {int(era): values_D for era, values_D in zip(eras, values_ED, strict=True)}

    @classmethod
    def none(cls) -> OutsideFacts:
        """No facts at all."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, 0)), (), 0)

    @classmethod
    def read(cls, path: Path, lag: int) -> OutsideFacts:
        """Read `gate.facts`: a parquet file with a column era and numbers in every other column.

        Rows of eras that the data do not have are never asked for; a row later than t - lag is not read for era t.

        Raises:
            ConfigError: the file is missing or no parquet file, has no column era or no other one, an era twice, a
                column without numbers, or an infinite number; the message names column and era.
        """
        try:
            table = pq.read_table(path)
        except FileNotFoundError:
            raise ConfigError(f"gate.facts: there is no file {path}") from None
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"gate.facts: {path} cannot be read as parquet: {error}") from None
        names = tuple(name for name in table.column_names if name != ERA and not name.startswith("__index_level_"))
        if ERA not in table.column_names or not names:
            raise ConfigError(
                f"gate.facts: {path} has the columns {', '.join(table.column_names) or 'none'}; it needs {ERA!r} and "
                "at least one column of numbers"
            )
        eras = _eras(table[ERA], path)
        order = np.argsort(eras, kind="stable")
        values_ED = np.stack([_numbers(table[name], name, eras, path) for name in names], axis=1)
        return cls(eras[order], values_ED[order], names, lag)

    def at(self, era: int) -> FloatArray:
        """What is known of an era [D]; NaN where its row is missing."""
        return np.asarray(self._row_of.get(era - self._lag, np.full(len(self.names), np.nan)))


def _eras(column: pa.ChunkedArray, path: Path) -> NDArray[np.int64]:
    """Era numbers from labels like "0001", or from integers."""
    found = []
    for row, label in enumerate(column.to_pylist()):
        try:
            if isinstance(label, bool | float) or label is None:
                raise ValueError
            found.append(int(label))
        except ValueError:
            raise ConfigError(
                f"gate.facts: {path}, row {row + 1}: the era is {label!r}; eras are numbers or labels like '0001'"
            ) from None
    eras = np.array(found, dtype=np.int64)
    known, count = np.unique(eras, return_counts=True)
    if (count > 1).any():
        raise ConfigError(f"gate.facts: {path} has the era {known[count > 1][0]} more than once; give one row per era")
    return eras


def _numbers(column: pa.ChunkedArray, name: str, eras: NDArray[np.int64], path: Path) -> FloatArray:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ConfigError(f"gate.facts: the column {name!r} of {path} holds {kind}; it must hold numbers")
    values_E = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    endless = np.flatnonzero(np.isinf(values_E))
    if endless.size:
        era = int(eras[endless[0]])
        raise ConfigError(
            f"gate.facts: the column {name!r} of {path} is infinite in era {era}; leave missing numbers empty"
        )
    return np.asarray(values_E)
