"""What resolved eras say of each base model: lagged scores at several half-lives, and the weights drawn from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eravane.core.config import GateConfig
from eravane.gate.changepoints import ChangePoints
from eravane.gate.experts import Average, normalise, ridge_weights
from eravane.gate.outcomes import History

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Ways to weigh models by their lagged scores alone.
LAGGED = ("ridge", "change_points")


class Records:
    """Running averages over the resolved eras; entry n of every list holds what n resolved eras say.

    Everything is a function of the history alone, so that it is rebuilt, not stored.

    Args:
        size: models of the pool; config: the [gate] section; horizon: eras that a label spans.
    """

    def __init__(self, size: int, config: GateConfig, horizon: int) -> None:
        self._config, self._horizon = config, horizon
        self.reset(size)

    def reset(self, size: int) -> None:
        """Forget everything and start with a pool of `size` models."""
        config = self._config
        self._means = [Average.zeros((size,), half_life) for half_life in config.half_lives]
        self._ridge_c = Average.zeros((size,), config.ridge_half_life)
        self._ridge_C = Average.zeros((size, size), config.ridge_half_life)
        self._change_points = ChangePoints(size, self._horizon, config.change_every)
        self._dispersion = Average.zeros((size,), max(config.half_lives))
        self._score_total, self._score_count = np.zeros(size), np.zeros(size)
        nobody = np.zeros(size, dtype=bool)
        self.seen_NM: list[BoolArray] = [nobody]
        self.means_NMH: list[FloatArray] = [np.zeros((size, len(config.half_lives)))]
        self._lagged_N: list[dict[str, FloatArray]] = [{name: np.full(size, 1.0 / size) for name in LAGGED}]
        self.signal_NM: list[FloatArray] = [np.zeros(size)]
        self.dispersion_NM: list[FloatArray] = [np.zeros(size)]
        self.best_N: list[int] = [0]

    def add(self, history: History, position: int) -> None:
        """Take in the resolved era at `position`."""
        present_M = history.row("present", position)
        c_M = history.row("c", position)
        for average in (*self._means, self._ridge_c):
            average.add(c_M, present_M)
        self._ridge_C.add(history.row("C", position), present_M[:, None] & present_M[None, :])
        self._change_points.add(c_M, present_M)
        self._dispersion.add(np.log(np.maximum(history.row("dispersion", position), 1e-12)), present_M)
        self._score_total += history.row("scores", position)
        self._score_count += present_M
        self._record(self.seen_NM[-1] | present_M)

    def _record(self, seen_M: BoolArray) -> None:
        signal_M = np.where(seen_M, self._ridge_c.mean, 0.0)
        self.seen_NM.append(seen_M)
        self.means_NMH.append(np.column_stack([average.mean for average in self._means]))
        expected = {"ridge": signal_M, "change_points": np.where(seen_M, self._change_points.forecast_M, 0.0)}
        C_MM, ridge = self._ridge_C.mean, self._config.ridge
        self._lagged_N.append({name: ridge_weights(expected[name], C_MM, ridge, seen_M) for name in LAGGED})
        self.signal_NM.append(signal_M)
        self.dispersion_NM.append(self._dispersion.mean)
        score_M = np.where(seen_M, self._score_total / np.maximum(self._score_count, 1), -np.inf)
        self.best_N.append(int(np.argmax(score_M)))

    def lagged(self, known: int) -> dict[str, FloatArray]:
        """Weights of every way in `LAGGED` when `known` eras are resolved, [M] each; 0 for models never seen."""
        return self._lagged_N[known]

    def chosen(self, known: int) -> list[FloatArray]:
        """Weights of the ways that the configuration asks for, [M] each; 0 for models never seen."""
        return [weights_M for name, weights_M in self.lagged(known).items() if name in self._config.experts]


def comparator_weights(records: Records, known: int, dispersion_M: FloatArray) -> dict[str, FloatArray]:
    """Weights of the comparators when `known` eras are resolved: each float64 [M], sum 1.

    equal_weight; raw_average (weights by prediction spread, as averaging raw predictions does); best_single (highest
    mean score on the past); ridge (lagged-EMA ridge); change_points (ridge on `ChangePoints`). Equal weight stands in
    where nothing is resolved.
    """
    size = len(dispersion_M)
    everyone = np.ones(size, dtype=bool)
    best_M = np.zeros(size)
    best_M[records.best_N[known]] = 1.0
    equal_M = np.full(size, 1.0 / size)
    return {
        "equal_weight": equal_M,
        "raw_average": normalise(dispersion_M, everyone),
        "best_single": best_M if known else equal_M,
        **{name: with_newcomers(row_M, records.seen_NM[known]) for name, row_M in records.lagged(known).items()},
    }


def with_newcomers(weights_M: FloatArray, seen_M: BoolArray) -> FloatArray:
    """Give models without any resolved era an equal share, so that they are neither trusted nor shut out."""
    if seen_M.all():
        return weights_M
    share = 1.0 / len(weights_M)
    fresh_M = np.where(seen_M, 0.0, share)
    return np.asarray(weights_M * np.where(seen_M, 1 - fresh_M.sum(), 0.0) + fresh_M)
