"""Directions along which regimes read scores: those of the models' agreement, with the usual c and the noise of c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eravane.core.arrays import Floats as FloatArray
from eravane.gate.experts import STABLE, shrunk


@dataclass(frozen=True, eq=False)
class Directions:
    """Principal directions of agreement: the way to them and back, and the spread of the predictions along each."""

    to_MK: FloatArray
    back_KM: FloatArray
    power_K: FloatArray


def directions(C_MM: FloatArray) -> Directions:
    """Principal directions of the models' agreement [M, M]."""
    power_K, vector_MK = np.linalg.eigh(C_MM)
    power_K = np.maximum(power_K, 0.0) + STABLE
    return Directions(vector_MK / np.sqrt(power_K), np.ascontiguousarray((vector_MK * np.sqrt(power_K)).T), power_K)


class Reading(NamedTuple):
    """c along directions [E, K], its long-run mean, the variance of its noise, and the predictions' spread [K]."""

    u_EK: FloatArray
    usual_K: FloatArray
    noise_K: FloatArray
    power_K: FloatArray


def read(basis: Directions, c_EM: FloatArray, C_MM: FloatArray, horizon: int) -> Reading:
    """Read c [E, M] along the directions of the agreement C_MM; `horizon`: eras that a label spans."""
    u_EK = c_EM @ basis.to_MK
    noise_K = overlapping(u_EK, basis.power_K, horizon)
    return Reading(u_EK, usual(c_EM, C_MM) @ basis.to_MK, noise_K, basis.power_K)


def usual(c_EM: FloatArray, C_MM: FloatArray) -> FloatArray:
    """Long-run mean of c, shrunk towards what makes equal weights best."""
    mean_M = c_EM.mean(axis=0)
    rest_EM = c_EM - mean_M
    stable_MM = C_MM + STABLE * np.eye(len(mean_M))
    scale = float((rest_EM * np.linalg.solve(stable_MM, rest_EM.T).T).mean())
    return shrunk(mean_M, C_MM, scale / len(c_EM))


def steady(variance_K: FloatArray, power_K: FloatArray, count: float) -> FloatArray:
    """Variances of `count` independent eras, shrunk to those of models with independent noise as far as they are few.

    Noise that is alike and independent between models is large in directions where they hardly spread.
    """
    size = len(variance_K)
    share, level = (size + 1) / (count + size + 1), float((variance_K * power_K).mean())
    return np.asarray((1 - share) * variance_K + share * level / power_K + max(1e-6 * level, 1e-12))


def overlapping(u_EK: FloatArray, power_K: FloatArray, horizon: int) -> FloatArray:
    """Variance of the noise of c [K], from changes over a horizon, of which noise shares nothing."""
    enough = len(u_EK) > 2 * horizon
    variance_K = ((u_EK[horizon:] - u_EK[:-horizon]) ** 2).mean(axis=0) / 2 if enough else u_EK.var(axis=0)
    return steady(variance_K, power_K, len(u_EK) / horizon)
