"""Converts rows in memory (NumPy, pandas, polars, Arrow) into columns x rows with eras as slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.calendar.eras import EraFrame, EraIndex
from eravane.core.errors import ConfigError

TOP_LEVEL = 4


@dataclass(frozen=True, eq=False)
class Panel:
    """Rows in era order.

    Attributes:
        frame: values [C, N], int8 levels or float32.
        order_N: original position of each of the frame's rows.
    """

    frame: EraFrame
    order_N: NDArray[np.intp]

    @classmethod
    def of(cls, x_NC: NDArray[Any], columns: Sequence[str], era_N: NDArray[np.int64]) -> Panel:
        """Sort rows by era, stable within an era."""
        order_N = np.argsort(era_N, kind="stable")
        index = EraIndex.from_rows(era_N[order_N])
        return cls(EraFrame(as_columns(x_NC[order_N]), tuple(columns), index), order_N)

    def back(self, values_N: NDArray[Any]) -> NDArray[Any]:
        """Values of the frame's rows in the original order."""
        restored_N = np.empty_like(values_N)
        restored_N[self.order_N] = values_N
        return restored_N


def as_columns(x_NC: NDArray[Any]) -> NDArray[Any]:
    """Rows x columns as contiguous columns [C, N]: int8 where all are integer levels 0..4, else float32."""
    levels = x_NC.dtype.kind in "iub" and (x_NC.size == 0 or (x_NC.min() >= 0 and x_NC.max() <= TOP_LEVEL))
    return np.ascontiguousarray(x_NC.T, dtype=np.int8 if levels else np.float32)


def plain_table(x: object) -> Any:
    """Input for scikit-learn: an Arrow table or a polars frame as a data frame, anything else unchanged.

    scikit-learn before 1.9 finds no column names in frames of polars.
    """
    if type(x).__module__.partition(".")[0] == "polars" and hasattr(x, "to_arrow"):
        x = x.to_arrow()
    return x.to_pandas() if isinstance(x, pa.Table | pa.RecordBatch) else x


def column_groups(
    groups: Mapping[str, Sequence[str | int]] | int, columns: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Groups of columns by name.

    Args:
        groups: name -> column names or positions, or into how many contiguous blocks the columns are cut.
        columns: all columns.

    Raises:
        ConfigError: a group is empty or names a column that is not there.
    """
    if isinstance(groups, int):
        if groups < 2 or len(columns) < 2:
            return {}
        blocks = np.array_split(np.arange(len(columns)), min(groups, len(columns)))
        return {
            f"block{number}": tuple(columns[place] for place in block.tolist()) for number, block in enumerate(blocks)
        }
    known = dict.fromkeys(columns)
    found: dict[str, tuple[str, ...]] = {}
    for name, members in groups.items():
        named = tuple(_name(entry, columns) for entry in members)
        unknown = [entry for entry in named if entry not in known]
        if unknown or not named:
            raise ConfigError(
                f"group {name!r} {f'names {unknown[0]!r}' if unknown else 'has no columns'}; it takes names or "
                f"positions of the {len(columns)} columns"
            )
        found[str(name)] = tuple(dict.fromkeys(named))
    return found


def _name(entry: str | int, columns: Sequence[str]) -> str:
    if isinstance(entry, int | np.integer) and 0 <= entry < len(columns):
        return columns[entry]
    return str(entry)
