"""Rivals of the meta-learner: static and online weights.

Every rival returns weights [T, M] for the tested outcomes, the one for era t from outcomes up to t - lag alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from benchmarks.meta_worlds import Planted
from eravane.gate.experts import normalise, ridge_weights

FloatArray = NDArray[np.float64]
Update = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]

# Tuned on seeds 0 to 4: the best of each grid by mean gain over the three worlds.
EWA_RATE, SHARE_RATE, SHARE = 1.0, 1.0, 0.002


def static_ridge(world: Planted, first: int, lag: int) -> FloatArray:
    """Ridge on everything known at the first tested era, never changed; negative weights clipped."""
    c_EM, C_EMM, known_T = _past(world, first, lag)
    everyone = np.ones(c_EM.shape[1], dtype=bool)
    count = known_T[0]
    weights_M = ridge_weights(c_EM[:count].mean(axis=0), C_EMM[:count].mean(axis=0), 1.0, everyone)
    return np.tile(weights_M, (len(known_T), 1))


def stacking(world: Planted, first: int, lag: int) -> FloatArray:
    """Non-negative least squares of the target on all base predictions known so far, refitted every era."""
    c_EM, C_EMM, known_T = _past(world, first, lag)
    size = c_EM.shape[1]
    rows = []
    for count in known_T:
        root_MM = np.linalg.cholesky(C_EMM[:count].mean(axis=0) + 1e-6 * np.eye(size))
        rows.append(nnls(root_MM.T, np.linalg.solve(root_MM, c_EM[:count].mean(axis=0)))[0])
    return np.stack([normalise(row, np.ones(size, dtype=bool)) for row in rows])


def exponential_weights(world: Planted, first: int, lag: int, rate: float = EWA_RATE) -> FloatArray:
    """Weights proportional to exp(rate * cumulative score)."""

    def update(state_M: FloatArray, _: FloatArray, gain_M: FloatArray) -> FloatArray:
        return _softmax(np.log(state_M) + rate * gain_M)

    return _online(world, first, lag, update)


def fixed_share(world: Planted, first: int, lag: int, rate: float = SHARE_RATE, share: float = SHARE) -> FloatArray:
    """Exponential weights that give a share back to everyone after each era (Herbster and Warmuth, 1998)."""

    def update(state_M: FloatArray, _: FloatArray, gain_M: FloatArray) -> FloatArray:
        return (1 - share) * _softmax(np.log(state_M) + rate * gain_M) + share / len(state_M)

    return _online(world, first, lag, update)


def boa(world: Planted, first: int, lag: int) -> FloatArray:
    """Bernstein online aggregation with the second-order weights of the opera package."""
    size = len(world.models)
    V_M, R_M = np.zeros(size), np.zeros(size)

    def update(_: FloatArray, used_M: FloatArray, gain_M: FloatArray) -> FloatArray:
        nonlocal V_M, R_M
        regret_M = gain_M - used_M @ gain_M
        V_M = V_M + 2.2 * regret_M**2
        R_M = R_M + regret_M - regret_M**2 / np.sqrt(V_M)
        return _softmax(R_M / np.sqrt(V_M) - np.log(V_M) / 2)

    return _online(world, first, lag, update)


def _past(world: Planted, first: int, lag: int) -> tuple[FloatArray, FloatArray, list[int]]:
    c_EM = np.stack([outcome.c_M for outcome in world.outcomes])
    C_EMM = np.stack([outcome.C_MM for outcome in world.outcomes])
    eras = np.array([outcome.era for outcome in world.outcomes])
    return c_EM, C_EMM, [int(np.searchsorted(eras, era - lag, side="right")) for era in eras[first:]]


def _online(world: Planted, first: int, lag: int, update: Update) -> FloatArray:
    """Feed every era's linearised gains (the gradient of the mix's correlation) once they are known."""
    c_EM, C_EMM, known_E = _past(world, 0, lag)
    size = c_EM.shape[1]
    state_M, used, done = np.full(size, 1.0 / size), list[FloatArray](), 0
    for count in known_E:
        while done < count:
            w_M = used[done]
            spread = np.sqrt(w_M @ C_EMM[done] @ w_M)
            gain_M = c_EM[done] / spread - (c_EM[done] @ w_M) * (C_EMM[done] @ w_M) / spread**3
            state_M = update(state_M, w_M, gain_M)
            done += 1
        used.append(state_M)
    return np.stack(used)[first:]


def _softmax(logits_M: FloatArray) -> FloatArray:
    raw_M = np.exp(np.clip(logits_M - logits_M.max(), -700, 0))
    return np.asarray(np.maximum(raw_M / raw_M.sum(), 1e-300))
