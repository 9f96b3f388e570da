"""Shape shared by all files of a dataset and all matrices of its store: columns, dtype, targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eravane.core.errors import DataError, StoreError
from eravane.data.catalog import listed_features
from eravane.data.store.cast import stored_dtype
from eravane.data.store.source import Source


@dataclass(frozen=True)
class Shape:
    """Columns, dtype ("int8" or "float32") and targets of a store."""

    columns: tuple[str, ...]
    dtype: str
    targets: tuple[str, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of features."""
        return len(self.columns) * np.dtype(self.dtype).itemsize


def new_shape(source: Source, catalog: Path, columns: Sequence[str] | None) -> Shape:
    """The shape of a store to be made from a file.

    Args:
        source: the first file.
        catalog: the dataset's `features.json`, read where no columns are asked for.
        columns: features to keep, in this order (None: all that the catalogue names, in file order).

    Raises:
        DataError: the file lacks a feature, has one that the catalogue does not name, or has no target.
    """
    names = _all_features(source, catalog) if columns is None else tuple(columns)
    _require(source, names, "feature")
    shape = Shape(names, stored_dtype(source, names), source.targets)
    if not names or not shape.targets:
        raise DataError(f"{source.path} has {len(names)} feature and {len(shape.targets)} target columns")
    return shape


def check_shape(shape: Shape, history: Sequence[Source], live: Source | None) -> None:
    """Check that every file has the columns of a store; live rows need no targets.

    Raises:
        DataError: a file lacks a column.
    """
    for source in history:
        _require(source, shape.columns, "feature")
        _require(source, shape.targets, "target")
    if live is not None:
        _require(live, shape.columns, "feature")


def check_columns(shape: Shape, columns: Sequence[str] | None) -> None:
    """Check that a store has the requested columns.

    Raises:
        StoreError: it has others.
    """
    if columns is not None and tuple(columns) != shape.columns:
        raise StoreError(
            f"the store holds {len(shape.columns)} columns from {shape.columns[0]!r} on, the {len(columns)} that are "
            "asked for are not the same; ingest into a new store"
        )


def _all_features(source: Source, catalog: Path) -> tuple[str, ...]:
    listed = listed_features(catalog)
    if not listed:
        raise DataError(f"{catalog} lists no feature; `eravane fetch` gets the dataset's own")
    known = set(listed)
    extra = [name for name in source.features if name not in known]
    if extra:
        raise DataError(
            f"{source.path}: {len(extra)} feature columns are not in {catalog.name}, the first is {extra[0]!r}; "
            "the files are of different versions of the dataset"
        )
    _require(source, listed, f"{catalog.name} feature")
    return tuple(name for name in source.types if name in known)


def _require(source: Source, names: Sequence[str], kind: str) -> None:
    missing = [name for name in names if name not in source.types]
    if missing:
        raise DataError(
            f"{source.path} lacks {len(missing)} {kind} columns, the first is {missing[0]!r}; "
            "the files are of different versions of the dataset"
        )
