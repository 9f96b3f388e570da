"""Tables as people hold them, read column by column: pandas, polars, Arrow, NumPy, store windows, parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.core.errors import DataError
from eravane.data.parquet import numbers_of, open_parquet, read_table

# Columns of an array in C order are brought together so many at a time.
BLOCK = 64
# Columns of a Numerai file that are no features; where some begin with "feature", only those are.
APART, FEATURE = ("id", "era", "data_type"), "feature"
_XGBOOST_TYPES = {"i": "int", "u": "int", "f": "float", "b": "i"}


@dataclass(frozen=True, eq=False)
class Part:
    """Values of consecutive rows, [n], and where they are missing; `values` means nothing there."""

    values: NDArray[Any]
    null: NDArray[np.bool_] | None = None

    def floats(self) -> NDArray[np.float32]:
        """The values as XGBoost sees them, float32 [n], NaN where missing."""
        with np.errstate(over="ignore"):
            found = np.ascontiguousarray(self.values, dtype=np.float32)
        return found if self.null is None else np.where(self.null, np.float32(np.nan), found)


@dataclass(frozen=True, eq=False)
class Column:
    """A column in as many parts as its table has segments."""

    label: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Frame:
    """A table that is read column by column.

    Attributes:
        row_S: int64, rows of its segments.
        names: of the columns; empty where they have none.
        types: XGBoost's names of their types; empty where there are no names.
        width: columns.
        columns: reads them, in order.
        owner: keeps the memory alive.
        data: what XGBoost takes in its place.
    """

    row_S: NDArray[np.int64]
    names: tuple[str, ...]
    types: tuple[str, ...]
    width: int
    columns: Callable[[], Iterator[Column]]
    owner: Any
    data: Any

    @property
    def rows(self) -> int:
        """Rows of all segments."""
        return int(self.row_S.sum())


def is_table(x: object) -> bool:
    """Whether it has named columns, or reads from a file."""
    return isinstance(x, pa.Table | pa.RecordBatch | str | Path) or hasattr(x, "columns") or hasattr(x, "arrow")


def plain(x: Any, apart: Sequence[str] = (), wanted: Sequence[str] = ()) -> Any:
    """Files and windows of a store as Arrow tables, polars frames too; anything else as it is.

    Args:
        x: a path or a list of paths of parquet files, a window of a store, a data frame or an array.
        apart: columns of a file that are no features.
        wanted: those that are, in this order; none: all that may be.

    Raises:
        DataError: a file cannot be read, has no features or lacks one; an array is masked.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise DataError("X: a masked array; fill what is masked, with NaN or another value that `missing` names")
    if isinstance(x, str | Path):
        return _file(Path(x), apart, wanted)
    if is_files(x):
        return _joined([Path(entry) for entry in x], apart, wanted)
    if hasattr(x, "arrow") and not hasattr(x, "iloc"):  # a window of a store
        return x.arrow()
    if type(x).__module__.partition(".")[0] == "polars":
        return _polars(x)
    return pa.table(x) if isinstance(x, pa.RecordBatch) else x


def is_files(x: object) -> bool:
    """Whether it is a path, or a list of these."""
    return isinstance(x, str | Path) or (
        isinstance(x, list | tuple) and bool(x) and all(isinstance(entry, str | Path) for entry in x)
    )


def read_columns(path: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """Columns of parquet files that are not features, such as targets: float32 [N, K].

    Raises:
        DataError: a file cannot be read or lacks a column, or that holds no numbers.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(entry) for entry in path]
    tables = [read_table(entry, list(names)) for entry in paths]
    columns = [
        np.concatenate([numbers_of(entry, table[name], name) for entry, table in zip(paths, tables, strict=True)])
        for name in names
    ]
    return np.stack([column.astype(np.float32) for column in columns], axis=1)


def frame_of(x: object) -> Frame:
    """Any table or array as a frame.

    Raises:
        DataError: a column holds no numbers; a name occurs twice.
    """
    if isinstance(x, pa.Table):
        return _arrow(x)
    if hasattr(x, "iloc") and hasattr(x, "columns"):
        return _pandas(x)
    return _array(np.asarray(x))


def _array(x_NC: NDArray[Any]) -> Frame:
    rows, width = x_NC.shape

    def columns() -> Iterator[Column]:
        lying = x_NC.dtype.itemsize == 1 and (rows < 2 or x_NC.strides[0] == 1)
        for first in range(0, width, BLOCK):
            block_NB = x_NC[:, first : first + BLOCK]
            block_BN = block_NB.T if lying else np.ascontiguousarray(block_NB.T)
            for place, values_N in enumerate(block_BN):
                yield Column(str(first + place), (Part(values_N),))

    return Frame(np.array([rows], dtype=np.int64), (), (), width, columns, x_NC, x_NC)


def _pandas(x: Any) -> Frame:
    names = _distinct([str(name) for name in x.columns])

    def columns() -> Iterator[Column]:
        for place, name in enumerate(names):
            yield Column(repr(name), (_of_series(x.iloc[:, place], name),))

    types = tuple(_type_of(x.dtypes.iloc[place]) for place in range(len(names)))
    return Frame(np.array([len(x)], dtype=np.int64), names, types, len(names), columns, x, x)


def _type_of(dtype: object) -> str:
    kind = getattr(dtype, "kind", "O")
    return "int" if kind == "O" else _XGBOOST_TYPES.get(kind, "float")


def _of_series(series: Any, name: str) -> Part:
    """A pandas column; categories become their numbers, or their places where they are not numbers."""
    dtype = series.dtype
    if hasattr(dtype, "categories"):
        code_N, categories = series.cat.codes.to_numpy(), np.asarray(dtype.categories)
        null_N = code_N < 0
        null = null_N if null_N.any() else None
        if categories.dtype.kind in "iufb" and len(categories):
            return Part(categories[np.maximum(code_N, 0)], null)
        return Part(code_N, null)
    if isinstance(dtype, np.dtype):
        return Part(_numbers(series.to_numpy(), name, dtype))
    if hasattr(series.array, "_mask"):  # nullable numbers
        null_N = series.array._mask
        return Part(_numbers(series.array._data, name, dtype), null_N if null_N.any() else None)
    if hasattr(series.array, "__arrow_array__") and getattr(dtype, "kind", "O") in "iufb":
        return _of_arrow(pa.chunked_array([series.array.__arrow_array__()]).combine_chunks(), name)
    raise _no_numbers(name, dtype)


def _numbers(values_N: NDArray[Any], name: str, dtype: object) -> NDArray[Any]:
    if values_N.dtype.kind not in "iufb":
        raise _no_numbers(name, dtype)
    return values_N


def _no_numbers(name: str, dtype: object) -> DataError:
    return DataError(f"column {name!r} has dtype {dtype}; features are numbers, truth values or categories")


def _arrow(table: pa.Table) -> Frame:
    names = _distinct(list(table.column_names))
    cuts = [[len(chunk) for chunk in column.chunks] for column in table.columns]
    if any(cut != cuts[0] for cut in cuts):
        table = table.combine_chunks()
        cuts = [[len(chunk) for chunk in column.chunks] for column in table.columns]
    segments = [place for place, rows in enumerate(cuts[0]) if rows] if cuts else []

    def columns() -> Iterator[Column]:
        for name, column in zip(names, table.columns, strict=True):
            yield Column(repr(name), tuple(_of_arrow(column.chunk(place), name) for place in segments))

    types = tuple(_arrow_type(field.type) for field in table.schema)
    row_S = np.array([cuts[0][place] for place in segments], dtype=np.int64)
    return Frame(row_S, names, types, len(names), columns, table, table)


def _arrow_type(kind: pa.DataType) -> str:
    return "i" if pa.types.is_boolean(kind) else "float" if pa.types.is_floating(kind) else "int"


def _of_arrow(values: pa.Array, name: str) -> Part:
    null = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    kind = values.type
    if pa.types.is_dictionary(kind):
        # dictionaries of numbers stand for these, others for the places of their entries
        numbers = pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)
        values = values.dictionary_decode() if numbers else values.indices
        kind = values.type
    if pa.types.is_null(kind):
        return Part(np.zeros(len(values), dtype=np.int8), null)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise _no_numbers(name, kind)
    return Part((values.fill_null(0) if null is not None else values).to_numpy(zero_copy_only=False), null)


def _polars(x: object) -> pa.Table:
    import polars as pl

    if isinstance(x, pl.LazyFrame):
        x = x.collect()
    if not isinstance(x, pl.DataFrame):
        raise DataError(f"expected a polars DataFrame, given {type(x).__name__}")
    coded = [pl.col(name).to_physical() for name, kind in x.schema.items() if kind in (pl.Categorical, pl.Enum)]
    found: pa.Table = (x.with_columns(coded) if coded else x).to_arrow()
    return found


def _joined(paths: Sequence[Path], apart: Sequence[str], wanted: Sequence[str]) -> pa.Table:
    first = _file(paths[0], apart, wanted)
    tables = [first, *(read_table(path, first.column_names) for path in paths[1:])]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"{', '.join(map(str, paths))} have columns of the same name and of types that do not fit together: {error}"
        ) from None


def _file(path: Path, apart: Sequence[str], wanted: Sequence[str]) -> pa.Table:
    if wanted:
        return read_table(path, list(wanted))
    names = [name for name in open_parquet(path).schema_arrow.names if name not in apart]
    features = [name for name in names if name.startswith(FEATURE)] or [name for name in names if name not in APART]
    if not features:
        raise DataError(f"{path} has no features; its columns are {', '.join(names)}")
    return read_table(path, features)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    seen = set[str]()
    for name in names:
        if name in seen:
            raise DataError(f"two columns have the name {name!r}; the names of features differ")
        seen.add(name)
    return tuple(names)


def blocks(frame: Frame, size: int = 65_536) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Rows as XGBoost sees them, float32 [n, C] with NaN where missing, some at a time."""
    columns, start = list(frame.columns()), 0
    for segment, rows in enumerate(frame.row_S.tolist()):
        for first in range(0, rows, size):
            last = min(first + size, rows)
            x_NC = np.empty((last - first, frame.width), dtype=np.float32)
            for place, column in enumerate(columns):
                part = column.parts[segment]
                null = None if part.null is None else part.null[first:last]
                x_NC[:, place] = Part(part.values[first:last], null).floats()
            yield slice(start + first, start + last), x_NC
        start += rows
