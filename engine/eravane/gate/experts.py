"""Ways to weigh base models without a network, and the rule that mixes them all.

Weights are float64 [M], non-negative, with sum 1. `c_EM` and `C_EMM` are the sufficient statistics of resolved eras.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.gate.portable_weights import normalise as normalise
from eravane.gate.portable_weights import ridge_weights as ridge_weights

# Learning rates of Squint, in 1 / CORR: from one that ignores every gain to one that follows gains of .01 at once.
RATES = 2.0 ** np.arange(-2, 8)
# Added to the diagonal of C before it is inverted: base models of one cell are nearly alike.
STABLE = 0.02


def correlation(weights_M: FloatArray, c_M: FloatArray, C_MM: FloatArray) -> float:
    """Correlation of an ensemble with the target, c'w / sqrt(w'Cw); 0 where the ensemble is constant."""
    variance = float(weights_M @ C_MM @ weights_M)
    return float(c_M @ weights_M) / np.sqrt(variance) if variance > 1e-12 else 0.0


def slope(weights_M: FloatArray, c_M: FloatArray, C_MM: FloatArray) -> FloatArray:
    """Gradient of `correlation` in the weights [M]; 0 where the ensemble is constant."""
    spread_M = C_MM @ weights_M
    variance = float(weights_M @ spread_M)
    if variance <= 1e-12:
        return np.zeros(len(weights_M))
    return np.asarray(c_M / np.sqrt(variance) - float(c_M @ weights_M) * spread_M / variance**1.5)


@dataclass
class Average:
    """Exponentially weighted mean with bias correction; a model that is absent leaves its mean as it was.

    Attributes:
        decay: what is kept of the past per resolved era, .5 ** (1 / half-life); 1 for a plain mean.
    """

    decay: float
    total: FloatArray
    mass: FloatArray

    @classmethod
    def zeros(cls, shape: tuple[int, ...], half_life: float) -> Average:
        """Start empty; an infinite half-life gives the plain mean."""
        return cls(0.5 ** (1.0 / half_life), np.zeros(shape), np.zeros(shape))

    def add(self, value: FloatArray, present: BoolArray) -> None:
        """Take in one resolved era."""
        decay = np.where(present, self.decay, 1.0)
        self.total = decay * self.total + np.where(present, value, 0.0)
        self.mass = decay * self.mass + present

    @property
    def mean(self) -> FloatArray:
        """The mean; 0 where nothing has been seen."""
        return self.total / np.maximum(self.mass, 1e-12)


def shrunk(c_M: FloatArray, C_MM: FloatArray, noise: float) -> FloatArray:
    """Mean c of every model, shrunk towards the c for which equal weights are best, as far as noise explains it.

    James and Stein's rule in the metric of C: the part of c that no multiple of C 1 explains, d, keeps the share
    1 - (M - 1) noise / d'C^-1 d, at least 0.

    Args:
        c_M: means over past eras; C_MM: mean agreement; noise: error of the means is `noise` times C.
    """
    stable_MM = C_MM + STABLE * np.eye(len(c_M))
    equal_M = stable_MM.sum(axis=1)
    flat_M = c_M.sum() / equal_M.sum() * equal_M
    rest_M = c_M - flat_M
    power = float(rest_M @ np.linalg.solve(stable_MM, rest_M))
    kept = max(0.0, 1.0 - (len(c_M) - 1) * noise / power) if power > 0 else 0.0
    return np.asarray(flat_M + kept * rest_M)


@dataclass
class Squint:
    """Squint (Koolen and van Erven, 2015): experts are weighed by regret and squared regret, over a grid of rates.

    w_p is proportional to prior_p sum over rates of rate exp(rate R_p - rate^2 V_p): R sums the gains of expert p over
    the mix, V their squares times the horizon: labels overlap, so that sums of regrets vary that much more.

    Attributes:
        prior_P: float64 [P], weights before the first era.
        horizon: eras that a label spans.
    """

    prior_P: FloatArray
    horizon: int
    regret_P: FloatArray = field(default_factory=lambda: np.zeros(0))
    square_P: FloatArray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not len(self.regret_P):
            self.regret_P, self.square_P = np.zeros(len(self.prior_P)), np.zeros(len(self.prior_P))

    @property
    def weights_P(self) -> FloatArray:
        """Weights of the experts for the next era."""
        rate_R1 = RATES[:, None]
        log_RP = np.log(self.prior_P) + np.log(rate_R1) + rate_R1 * self.regret_P - rate_R1**2 * self.square_P
        weights_P = np.exp(log_RP - log_RP.max()).sum(axis=0)
        return np.asarray(weights_P / weights_P.sum())

    def update(self, used_P: FloatArray, gains_P: FloatArray) -> None:
        """Take in one resolved era: the weights that the experts had in it, and what each of them gained [P]."""
        ahead_P = gains_P - used_P @ gains_P
        self.regret_P = self.regret_P + ahead_P
        self.square_P = self.square_P + self.horizon * ahead_P**2
