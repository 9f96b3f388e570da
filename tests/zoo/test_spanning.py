"""Bins of levels that are distributed over a cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from eravane.zoo.spanning import LEVEL_BINS

PARTS, ROWS, COLUMNS = 3, 2_000, 24


class _Parts(xgb.DataIter):
    """Rows part by part, as a worker of xgboost.dask passes them on."""

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self._parts, self._next = parts, 0
        super().__init__()

    def reset(self) -> None:
        self._next = 0

    def next(self, input_data: Any) -> bool:
        if self._next == len(self._parts):
            return False
        input_data(**self._parts[self._next])
        self._next += 1
        return True


@pytest.mark.parametrize("levels", [(0, 5), (-1, 5), (2, 3), (0, 2), (-1, 1)], ids=str)
def test_few_bins_of_levels_give_the_trees_of_many(levels: tuple[int, int]) -> None:
    rng = np.random.default_rng(levels[1])
    parts = [
        {
            "data": np.asfortranarray(rng.integers(*levels, (ROWS, COLUMNS), dtype=np.int8)),
            "label": rng.random(ROWS).astype(np.float32),
            "weight": (rng.random(ROWS) > 0.2).astype(np.float32),
        }
        for _ in range(PARTS)
    ]
    trees = set()
    for bins in (256, LEVEL_BINS):
        params = {"tree_method": "hist", "max_depth": 5, "max_bin": bins, "nthread": 1, "seed": 3, "base_score": 0.5}
        matrix = xgb.QuantileDMatrix(_Parts(parts), max_bin=bins, nthread=1)
        trees.add(bytes(xgb.train({**params, "colsample_bytree": 0.3}, matrix, 8).save_raw("ubj")))
    assert len(trees) == 1
