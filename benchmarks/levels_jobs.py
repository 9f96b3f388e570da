"""The job whose memory is measured by `benchmarks.levels`: trees grown on a mapped file."""

from __future__ import annotations

import numpy as np

from eravane_kernels.cpu.boosting import Boosting
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Rules

TREES = 12  # enough for their memory to be seen


def prepare_grow() -> None:
    """Loads the compiled functions, which are not the rows' memory."""
    _grow(LevelColumns.of([np.zeros((4, 100), dtype=np.int8)]), 4, 1)


def grow(path: str, rows: str, columns: str, models: str) -> None:
    """Trees of some models on a tenth of the columns."""
    x_CN = np.load(path, mmap_mode="r")[:, : int(rows)]
    _grow(LevelColumns.of([x_CN]), int(columns) // 10, int(models))


def _grow(columns: LevelColumns, chosen: int, models: int) -> None:
    goal_BN = np.zeros((models, columns.rows), dtype=np.float32)
    for model, goal_N in enumerate(goal_BN):
        goal_N[model::3] = 1.0
    boosting = Boosting(columns, Rules(), goal_BN, None, np.zeros_like(goal_BN), seed=1, chosen=chosen)
    boosting.grow(TREES)
