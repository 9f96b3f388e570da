"""Transfers values from a parquet file into the matrices of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.core.errors import ChangedDataError
from eravane.core.events import ByFile
from eravane.data.store.cast import LEVELS, as_floats, as_levels
from eravane.data.store.matrixfile import MatrixDraft
from eravane.data.store.placement import Piece, Placement, Rows
from eravane.data.store.source import Block, Order, RowGroup, Source
from eravane_kernels.cpu.gather import place

_CASTS: Mapping[str, Callable[..., NDArray[Any]]] = {"int8": as_levels, "float32": as_floats}


def transfer(
    source: Source,
    placement: Placement,
    columns: Sequence[str],
    dtype: str,
    *,
    drafts: dict[int, MatrixDraft],
    stored: Mapping[int, NDArray[Any]],
    filled: Callable[[int, bool], None],
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
        filled: called with a segment once its draft holds all its rows, and whether all levels are known to be 0..4.
        progress: called after every block.

    Raises:
        DataError: a value is not what `dtype` allows, or differs from the stored one.
    """
    cast, wanted = _CASTS[dtype], drafts.keys() | stored.keys()
    pieces = {group: [piece for piece in placement.pieces(group) if piece.segment in wanted] for group in source.groups}
    groups = [group for group in source.groups if pieces[group]]
    missing = {segment: draft.rows for segment, draft in drafts.items()}
    unchecked = set[int]()
    total, done = len(columns) * sum(group.rows for group in groups), 0
    order = None if source.decode is None else Order(dtype, {group: _places(pieces[group], group) for group in groups})
    for block in source.blocks(columns, groups, order):
        within = _placed(block, pieces[block.group], drafts) if dtype == "int8" else None
        for at in range(block.width) if within is None else ():
            column, begun = block.first + at, 0
            if block.decoded is None:
                values_N = cast(source, columns[column], block.columns[at], block.group.first)
            else:
                values_N = block.decoded.values_CR[at]
            for segment, rows, places, number in pieces[block.group]:
                part = values_N[rows] if block.decoded is None else values_N[begun : begun + number]
                begun += number
                if segment in drafts:
                    drafts[segment].values[column, places] = part
                else:
                    _compare(source, columns[column], part, stored[segment][column, places], rows, block.group.first)
        if not (within or (block.decoded is not None and block.decoded.within)):
            unchecked.update(piece.segment for piece in pieces[block.group])
        done += block.group.rows * block.width
        progress(source.name, done, total)
        if block.first + block.width == len(columns):
            for segment, _, _, number in pieces[block.group]:
                if segment in drafts:
                    missing[segment] -= number
                    if missing[segment] == 0:
                        filled(segment, segment not in unchecked)
                        del drafts[segment]


def _placed(block: Block, pieces: Sequence[Piece], drafts: Mapping[int, MatrixDraft]) -> bool | None:
    """Copy all columns of a block in one call, where rows that follow each other go to such places.

    Returns:
        Whether all values lie within 0..4; None where nothing was copied: columns are of another type than int8 or have
        nulls, are to be compared, or rows are in another order.
    """
    runs = [(piece.segment, piece.rows, piece.places) for piece in pieces if isinstance(piece.rows, slice)]
    ordered = len(runs) == len(pieces) and all(isinstance(places, slice) for _, _, places in runs)
    plain = all(pa.types.is_int8(column.type) and not column.null_count for column in block.columns)
    if block.decoded is not None or not (ordered and plain) or not drafts.keys() >= {piece.segment for piece in pieces}:
        return None
    address_C = np.array([column.buffers()[1].address + column.offset for column in block.columns], dtype=np.int64)
    within, columns = True, slice(block.first, block.first + block.width)
    for segment, rows, places in runs:
        within &= place(address_C + rows.start, drafts[segment].values[columns, places], LEVELS)
    return within


def _places(pieces: Sequence[Piece], group: RowGroup) -> NDArray[np.int32]:
    """The place of every row of a group where the pieces lie one after the other, -1 for rows of none."""
    place_N, begun = np.full(group.rows, -1, dtype=np.int32), 0
    for piece in pieces:
        place_N[piece.rows] = np.arange(begun, begun + piece.number)
        begun += piece.number
    return place_N


def silent(_name: str, _done: int, _total: int) -> None:
    """Progress without a display."""


def _compare(
    source: Source, name: str, given_N: NDArray[Any], stored_N: NDArray[Any], rows: Rows, first_row: int
) -> None:
    kind = f"u{given_N.itemsize}"
    differs = given_N.view(kind) != np.ascontiguousarray(stored_N).view(kind)
    if differs.any():
        row_N = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        inside = int(row_N[differs].min())  # the first in the file
        at = int(np.flatnonzero(row_N == inside)[0])
        source.refuse(
            name,
            first_row + inside,
            f"the value is {given_N[at]}, the store has {stored_N[at]}; an old era was changed",
            ChangedDataError,
        )
