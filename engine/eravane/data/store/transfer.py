"""Transfers values from a parquet file into the matrices of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.errors import ChangedDataError
from eravane.core.events import ByFile
from eravane.data.store.cast import as_floats, as_levels
from eravane.data.store.placement import Placement, Rows
from eravane.data.store.source import Source

_CASTS: Mapping[str, Callable[..., NDArray[Any]]] = {"int8": as_levels, "float32": as_floats}


def transfer(
    source: Source,
    placement: Placement,
    columns: Sequence[str],
    dtype: str,
    *,
    drafts: dict[int, NDArray[Any]],
    stored: Mapping[int, NDArray[Any]],
    filled: Callable[[int], None],
    progress: ByFile,
) -> None:
    """Read columns of a file once; every piece goes into a draft or is compared with the stored values.

    Args:
        source: the file.
        placement: where its rows go.
        columns: C names, in the order of the matrices.
        dtype: "int8" or "float32".
        drafts: segment -> matrix [C, N] to fill; a filled one is removed, so that its memory is freed.
        stored: segment -> matrix [C, N] that the file must agree with, bit by bit.
        filled: called with a segment once its draft holds all its rows.
        progress: called after every block.

    Raises:
        DataError: a value is not what `dtype` allows, or differs from the stored one.
    """
    cast, wanted = _CASTS[dtype], drafts.keys() | stored.keys()
    pieces = {group: [piece for piece in placement.pieces(group) if piece[0] in wanted] for group in source.groups}
    groups = [group for group in source.groups if pieces[group]]
    missing = {segment: matrix.shape[1] for segment, matrix in drafts.items()}
    total, done = len(columns) * sum(group.rows for group in groups), 0
    for block in source.blocks(columns, groups):
        for at, array in enumerate(block.columns):
            column = block.first + at
            values = cast(source, columns[column], array, block.group.first)
            for segment, rows, places in pieces[block.group]:
                if segment in drafts:
                    drafts[segment][column, places] = values[rows]
                else:
                    _compare(
                        source, columns[column], values[rows], stored[segment][column, places], rows, block.group.first
                    )
        done += block.group.rows * len(block.columns)
        progress(source.name, done, total)
        if block.first + len(block.columns) == len(columns):
            for segment, _, places in pieces[block.group]:
                if segment in drafts:
                    missing[segment] -= _count(places)
                    if missing[segment] == 0:
                        filled(segment)
                        del drafts[segment]


def silent(_name: str, _done: int, _total: int) -> None:
    """Progress without a display."""


def _compare(
    source: Source, name: str, given_N: NDArray[Any], stored_N: NDArray[Any], rows: Rows, first_row: int
) -> None:
    kind = f"u{given_N.itemsize}"
    differs = given_N.view(kind) != np.ascontiguousarray(stored_N).view(kind)
    if differs.any():
        at = int(differs.argmax())
        inside = rows.start + at if isinstance(rows, slice) else int(rows[at])
        source.refuse(
            name,
            first_row + inside,
            f"the value is {given_N[at]}, the store has {stored_N[at]}; an old era was changed",
            ChangedDataError,
        )


def _count(rows: Rows) -> int:
    return rows.stop - rows.start if isinstance(rows, slice) else int(rows.size)
