"""Parquet files of users: row ids, eras and values read by the same rules from files of any writer.

Every refusal names the file, the column, the first row that is wrong and what to do about it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eravane.calendar.eras import era_number
from eravane.core.errors import DataError

ID, ERA, DATA_TYPE = "id", "era", "data_type"
# What pandas calls an index without a name.
UNNAMED_INDEX = "__index_level_0__"
MAGIC = b"PAR1"
LARGEST = float(np.finfo(np.float32).max)
Floats = NDArray[np.float32] | NDArray[np.float64]
OTHER_KINDS = {
    b"\x1f\x8b": "compressed with gzip; unpack it",
    b"PK": "a ZIP archive; unpack it",
    b"<": "a web page; download the file again",
    b"ARROW1": "an Arrow (Feather) file; write it as parquet",
    b"PARE": "an encrypted parquet file; write it without encryption",
}


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file for reading.

    Raises:
        DataError: there is none, it is a folder of parts, is cut short, or no parquet file.
    """
    if path.is_dir():
        raise DataError(
            f"{path} is a folder of part files, as Spark writes them; join them into one file: "
            f'pandas.read_parquet("{path}").to_parquet("{path.stem}-joined.parquet")'
        )
    require_file(path)
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing; name a file that is there (`eravane fetch` gets those of the dataset)"
        ) from None
    except PermissionError:
        raise DataError(f"{path} cannot be read; correct its permissions") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} {_what_it_is(path, error)}") from None


def require_file(path: Path) -> None:
    """Refuse a pipe, socket or terminal in place of a file: opening it may wait for ever.

    Raises:
        DataError: it is one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path} is a pipe or a device; write its content to a file")


def _what_it_is(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        head = b""
    if not head:
        return "is empty; fetch it again"
    for start, kind in OTHER_KINDS.items():
        if head.startswith(start):
            return f"is no parquet file but {kind}"
    if head.startswith(MAGIC):
        return f"is truncated or no parquet file ({first_line(error)}); fetch it again"
    return "is truncated or no parquet file; fetch it again, or write it as parquet"


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a file by id.

    Attributes:
        ids: row ids, each once.
        values: column -> float32 [N] where the file has that precision, else float64 [N]; NaN where it has none.
    """

    ids: pa.Array
    values: dict[str, Floats] = field(repr=False)

    def aligned(self, column: str, ids: pa.Array) -> Floats:
        """A column in the order of other ids, [M], NaN where the file lacks the row."""
        places = pc.index_in(ids.cast(pa.large_string()), value_set=self.ids).to_numpy(zero_copy_only=False)
        known = ~np.isnan(places)
        values = self.values[column]
        found: Floats = np.full(len(places), np.nan, dtype=values.dtype)
        found[known] = values[places[known].astype(np.int64)]
        return found


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a file, in the requested order (None: all).

    Raises:
        DataError: as `open_parquet`; a column is lacking or occurs twice, or a page is damaged.
    """
    file = open_parquet(path)
    return _read(path, file, list(file.schema_arrow.names if columns is None else columns))


def _read(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> pa.Table:
    names = file.schema_arrow.names
    lacking = [name for name in columns if name not in names]
    if lacking:
        raise DataError(f"{path} has no column {lacking[0]!r}; it has {_some(names)}")
    repeated = [name for name in columns if names.count(name) > 1]
    if repeated:
        raise DataError(f"{path}: column {repeated[0]!r} occurs twice; write it once")
    try:
        return file.read(columns=list(columns)).select(columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}); fetch it again") from None


def value_columns(path: Path) -> tuple[str, ...]:
    """Names of the columns of a file that are no row facts.

    Raises:
        DataError: as `open_parquet`.
    """
    schema = open_parquet(path).schema_arrow
    facts = {ID, ERA, DATA_TYPE, UNNAMED_INDEX, _id_column(schema)}
    return tuple(name for name in schema.names if name not in facts)


def read_rows(path: Path, columns: Sequence[str], *, eras: Collection[int] | None = None) -> Rows:
    """Read columns of a file by row id.

    Args:
        path: the file; ids lie in a column `id` or in the index that pandas wrote.
        columns: names of numeric columns that it has.
        eras: era numbers to keep (None: all rows).

    Raises:
        DataError: as `open_parquet`; the ids are lost, missing or occur twice; a column is lacking, is no number or
            infinite; with `eras`, an era is missing or no number.
    """
    file = open_parquet(path)
    schema = file.schema_arrow
    key = id_column(path, schema)
    table = _read(path, file, list(dict.fromkeys([*([ERA] if eras is not None else []), *columns, key])))
    kept = None if eras is None else np.flatnonzero(np.isin(eras_of(path, table.column(ERA)), list(eras)))
    ids = ids_of(path, table.column(key), key).combine_chunks()
    values = {name: numbers_of(path, table.column(name), name) for name in columns}
    if kept is not None:
        ids, values = ids.take(pa.array(kept)), {name: found[kept] for name, found in values.items()}
    _check_once(path, ids)
    return Rows(ids, values)


def id_column(path: Path, schema: pa.Schema) -> str:
    """Name of the column that holds the row ids: `id`, or the index that pandas wrote.

    Raises:
        DataError: there is none.
    """
    found = _id_column(schema)
    if found is None:
        raise DataError(f"{path} {_why_no_ids(schema)}")
    return found


def _id_column(schema: pa.Schema) -> str | None:
    if ID in schema.names:
        return ID
    named = [name for name in _index_names(schema) if isinstance(name, str) and name in schema.names]
    candidates = [UNNAMED_INDEX, *named]
    return next((name for name in candidates if name in schema.names and _is_text(schema.field(name).type)), None)


def _index_names(schema: pa.Schema) -> list[object]:
    try:
        found = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return []
    return list(found) if isinstance(found, list) else []


def _why_no_ids(schema: pa.Schema) -> str:
    if any(isinstance(name, dict) for name in _index_names(schema)):
        return (
            "has no column 'id': pandas kept only a numbered index; write it with the ids as a column (reset_index())"
        )
    return f"has no column 'id'; it has {_some(schema.names)}: rows need the ids of the dataset"


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    views = [check for name in ("is_string_view", "is_binary_view") if (check := getattr(pa.types, name, None))]
    return any(check(kind) for check in (*texts, pa.types.is_fixed_size_binary, *views))


def text_column(path: Path, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of text of any type as large strings; whole numbers become their decimals.

    Raises:
        DataError: it is no text, or binary that is not UTF-8.
    """
    kind = column.type
    try:
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_floating(kind):
            column = column.cast(pa.int64())  # fails for fractions
        elif not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise pa.ArrowInvalid("no text")
        if pa.types.is_fixed_size_binary(kind):
            column = column.cast(pa.binary())
        text = column.cast(pa.large_string())
        text.validate(full=True)  # a damaged page may hold bytes that are no UTF-8
        return text
    except (pa.ArrowException, UnicodeDecodeError):
        found = "holds bytes that are no UTF-8" if _is_text(kind) else f"is {kind}, given where text is needed"
        raise DataError(f"{path}: column {name!r} {found}; write it as text") from None


def ids_of(path: Path, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Row ids as large strings.

    Raises:
        DataError: they are no text, or one is null, empty or holds a control character, which no CSV carries.
    """
    kind = column.type
    if not _is_text(kind):
        raise DataError(f"{path}: column {name!r} is {kind}; ids are text such as 'n0007b5abb0c3a25'")
    ids = text_column(path, column, name)
    blank = pc.fill_null(pc.equal(pc.binary_length(ids), 0), True)
    if pc.any(blank).as_py():
        raise DataError(f"{path}: column {name!r}, row {pc.index(blank, True).as_py()}: there is no id")
    if any(map(_holds_control, ids.chunks)):
        row = pc.index(pc.match_substring_regex(ids, r"[\x00-\x1f\x7f]"), True).as_py()
        raise DataError(
            f"{path}: column {name!r}, row {row}: id {ids[row].as_py()!r} holds a control character; "
            "ids are text such as 'n0007b5abb0c3a25'"
        )
    return ids


def _holds_control(text: pa.LargeStringArray) -> bool:
    """Whether a control character is in an array of text; no byte of another character in UTF-8 looks like one."""
    _, offset_buffer, data = text.buffers()
    if data is None:
        return False
    bounds = np.frombuffer(offset_buffer, dtype=np.int64)[text.offset : text.offset + len(text) + 1]
    byte_N = np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]]
    return bool(((byte_N < ord(" ")) | (byte_N == 127)).any())


def _check_once(path: Path, ids: pa.Array) -> None:
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    coded = ids.dictionary_encode()
    first: dict[int, int] = {}
    for row, code in enumerate(coded.indices.to_pylist()):
        if first.setdefault(code, row) != row:
            raise DataError(
                f"{path}: id {ids[row].as_py()!r} occurs twice, in rows {first[code]} and {row}; keep one of them"
            )


def codes_of(path: Path, column: pa.ChunkedArray, name: str) -> tuple[list[str], NDArray[np.int32]]:
    """The distinct strings of a column, and which of them each row has, int32 [N].

    Raises:
        DataError: it is no text, or null in a row.
    """
    coded = text_column(path, column, name).combine_chunks().dictionary_encode()
    if coded.null_count:
        raise DataError(f"{path}: column {name!r} is empty in row {pc.index(coded.is_null(), True).as_py()}")
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()


def eras_of(path: Path, column: pa.ChunkedArray) -> NDArray[np.int32]:
    """The era number of every row, int32 [N].

    Raises:
        DataError: an era is null, or no number.
    """
    labels, code_N = codes_of(path, column, ERA)
    try:
        numbers = [era_number(label) for label in labels]
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return np.array(numbers, dtype=np.int32)[code_N]


def numbers_of(path: Path, column: pa.ChunkedArray, name: str) -> Floats:
    """A column as float32 where the file has that precision, else float64 [N]; NaN where it has no value.

    Raises:
        DataError: it holds no numbers, or one that is infinite, as float32, too.
    """
    kind = column.type
    numeric = (
        *(pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal),
        *(pa.types.is_boolean, pa.types.is_null),
    )
    try:
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if not any(check(kind) for check in numeric):
            shown = next((entry for entry in column.to_pylist() if entry is not None), None)
            raise DataError(f"{path}: column {name!r} is {kind}, first value {shown!r}; it must be numbers")
        # Half floats are cast by NumPy: Arrow of 18 cannot.
        plain = column.to_numpy() if pa.types.is_float16(kind) else column.cast(pa.float64()).to_numpy()
    except (pa.ArrowException, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: column {name!r} ({kind}) cannot be read as numbers ({first_line(error)})") from None
    values: Floats = plain.astype(np.float32 if pa.types.is_float32(kind) else np.float64)
    infinite = np.abs(values) > LARGEST
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(f"{path}: column {name!r}, row {row} is {values[row]}; leave it empty where there is no value")
    return values


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def column_of(
    paths: Iterable[Path], column: str, ids: pa.Array, *, eras: Collection[int] | None = None
) -> Floats | None:
    """A column of the files that have it, in the order of ids and a file's own precision; None where no file has it.

    Args:
        paths: files, which need not exist; where two have a row, the first counts.
        column: its name.
        ids: row ids, N strings; NaN where no file has the row.
        eras: only these (None: all).

    Raises:
        DataError: a file is damaged.
    """
    found: Floats | None = None
    for path in paths:
        if path.exists() and column in value_columns(path):
            values = read_rows(path, [column], eras=eras).aligned(column, ids)
            found = values if found is None else np.where(np.isnan(found), values, found)
    return found


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
