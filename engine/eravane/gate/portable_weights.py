"""Weights of base models from what they are expected to be paid; they travel with an exported model."""

from __future__ import annotations

import numpy as np

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray

STEADY = 0.05  # ridge of expected weights, in units of the predictions' variance


def expected_weights(c_M: FloatArray, C_MM: FloatArray, seen_M: BoolArray) -> FloatArray:
    """Best weights [M] for an expected c; models without any resolved era get an equal share."""
    return with_newcomers(long_only_weights(c_M * seen_M, C_MM, seen_M), seen_M)


def long_only_weights(c_M: FloatArray, C_MM: FloatArray, present_M: BoolArray) -> FloatArray:
    """Weights [M] that maximise c'w / sqrt(w' (C + `STEADY` I) w) with none below 0; equal where no c is positive.

    The active set method of Lawson and Hanson, begun from what is left when negative weights are dropped. Clipping the
    unconstrained solution at 0 instead loses up to a fifth of what is known: the models that stay are then weighed for
    partners that are gone.
    """
    system_MM, least = C_MM + STEADY * np.eye(len(c_M)), 1e-10 * float(np.abs(c_M).max(initial=0.0))
    held_M: BoolArray = present_M.copy()
    weights_M = _solved(system_MM, c_M, held_M)
    while (weights_M[held_M] <= 0).any():
        held_M = weights_M > 0
        weights_M = _solved(system_MM, c_M, held_M)
    for _ in range(3 * len(c_M)):
        slope_M = np.where(present_M & ~held_M, c_M - system_MM @ weights_M, 0.0)
        if not slope_M.max(initial=0.0) > least:
            break
        held_M[int(np.argmax(slope_M))] = True
        while ((found_M := _solved(system_MM, c_M, held_M))[held_M] <= 0).any():
            down_M = held_M & (found_M <= 0)
            step = float((weights_M[down_M] / np.maximum(weights_M[down_M] - found_M[down_M], 1e-300)).min())
            weights_M = weights_M + step * (found_M - weights_M)
            held_M &= ~(down_M & (weights_M <= 1e-12 * weights_M.max(initial=0.0)))
        weights_M = found_M
    return normalise(weights_M, present_M)


def _solved(system_MM: FloatArray, c_M: FloatArray, held_M: BoolArray) -> FloatArray:
    """Solution of the equations of some models alone [M]; 0 for the others."""
    found_M = np.zeros(len(c_M))
    found_M[held_M] = np.linalg.solve(system_MM[np.ix_(held_M, held_M)], c_M[held_M])
    return found_M


def with_newcomers(weights_M: FloatArray, seen_M: BoolArray) -> FloatArray:
    """Give models without any resolved era an equal share, so that they are neither trusted nor shut out."""
    if seen_M.all():
        return weights_M
    fresh_M = np.where(seen_M, 0.0, 1.0 / len(weights_M))
    return np.asarray(weights_M * np.where(seen_M, 1 - fresh_M.sum(), 0.0) + fresh_M)


def ridge_weights(c_M: FloatArray, C_MM: FloatArray, ridge: float, present_M: BoolArray) -> FloatArray:
    """Solve (C + ridge I) w = c, clip at 0 and normalise; all models equal where no weight is positive."""
    system_MM = C_MM + ridge * np.eye(len(c_M)) + np.diag(np.where(present_M, 0.0, 1.0))
    return normalise(np.linalg.solve(system_MM + 1e-9 * np.eye(len(c_M)), c_M), present_M)


def normalise(weights_M: FloatArray, allowed_M: BoolArray) -> FloatArray:
    """Non-negative weights with sum 1 over the allowed models; equal ones where nothing finite and positive is left."""
    clean_M = np.where(allowed_M & np.isfinite(weights_M), np.maximum(weights_M, 0.0), 0.0)
    total, equal_M = clean_M.sum(), allowed_M / max(int(allowed_M.sum()), 1)
    return np.asarray(clean_M / total if total > 0 and np.isfinite(total) else equal_M)
