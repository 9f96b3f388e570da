"""Parquet columns as the store's types, every value checked on the way."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eravane.core.arrays import Values
from eravane.core.errors import DataError
from eravane.data.store.source import Source

LEVELS = 4


def stored_dtype(source: Source, columns: tuple[str, ...]) -> str:
    """Data type for the feature columns of a file: "int8" as soon as one of them is an integer, else "float32".

    Raises:
        DataError: a column is neither numeric nor boolean.
    """
    integers = False
    for name in columns:
        kind = source.types[name]
        whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        if not whole and not pa.types.is_floating(kind):
            raise DataError(f"{source.path}: column {name!r} has type {kind}; features are int8 or float")
        integers = integers or whole
    return "int8" if integers else "float32"


def as_levels(source: Source, name: str, column: pa.Array, first_row: int) -> NDArray[np.int8]:
    """A feature column as int8 levels, without a copy where the file has int8.

    Args:
        source, name, first_row: where the column comes from, for messages.
        column: values of consecutive rows.

    Raises:
        DataError: a value is missing, no integer, or outside 0..4; the last is checked here only for wider types.
    """
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{source.path}: column {name!r} has type {kind}; features are int8 or float")
    if column.null_count:
        row = int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
        source.refuse(name, first_row + row, "no value; integer features hold a level from 0 to 4 in every row")
    if pa.types.is_int8(column.type):
        levels: NDArray[np.int8] = column.to_numpy()
        return levels
    values: Values = column.to_numpy(zero_copy_only=False)
    if values.dtype == np.bool_:
        return values.astype(np.int8)
    wrong = ~((values >= 0) & (values <= LEVELS))
    if values.dtype.kind == "f":
        wrong |= values != np.rint(values)
    if wrong.any():
        row = int(wrong.argmax())
        source.refuse(name, first_row + row, f"value {values[row]} is no level from 0 to 4, as the other features are")
    return values.astype(np.int8)


def as_floats(source: Source, name: str, column: pa.Array, first_row: int) -> NDArray[np.float32]:
    """A column as float32, null as NaN, without a copy where the file has float32 and no null.

    Args:
        source, name, first_row: where the column comes from, for messages.
        column: values of consecutive rows.

    Raises:
        DataError: a value is infinite, also after rounding to float32; or the column is not numeric.
    """
    kind = column.type
    numeric = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_decimal)
    if not any(check(kind) for check in numeric):
        raise DataError(f"{source.path}: column {name!r} has type {kind}; a number is expected")
    if not pa.types.is_float32(kind):
        column = pc.cast(column, pa.float32(), safe=False)
    values: NDArray[np.float32] = column.to_numpy(zero_copy_only=False)
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.argmax())
        source.refuse(name, first_row + row, f"value {values[row]} is not finite; use NaN where a value is missing")
    return values
