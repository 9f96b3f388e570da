"""Files by chance: every type, order, encoding and writer that parquet allows, and damage of every kind."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

HAS_DUCKDB = importlib.util.find_spec("duckdb") is not None
INTEGERS = (pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.uint32(), pa.int64())
TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()))
ERA_TYPES = (*TEXTS, pa.int16(), pa.int64(), pa.float32(), pa.dictionary(pa.int8(), pa.string()))
COMPRESSIONS = ("NONE", "SNAPPY", "GZIP", "BROTLI", "LZ4", "ZSTD")


def dataset(rng: np.random.Generator, first: int, eras: int) -> pa.Table:
    """Rows of eras from `first` on, eight in each, in types drawn by chance."""
    rows = 8 * eras
    era = [f"{first + row // 8:04d}" for row in range(rows)]
    kind = ERA_TYPES[rng.integers(len(ERA_TYPES))]
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    text = TEXTS[rng.integers(len(TEXTS))]
    level = INTEGERS[rng.integers(len(INTEGERS))]
    columns: dict[str, pa.Array] = {
        "id": pa.array([f"n{first:04x}{row:08x}" for row in range(rows)]).cast(text),
        "era": pa.array([int(entry) for entry in era], kind) if number else pa.array(era).cast(kind),
    }
    for name in ("feature_a", "feature_b", "feature_c"):
        columns[name] = pa.array(rng.integers(0, 5, rows), level)
    target = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0], rows).astype(np.float32)
    target[-8:] = np.nan
    columns["target_x_20"] = pa.array(target, from_pandas=bool(rng.integers(2)))
    names = list(columns)
    rng.shuffle(names)
    return pa.table({name: columns[name] for name in names})


def damaged(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """A table with something wrong, or at least odd, in one of its columns."""
    name = str(rng.choice(table.column_names))
    row, rows = int(rng.integers(table.num_rows)), table.num_rows
    values = table.column(name).to_pylist()
    odd: list[Callable[[], pa.Table]] = [
        lambda: table.drop_columns([name]),
        lambda: table.append_column(name, table.column(name)),
        lambda: table.set_column(table.column_names.index(name), name, pa.nulls(rows)),
        lambda: table.set_column(
            table.column_names.index(name), name, pa.array([*values[:row], None, *values[row + 1 :]])
        ),
        lambda: table.set_column(
            table.column_names.index(name), name, pa.array([*values[:row], values[row - 1], *values[row + 1 :]])
        ),
        lambda: table.set_column(table.column_names.index(name), name, pa.array([[1]] * rows)),
        lambda: table.set_column(table.column_names.index(name), name, pa.array([True] * rows)),
        lambda: table.set_column(table.column_names.index(name), name, pa.array(["x"] * rows)),
        lambda: table.set_column(table.column_names.index(name), name, pa.array([7.5] * rows)),
        lambda: table.set_column(table.column_names.index(name), name, pa.array([-1] * rows)),
        lambda: table.set_column(
            table.column_names.index(name), name, pa.array([pd.Timestamp("2026-01-01", tz="UTC")] * rows)
        ),
        lambda: table.take(pa.array(rng.permutation(rows))),
        lambda: table.slice(0, 0),
        lambda: table.slice(0, 1),
    ]
    return odd[int(rng.integers(len(odd)))]()


def written(table: pa.Table, path: Path, rng: np.random.Generator) -> None:
    """Write a table by a writer drawn by chance, with options drawn by chance."""
    writer = int(rng.integers(4 if HAS_DUCKDB else 3))
    try:
        if writer == 1:
            frame = table.to_pandas()
            indexed = frame.set_index("id") if "id" in frame and rng.integers(3) == 0 else frame
            indexed.to_parquet(path)
            return
        if writer == 2:
            pl.from_arrow(table).write_parquet(path)  # type: ignore[union-attr]
            return
        if writer == 3:
            import duckdb

            duckdb.sql(f"COPY (SELECT * FROM \"table\") TO '{path}' (FORMAT parquet)")
            return
    except Exception:  # the writer refuses such a table
        path.unlink(missing_ok=True)
    pq.write_table(
        table,
        path,
        compression=str(rng.choice(COMPRESSIONS)),
        row_group_size=int(rng.integers(1, 40)),
        use_dictionary=bool(rng.integers(2)),
        data_page_version=str(rng.choice(["1.0", "2.0"])),
    )


def spoiled(path: Path, rng: np.random.Generator) -> None:
    """Change a byte of a file, and cut the file off somewhere in half of the cases."""
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= 0xFF
    path.write_bytes(bytes(content[: int(rng.integers(1, len(content) + 1))]) if rng.integers(2) else bytes(content))
