"""The job whose memory `benchmarks.levels` measures: trees grown on a mapped file."""

from __future__ import annotations

import numpy as np

from eravane_kernels.cpu.growth import Grower
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Rules

TREES = 12  # enough for their memory to be seen


def prepare_grow() -> None:
    """Loads the compiled functions, which are not the rows' memory."""
    _grow(LevelColumns.of([np.zeros((4, 100), dtype=np.int8)]), 4)


def grow(path: str, rows: str, columns: str) -> None:
    """Trees on a tenth of the columns."""
    x_CN = np.load(path, mmap_mode="r")[:, : int(rows)]
    _grow(LevelColumns.of([x_CN]), int(columns) // 10)


def _grow(columns: LevelColumns, chosen: int) -> None:
    label_N = np.zeros(columns.rows, dtype=np.float32)
    label_N[::3] = 1.0
    margin_N, gradient_N = np.zeros_like(label_N), np.empty_like(label_N)
    grower = Grower(columns, Rules(), chosen)
    for turn in range(TREES):
        first = turn % max(1, columns.width // chosen)
        np.subtract(margin_N, label_N, out=gradient_N)
        grower.grow(gradient_N, None, np.arange(chosen) + first * chosen, margin_N)
