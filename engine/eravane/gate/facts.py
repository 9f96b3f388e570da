"""Facts from outside: numbers per era of the user's own (volatility, rates, breadth) that the gate reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Floats as FloatArray
from eravane.core.errors import ConfigError, DataError
from eravane.data.parquet import ERA, UNNAMED_INDEX, eras_of, numbers_of, read_table


class OutsideFacts:
    """Columns of numbers by era: era t reads the row of era t - lag; NaN where there is none.

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
            table = read_table(path)
            names = tuple(name for name in table.column_names if name not in (ERA, UNNAMED_INDEX))
            if ERA not in table.column_names or not names:
                raise DataError(
                    f"{path} has the columns {', '.join(table.column_names) or 'none'}; it needs {ERA!r} and at least "
                    "one column of numbers"
                )
            eras = eras_of(path, table[ERA]).astype(np.int64)
            values_ED = np.stack([numbers_of(path, table[name], name) for name in names], axis=1).astype(np.float64)
        except DataError as error:
            raise ConfigError(f"gate.facts: {error}") from None
        known, count = np.unique(eras, return_counts=True)
        if (count > 1).any():
            raise ConfigError(
                f"gate.facts: {path} has the era {known[count > 1][0]} more than once; give one row per era"
            )
        order = np.argsort(eras, kind="stable")
        return cls(eras[order], values_ED[order], names, lag)

    def at(self, era: int) -> FloatArray:
        """Facts known of an era [D]; NaN where its row is missing."""
        return np.asarray(self._row_of.get(era - self._lag, np.full(len(self.names), np.nan)))
