"""Parquet decoded on an NVIDIA GPU by cuDF's chunked reader (libcudf), one row group of some columns at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cupy as cp
import numpy as np
import pyarrow as pa

from eravane.core.errors import DeviceError

CHUNK_BYTES = 1 << 30


def decoder() -> Callable[[Path, int, Sequence[str]], pa.Table]:
    """A function that decodes columns of a row group: path, number of the group, names.

    Raises:
        DeviceError: libcudf's bindings are missing.
    """
    if importlib.util.find_spec("pylibcudf") is None:
        raise DeviceError(
            "parquet is decoded on a GPU by pylibcudf, which is not installed; install eravane with the extra cu12 or "
            "cu13, or ingest with --device cpu"
        )
    return decode


def decode(path: Path, group: int, names: Sequence[str]) -> pa.Table:
    """Columns of a row group as an Arrow table.

    The reader hands over tables of bounded size; a chunk of int8 without nulls comes to the host as one matrix.
    """
    import pylibcudf as plc

    options = plc.io.parquet.ParquetReaderOptions.builder(plc.io.SourceInfo([str(path)])).build()
    options.set_column_names(list(names))
    options.set_row_groups([[group]])
    reader = plc.io.parquet.ChunkedParquetReader(options, chunk_read_limit=CHUNK_BYTES, pass_read_limit=CHUNK_BYTES)
    tables = []
    while reader.has_next():
        chunk = reader.read_chunk()
        held = dict(zip(chunk.column_names(include_children=False), chunk.tbl.columns(), strict=True))
        tables.append(_on_host([held[name] for name in names], names))
    return pa.concat_tables(tables)


def _on_host(columns: Sequence[Any], names: Sequence[str]) -> pa.Table:
    if all(column.type().id().name == "INT8" and not column.null_count() for column in columns):
        matrix = cp.asnumpy(cp.stack([_values(column) for column in columns]))
        return pa.table([pa.array(values) for values in matrix], names=list(names))
    return pa.table([column.to_arrow() for column in columns], names=list(names))


def _values(column: Any) -> Any:
    """The values of an int8 column as a CuPy array over the same memory."""
    raw = cp.asarray(column.data()).view(np.int8)
    return raw[column.offset() : column.offset() + column.size()]
