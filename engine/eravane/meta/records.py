"""What resolved eras say of each base model: lagged scores at several half-lives, and the weights drawn from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eravane.meta.experts import Average, normalise, ridge_weights
from eravane.meta.outcomes import History

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Records:
    """Running averages over the resolved eras; entry n of every list holds what n resolved eras say.

    Everything is a function of the history alone, so that it is rebuilt, not stored.
    """

    def __init__(self, size: int, half_lives: Sequence[float], ridge_half_life: float, ridge: float) -> None:
        self._half_lives = tuple(half_lives)
        self._ridge_half_life = ridge_half_life
        self._ridge = ridge
        self.reset(size)

    def reset(self, size: int) -> None:
        """Forget everything and start with a pool of `size` models."""
        self._means = [Average.zeros((size,), half_life) for half_life in self._half_lives]
        self._ridge_c = Average.zeros((size,), self._ridge_half_life)
        self._ridge_C = Average.zeros((size, size), self._ridge_half_life)
        self._dispersion = Average.zeros((size,), max(self._half_lives))
        self._score_total, self._score_count = np.zeros(size), np.zeros(size)
        nobody = np.zeros(size, dtype=bool)
        self.seen_NM: list[BoolArray] = [nobody]
        self.means_NMH: list[FloatArray] = [np.zeros((size, len(self._half_lives)))]
        self.ridge_NM: list[FloatArray] = [np.full(size, 1.0 / size)]
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
        self._dispersion.add(np.log(np.maximum(history.row("dispersion", position), 1e-12)), present_M)
        self._score_total += history.row("scores", position)
        self._score_count += present_M
        self._record(self.seen_NM[-1] | present_M)

    def _record(self, seen_M: BoolArray) -> None:
        signal_M = np.where(seen_M, self._ridge_c.mean, 0.0)
        self.seen_NM.append(seen_M)
        self.means_NMH.append(np.column_stack([average.mean for average in self._means]))
        self.ridge_NM.append(ridge_weights(signal_M, self._ridge_C.mean, self._ridge, seen_M))
        self.signal_NM.append(signal_M)
        self.dispersion_NM.append(self._dispersion.mean)
        score_M = np.where(seen_M, self._score_total / np.maximum(self._score_count, 1), -np.inf)
        self.best_N.append(int(np.argmax(score_M)))


def comparator_weights(records: Records, known: int, dispersion_M: FloatArray) -> dict[str, FloatArray]:
    """Weights of the comparators when `known` eras are resolved: each float64 [M], sum 1.

    equal_weight; raw_average (weights by prediction spread, as averaging raw predictions does); best_single (highest
    mean score on the past); ridge (lagged-EMA ridge). Equal weight stands in where nothing is resolved.
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
        "ridge": with_newcomers(records.ridge_NM[known], records.seen_NM[known]),
    }


def with_newcomers(weights_M: FloatArray, seen_M: BoolArray) -> FloatArray:
    """Give models without any resolved era an equal share, so that they are neither trusted nor shut out."""
    if seen_M.all():
        return weights_M
    share = 1.0 / len(weights_M)
    fresh_M = np.where(seen_M, 0.0, share)
    return np.asarray(weights_M * np.where(seen_M, 1 - fresh_M.sum(), 0.0) + fresh_M)
