"""Ways to weigh base models without a network: the comparators, and AdaHedge above them all.

Weights are float64 [M], non-negative, with sum 1. `c_EM` and `C_EMM` are the sufficient statistics of resolved eras.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eravane.gate.portable import normalise as normalise
from eravane.gate.portable import ridge_weights as ridge_weights

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def correlation(weights_M: FloatArray, c_M: FloatArray, C_MM: FloatArray) -> float:
    """Correlation of an ensemble with the target, c'w / sqrt(w'Cw); 0 where the ensemble is constant."""
    variance = float(weights_M @ C_MM @ weights_M)
    return float(c_M @ weights_M) / np.sqrt(variance) if variance > 1e-12 else 0.0


@dataclass
class Average:
    """Exponentially weighted mean with bias correction; a model that is absent leaves its mean as it was.

    Attributes:
        decay: what is kept of the past per resolved era, .5 ** (1 / half-life).
    """

    decay: float
    total: FloatArray
    mass: FloatArray

    @classmethod
    def zeros(cls, shape: tuple[int, ...], half_life: float) -> Average:
        """Start empty."""
        return cls(0.5 ** (1.0 / half_life), np.zeros(shape), np.zeros(shape))

    def add(self, value: FloatArray, present: BoolArray) -> None:
        """Take in one resolved era."""
        decay = np.where(present, self.decay, 1.0)
        self.total = decay * self.total + np.where(present, (1 - self.decay) * value, 0.0)
        self.mass = decay * self.mass + np.where(present, 1 - self.decay, 0.0)

    @property
    def mean(self) -> FloatArray:
        """The mean; 0 where nothing has been seen."""
        return self.total / np.maximum(self.mass, 1e-12)


@dataclass
class AdaHedge:
    """AdaHedge (de Rooij, van Erven, Grünwald and Koolen, 2014): hedging with a learning rate that tunes itself.

    Attributes:
        losses_P: float64 [P], cumulative losses of the experts.
        gap: cumulative mixability gap; the learning rate is ln P / gap.
    """

    losses_P: FloatArray
    gap: float = field(default=0.0)

    @property
    def weights_P(self) -> FloatArray:
        """Weights of the experts for the next era; uniform over the leaders while the gap is 0."""
        lead_P = self.losses_P - self.losses_P.min()
        if self.gap <= 0:
            leaders_P = lead_P <= 0
            return np.asarray(leaders_P / leaders_P.sum())
        weights_P = np.exp(-np.log(len(lead_P)) / self.gap * lead_P)
        return np.asarray(weights_P / weights_P.sum())

    def update(self, losses_P: FloatArray) -> None:
        """Take in one resolved era's losses [P]."""
        weights_P = self.weights_P
        hedge = float(weights_P @ losses_P)
        least = float(losses_P[weights_P > 0].min())
        if self.gap > 0:
            rate = np.log(len(losses_P)) / self.gap
            mix = least - float(np.log(weights_P @ np.exp(-rate * (losses_P - least)))) / rate
        else:
            mix = least
        self.losses_P = self.losses_P + losses_P
        self.gap += max(0.0, hedge - mix)
