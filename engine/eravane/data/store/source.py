"""One parquet file of the dataset, read in bounded memory: eras and ids first, then features block by block."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eravane.backend.protocol import Decode, Decoded
from eravane.calendar.eras import LIVE_ERAS
from eravane.core.errors import DataError, DeviceError
from eravane.data.parquet import ERA, codes_of, eras_of, first_line, id_column, ids_of, open_parquet, text_column

T = TypeVar("T")
J = TypeVar("J")
# Decoded bytes per block of columns: what one read of a row group may hold in memory; two blocks are held at a time.
# Larger blocks are slower: the allocator returns their memory and takes new pages each time. A read on a device parses
# the footer anew.
BLOCK_BYTES, DEVICE_BLOCK_BYTES = 8 << 20, 512 << 20
_BATCH_ROWS = 1 << 17


@dataclass(frozen=True)
class RowGroup:
    """One row group of a file: its number, its first row in the file, its row count."""

    number: int
    first: int
    rows: int


@dataclass(frozen=True, eq=False)
class Block:
    """Decoded columns of one row group: `columns[i]` is column `first + i` of those asked for.

    A device that decodes, checks and sorts gives one matrix in their place.
    """

    group: RowGroup
    first: int
    width: int
    columns: Sequence[pa.Array] = ()
    decoded: Decoded | None = None


@dataclass(frozen=True, eq=False)
class Order:
    """Type and order in which a device returns columns: "int8" or "float32", each row of a group in its place.

    Attributes:
        row_GN: by row group, int32 [N], -1 for rows that are not taken.
    """

    dtype: str
    row_GN: Mapping[RowGroup, NDArray[np.int32]]


class Source:
    """A parquet file with id, era and feature columns.

    Args:
        path: the file.
        decode: decodes columns on a device (None: Arrow, on the CPU).

    Attributes:
        decode: the same.

    Raises:
        DataError: the file is missing, truncated, no parquet, or lacks `id` or `era`.
    """

    def __init__(self, path: Path, decode: Decode | None = None) -> None:
        self.path, self.decode = path, decode
        self._file = open_parquet(path)
        # One reader at a time: messages look rows up while the next block is being decoded.
        self._reading = threading.Lock()
        schema = self._file.schema_arrow
        repeated = next((name for name, many in Counter(schema.names).items() if many > 1), None)
        if repeated is not None:
            raise DataError(f"{path}: column {repeated!r} occurs twice; write it once")
        self.types = dict(zip(schema.names, schema.types, strict=True))
        if ERA not in self.types:
            raise DataError(f"{path} has no column {ERA!r}; it has {', '.join(schema.names[:4])}, ...")
        self._key = id_column(path, schema)
        metadata = self._file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        starts = np.cumsum([0, *sizes]).tolist()
        self.groups = [RowGroup(number, starts[number], size) for number, size in enumerate(sizes)]
        self.rows = int(starts[-1])
        if self.rows == 0:
            raise DataError(f"{path} has no rows")

    @property
    def name(self) -> str:
        """File name, for messages."""
        return self.path.name

    @property
    def features(self) -> tuple[str, ...]:
        """Columns whose name begins with `feature`, in file order."""
        return tuple(name for name in self.types if name.startswith("feature"))

    @property
    def targets(self) -> tuple[str, ...]:
        """Columns whose name begins with `target`, in file order."""
        return tuple(name for name in self.types if name.startswith("target"))

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """Row ids, strings without nulls.

        Raises:
            DataError: ids are no text, or one is null or empty.
        """
        return ids_of(self.path, self._column(self._key), self._key)

    def eras(self) -> NDArray[np.int32]:
        """The era number of every row, int32 [N].

        Raises:
            DataError: an era is null, or no number.
        """
        return eras_of(self.path, self._column(ERA))

    def data_types(self) -> tuple[list[str], NDArray[np.int32]]:
        """The distinct data types, and which of them each row has, int32 [N].

        A file without the column has one type, its own name.

        Raises:
            DataError: a data type is null.
        """
        if "data_type" not in self.types:
            return [self.path.stem], np.zeros(self.rows, dtype=np.int32)
        return codes_of(self.path, self._column("data_type"), "data_type")

    def require_live(self) -> None:
        """Check that there are rows of the live era alone and that no id occurs twice.

        Raises:
            DataError: there is one row, a row has another era than X, or an id occurs twice.
        """
        if self.rows == 1:
            raise DataError(f"{self.path} has one row, and predictions are ranks among rows; fetch the whole file")
        for label in pc.unique(text_column(self.path, self._column("era"), "era")).to_pylist():
            if label not in LIVE_ERAS:
                raise DataError(f"{self.path}: column 'era' holds {label!r}; live rows have era 'X'")
        seen: dict[str, int] = {}
        for row, text in enumerate(self.ids.to_pylist()):
            if seen.setdefault(text, row) != row:
                self.refuse("id", row, f"the id occurs twice, first in row {seen[text]}")

    def where(self, row: int) -> str:
        """Era and id of a row, for messages."""
        era = self._column("era")[row].as_py()
        return f"era {era}, id {self.ids[row].as_py()!r}"

    def refuse(self, column: str, row: int, problem: str, kind: type[DataError] = DataError) -> NoReturn:
        """Describe the fault of one cell.

        Raises:
            DataError: always, of the kind that is given.
        """
        raise kind(f"{self.path}: column {column!r}, {self.where(row)}: {problem}")

    def blocks(self, columns: Sequence[str], groups: Sequence[RowGroup], order: Order | None = None) -> Iterator[Block]:
        """Decode columns of row groups in blocks of bounded size, one block ahead of the caller.

        Args:
            columns, groups: which.
            order: has `decode` decode them; Arrow decodes what it hands back.

        Raises:
            DataError: a page cannot be decoded.
            DeviceError: the device cannot decode what Arrow can.
        """
        cell = max((_cell_bytes(self.types[name]) for name in columns), default=1)
        most = BLOCK_BYTES if order is None else DEVICE_BLOCK_BYTES
        jobs = [
            (group, first, columns[first : first + width], order)
            for group in groups
            for width in [max(1, min(len(columns), most // (cell * max(group.rows, 1))))]
            for first in range(0, len(columns), width)
        ]
        yield from _ahead(lambda job: self._block(*job), jobs)

    def _block(self, group: RowGroup, first: int, names: Sequence[str], order: Order | None) -> Block:
        if self.decode is not None and order is not None:
            try:
                decoded = self.decode(self.path, group.number, names, order.dtype, order.row_GN[group])
            except DeviceError:
                self._read(group, first, names)  # a damaged file is refused as on the CPU
                raise
            if decoded is not None:
                return Block(group, first, len(names), decoded=decoded)
        return self._read(group, first, names)

    def _read(self, group: RowGroup, first: int, names: Sequence[str]) -> Block:
        try:
            with self._reading:
                table = self._file.read_row_group(group.number, columns=list(names))
        except (pa.ArrowException, OSError) as error:
            if len(names) > 1:
                for name in names:
                    self._read(group, first, [name])
            raise DataError(
                f"{self.path}: row group {group.number}, column {names[0]!r} cannot be read "
                f"({first_line(error)}); fetch the file again"
            ) from None
        return Block(group, first, len(names), [_whole(table.column(name)) for name in names])

    def _column(self, name: str) -> pa.ChunkedArray:
        try:
            with self._reading:
                batches = self._file.iter_batches(batch_size=_BATCH_ROWS, columns=[name])
                return pa.chunked_array([batch.column(name) for batch in batches], type=self.types[name])
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.path}: column {name!r} cannot be read ({first_line(error)}); fetch it again"
            ) from None


def _cell_bytes(kind: pa.DataType) -> int:
    """Bytes of a decoded value; strings, which are refused later, count as eight."""
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 8


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _ahead(work: Callable[[J], T], jobs: Sequence[J]) -> Iterator[T]:
    """Results of the jobs in order, the next one computed while the caller uses the last."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = pool.submit(work, jobs[0]) if jobs else None
        for following in [*jobs[1:], None]:
            if pending is None:
                return
            result = pending.result()
            pending = None if following is None else pool.submit(work, following)
            yield result
