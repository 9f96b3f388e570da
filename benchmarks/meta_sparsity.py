"""What closed gates save: trees that are not evaluated for the live era, and updates that resting models skip."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.harness import Result
from eravane.learners.registry import load_booster, predict
from eravane.learners.xgboost import fit, quantile_matrix, resolve_params
from eravane.loop.refresh import refresh
from eravane_kernels.cpu.forest import ROWS_TO_UNFOLD

BoolArray = NDArray[np.bool_]

FEATURES, TREES, SAMPLED, UPDATED = 20, 50, 40, 10
GATES = {"gate": "default gate", "half": "at most half of the models"}


def sparsity(
    open_TM: Mapping[str, Sequence[BoolArray]], resting_TM: Mapping[str, Sequence[BoolArray]], rows: int
) -> list[Result]:
    """Shares of models that run and that rest, and the CPU time that the engine then takes, of what all would take.

    Args:
        open_TM, resting_TM: per gate the decisions in every world.
        rows: stocks of the era that is predicted.
    """
    results = []
    zoo = _Zoo(open_TM["gate"][0].shape[1], rows)
    for name, title in GATES.items():
        open_EM, resting_EM = np.concatenate(open_TM[name]), np.concatenate(resting_TM[name])
        rng = np.random.default_rng(0)
        sample = rng.choice(len(open_EM), SAMPLED, replace=False)
        predicted = zoo.predict_seconds(open_EM[sample]) / zoo.predict_seconds(np.ones_like(open_EM[sample]))
        awake_EM = ~resting_EM[sample[:UPDATED]]
        updated = zoo.update_seconds(awake_EM) / zoo.update_seconds(np.ones_like(awake_EM))
        detail = f"{open_EM.mean():.3f} of the models are open; {open_EM.shape[1]} models of {TREES} trees, {rows} rows"
        results.append(
            Result(f"sparsity: trees evaluated live, {title}", 100 * predicted, "% of the time", detail=detail)
        )
        detail = f"{resting_EM.mean():.3f} of the models rest; leaves re-estimated on {rows} rows"
        results.append(Result(f"sparsity: trees updated, {title}", 100 * updated, "% of the time", detail=detail))
    return results


class _Zoo:
    """Boosted trees on levels, as many as the gate's models."""

    def __init__(self, models: int, rows: int) -> None:
        rng = np.random.default_rng(0)
        self._params, _ = resolve_params({"max_depth": 5}, "cpu")
        x_CN = rng.integers(0, 5, (FEATURES, rows)).astype(np.int8)
        self._label_N = (rng.integers(0, 5, rows) / 4).astype(np.float32)
        table = pa.table({f"f{column}": pa.array(values_N) for column, values_N in enumerate(x_CN)})
        self._matrix = quantile_matrix(table, self._params)
        self._live_CN = x_CN
        self._blocks = [
            fit(self._matrix, self._label_N, None, trees=TREES, params=self._params, seed=seed)
            for seed in range(models)
        ]
        self._boosters = [[load_booster(block)] for block in self._blocks]
        # After so many rows boosters predict from unfolded trees, and what that compiles is compiled.
        self.predict_seconds(np.ones((2 + ROWS_TO_UNFOLD // rows, models), dtype=bool))

    def predict_seconds(self, which_EM: BoolArray) -> float:
        """CPU seconds of predicting a live era with the models that are open, over all the eras."""
        begin = time.process_time()
        for which_M in which_EM:
            for m in np.flatnonzero(which_M):
                predict(self._boosters[m], self._live_CN)
        return time.process_time() - begin

    def update_seconds(self, which_EM: BoolArray) -> float:
        """CPU seconds of re-estimating the leaves of the models that are awake."""
        begin = time.process_time()
        for which_M in which_EM:
            for m in np.flatnonzero(which_M):
                refresh([self._blocks[m]], self._matrix, self._label_N, None, params=self._params, keep=0.5)
        return time.process_time() - begin
