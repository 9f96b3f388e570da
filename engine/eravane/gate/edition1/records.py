"""Facts of each base model from resolved eras, as edition 1 had them: two ridges, the best single model, AdaHedge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.core.config import FirstGateConfig
from eravane.gate.edition1.changepoints import ChangePoints
from eravane.gate.experts import normalise, ridge_weights
from eravane.gate.outcomes import EraOutcome, History
from eravane.gate.portable_weights import with_newcomers
from eravane.gate.records import Records

# Ways to weigh models by their lagged scores alone.
LAGGED = ("ridge", "change_points")


@dataclass
class Mean:
    """Exponentially weighted mean with bias correction; a model that is absent leaves its mean as it was.

    Attributes:
        decay: what is kept of the past per resolved era, .5 ** (1 / half-life).
    """

    decay: float
    total: FloatArray
    mass: FloatArray

    @classmethod
    def zeros(cls, shape: tuple[int, ...], half_life: float) -> Mean:
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
    gap: float = 0.0

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


class FirstHistory(History):
    """Resolved eras in which every model counts, constant ones with zeros."""

    def present_in(self, outcome: EraOutcome) -> BoolArray:
        """Every model [M]."""
        return np.ones(len(outcome.c_M), dtype=bool)


class FirstRecords(Records):
    """Running averages over the resolved eras; entry n of every list is of the first n of them.

    Args:
        size: models of the pool; config: the [gate] section; horizon: eras that a label spans.
    """

    def __init__(self, size: int, config: FirstGateConfig, horizon: int) -> None:
        self._keys, self.ridge = config, config.ridge
        super().__init__(size, config.objective, horizon)

    def reset(self, size: int) -> None:
        """Forget everything and start with a pool of `size` models."""
        keys = self._keys
        self._lasting = [Mean.zeros((size,), half_life) for half_life in keys.half_lives]
        self._expected, self._alike = (Mean.zeros(shape, keys.ridge_half_life) for shape in ((size,), (size, size)))
        self._change_points = ChangePoints(size, self._horizon, keys.change_every)
        self._spread = Mean.zeros((size,), max(keys.half_lives))
        self._score_total, self._score_count = np.zeros(size), np.zeros(size)
        self.seen_NM = [np.zeros(size, dtype=bool)]
        self.means_NMH = [np.zeros((size, len(keys.half_lives)))]
        self._lagged_N = [{name: np.full(size, 1.0 / size) for name in LAGGED}]
        self.signal_NM, self.dispersion_NM = [np.zeros(size)], [np.zeros(size)]
        self._best_N = [0]

    def add(self, history: History, position: int) -> None:
        """Take in the resolved era at `position`."""
        present_M, c_M = history.row("present", position), history.row("c", position)
        for average in (*self._lasting, self._expected):
            average.add(c_M, present_M)
        self._alike.add(history.row("C", position), present_M[:, None] & present_M[None, :])
        self._change_points.add(c_M, present_M)
        self._spread.add(np.log(np.maximum(history.row("dispersion", position), 1e-12)), present_M)
        self._score_total += history.row("scores", position)
        self._score_count += present_M
        self._record(self.seen_NM[-1] | present_M)

    def _record(self, seen_M: BoolArray) -> None:
        signal_M = np.where(seen_M, self._expected.mean, 0.0)
        self.seen_NM.append(seen_M)
        self.means_NMH.append(np.column_stack([average.mean for average in self._lasting]))
        expected = {"ridge": signal_M, "change_points": np.where(seen_M, self._change_points.forecast_M, 0.0)}
        C_MM = self._alike.mean
        self._lagged_N.append({name: ridge_weights(expected[name], C_MM, self.ridge, seen_M) for name in LAGGED})
        self.signal_NM.append(signal_M)
        self.dispersion_NM.append(self._spread.mean)
        score_M = np.where(seen_M, self._score_total / np.maximum(self._score_count, 1), -np.inf)
        self._best_N.append(int(np.argmax(score_M)))

    def chosen(self, known: int) -> list[FloatArray]:
        """Weights of the ways that the configuration asks for, [M] each; 0 for models never seen."""
        return [weights_M for name, weights_M in self.lagged(known).items() if name in self._keys.experts]

    def comparators(self, known: int, dispersion_M: FloatArray) -> dict[str, FloatArray]:
        """Weights of the comparators when `known` eras are resolved: each float64 [M], sum 1.

        equal_weight; raw_average (weights by prediction spread, as averaging raw predictions does); best_single
        (highest mean score on the past); the ways in `LAGGED`. Equal weight stands in where nothing is resolved.
        """
        size = len(dispersion_M)
        equal_M, best_M = np.full(size, 1.0 / size), np.zeros(size)
        best_M[self._best_N[known]] = 1.0
        seen_M = self.seen_NM[known]
        return {
            "equal_weight": equal_M,
            "raw_average": normalise(dispersion_M, np.ones(size, dtype=bool)),
            "best_single": best_M if known else equal_M,
            **{name: with_newcomers(row_M, seen_M) for name, row_M in self.lagged(known).items()},
        }
