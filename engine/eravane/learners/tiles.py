"""Passes XGBoost a wide table of levels a tile of rows at a time, in the form that its CPU code reads fastest.

XGBoost reads every cell three times while it bins a table, each time by a call that looks up the column's type and
address. Nanoseconds a cell in all, one thread of an Intel Xeon, 60,000 to 100,000 rows, medians of 5:

                                                         400 columns   780 columns
    Arrow, columns one after the other                        42            46 to 54
    NumPy in C order, int8                                    55            51 to 55
    NumPy in C order, float32                                 52            47 to 52
    a data frame on float32 in C order                        33            31
    the same frame refilled for every tile                    41            38 to 42

A NumPy array is slow because 16 bytes are loaded before each cell that were stored as two words, which the processor
cannot forward: a third of the time. Arrow's columns are slow once they are many: every cell of a row lies on a page and
a cache line of its own, which the first caches hold for up to 400 columns or so. XGBoost also joins the segments of
Arrow's columns into a copy of them all; a tile is never larger than that, and beyond 65,536 rows smaller.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import xgboost as xgb
from numpy.typing import NDArray

from eravane_kernels.cpu.levelrows import empty_rows, fill_rows

# Naming the columns to XGBoost for every tile takes about 8 us a column: fewer rows cost more than they save.
FEWEST_ROWS, MOST_ROWS = 8_192, 16_384
# As many float32 tiles at least as a float32 has bytes: a tile is no larger than the int8 table.
FEWEST_TILES = 4
# Arrow's columns are read as fast, or faster, while there are few of them.
FEWEST_COLUMNS = 400


def addresses(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where every int8 column begins in every chunk, int64 [S, C], and the rows of the chunks, int64 [S]."""
    chunks = [column.chunks for column in table.columns]
    rows = [[len(chunk) for chunk in column] for column in chunks]
    assert all(lengths == rows[0] for lengths in rows), "the columns of a window are cut alike"
    address_CS = [[chunk.buffers()[1].address + chunk.offset for chunk in column] for column in chunks]
    return np.array(address_CS, dtype=np.int64).T.copy(), np.array(rows[0], dtype=np.int64)


def worth_it(table: pa.Table) -> bool:
    """Whether XGBoost takes a table faster in tiles: large, of int8 throughout, no nulls, columns cut alike."""
    columns = table.columns
    if len(columns) < FEWEST_COLUMNS or table.num_rows < FEWEST_TILES * FEWEST_ROWS:
        return False
    if any(column.type != pa.int8() or column.null_count for column in columns):
        return False
    cuts = [[len(chunk) for chunk in column.chunks] for column in columns]
    return all(cut == cuts[0] for cut in cuts) and reads_anew()


class Tiles(xgb.DataIter):  # type: ignore[misc]
    """A table of int8 levels as batches for `xgboost.QuantileDMatrix`, through one frame that is refilled.

    Args:
        table: int8 columns without nulls, cut alike.
        tiles: how many; None chooses.
    """

    def __init__(self, table: pa.Table, tiles: int | None = None) -> None:
        super().__init__(release_data=False)  # what XGBoost learns of a frame's columns it need not learn twice
        self._table = table  # keeps the memory alive
        self._address_SC, row_S = addresses(table)
        self._edge_S = np.concatenate([[0], np.cumsum(row_S)])
        tiles = tiles or max(FEWEST_TILES, -(-table.num_rows // MOST_ROWS))
        self._tile_RC = empty_rows(-(-table.num_rows // tiles), table.num_columns)
        self._frame = pd.DataFrame(self._tile_RC, columns=table.column_names, copy=False)
        self._rest = self._frame.iloc[: table.num_rows % len(self._frame)]
        self._next = 0

    def reset(self) -> None:
        """Begin again."""
        self._next = 0

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next tile; False after the last one."""
        first, last = self._next, min(self._next + len(self._frame), int(self._edge_S[-1]))
        if first == last:
            return False
        self._fill(first, last)
        frame = self._frame if last - first == len(self._frame) else self._rest
        input_data(data=frame, feature_names=self._table.column_names, feature_types=["int"] * frame.shape[1])
        self._next = last
        return True

    def _fill(self, first: int, last: int) -> None:
        for segment, address_C in enumerate(self._address_SC):
            begin, end = int(self._edge_S[segment]), int(self._edge_S[segment + 1])
            low, high = max(first, begin), min(last, end)
            if low < high:
                fill_rows(address_C, low - begin, self._tile_RC[low - first : high - first])


@functools.cache
def reads_anew() -> bool:
    """Whether XGBoost reads a frame that it has seen before from memory, tried once.

    It is documented to keep what it derives from a frame. Of float32 columns that are the addresses; should pandas or
    XGBoost copy them one day, every tile would hold the first one's rows.
    """
    level_CN = np.array([[1, 3, 4, 2, 1, 2], [2, 4, 1, 3, 3, 1]], dtype=np.int8)
    table = pa.table({str(column): pa.array(level_N) for column, level_N in enumerate(level_CN)})
    whole: Any = xgb.QuantileDMatrix(table, nthread=1)
    tiled: Any = xgb.QuantileDMatrix(Tiles(table, 3), ref=whole, nthread=1)
    return bool(np.array_equal(whole.get_data().toarray(), tiled.get_data().toarray()))
