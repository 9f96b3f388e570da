"""The planted signal: the groups' signals, their weights in each regime, and the regimes' chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eravane.synth.config import SynthConfig

_STRONG, _WEAK, _REVERSED = 1.0, 0.15, -0.8


@dataclass(frozen=True)
class Signals:
    """Each group's signal: a linear part and pair products over 5 to 10 of its features.

    Attributes:
        columns: per group the positions of its signal features.
        linear: per group their coefficients, unit norm.
        pairs: per group an int64 [2, P] array of positions within `columns`.
        pair_weights: per group the coefficients of the products, unit norm.
        interactions: weight of the products against the linear part.
    """

    columns: tuple[NDArray[np.int64], ...]
    linear: tuple[NDArray[np.float32], ...]
    pairs: tuple[NDArray[np.int64], ...]
    pair_weights: tuple[NDArray[np.float32], ...]
    interactions: float

    @classmethod
    def draw(cls, rng: np.random.Generator, home_F: NDArray[np.int64], n_groups: int, interactions: float) -> Signals:
        """Draw the signals of all groups; a group with fewer than five features uses all of them."""
        columns, linear, pairs, pair_weights = [], [], [], []
        for g in range(n_groups):
            members = rng.permutation(np.flatnonzero(home_F == g))
            columns.append(members[: int(rng.integers(5, 11))])
            size = columns[-1].size
            linear.append(_unit(rng.standard_normal(size)))
            pairs.append(np.array([np.arange(size), np.roll(np.arange(size), 1)]))
            pair_weights.append(_unit(rng.standard_normal(size)))
        return cls(tuple(columns), tuple(linear), tuple(pairs), tuple(pair_weights), interactions)

    def evaluate(self, values_FN: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return every group's signal, standardised over the era's rows: [F, N] -> float32 [G, N]."""
        signals_GN = np.zeros((len(self.columns), values_FN.shape[1]), dtype=np.float32)
        for g, columns in enumerate(self.columns):
            x_BN = values_FN[columns]
            first, second = self.pairs[g]
            products_N = _standard(np.einsum("p,pn->n", self.pair_weights[g], x_BN[first] * x_BN[second]))
            linear_N = _standard(np.einsum("b,bn->n", self.linear[g], x_BN))
            signals_GN[g] = _standard((1 - self.interactions) * linear_N + self.interactions * products_N)
        return signals_GN


def _unit(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return weights scaled to unit norm."""
    return (weights / max(float(np.linalg.norm(weights)), 1e-12)).astype(np.float32)


def _standard(values_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values with mean 0 and standard deviation 1; a constant becomes 0."""
    centred_N = values_N - values_N.mean()
    spread = float(centred_N.std())
    return centred_N / np.float32(spread) if spread > 1e-6 else np.zeros_like(centred_N)


def draw_weights(rng: np.random.Generator, config: SynthConfig, n_groups: int) -> NDArray[np.float64]:
    """Return the expected group weights of every regime, [R, G], squares summing to 1.

    In each regime a third of the groups is strong, one is reversed and the others are weak; without regimes
    (`null`) all groups weigh the same.
    """
    n_regimes = 1 if config.null else config.n_regimes
    weights_RG = np.full((n_regimes, n_groups), _STRONG if config.null else _WEAK)
    if not config.null:
        n_strong = max(1, n_groups // 3)
        for r in range(n_regimes):
            order = rng.permutation(n_groups)
            weights_RG[r, order[:n_strong]] = _STRONG
            weights_RG[r, order[n_strong : n_strong + 1]] = _REVERSED
    weights_RG /= np.linalg.norm(weights_RG, axis=1, keepdims=True)
    return weights_RG


def draw_regimes(rng: np.random.Generator, config: SynthConfig, n_eras: int) -> NDArray[np.int64]:
    """Return a Markov chain of regimes that stays with probability `persistence`, else moves to another one."""
    n_regimes = 1 if config.null else config.n_regimes
    regimes_E = np.zeros(n_eras, dtype=np.int64)
    if n_regimes == 1:
        return regimes_E
    moves_E = rng.random(n_eras) >= config.persistence
    steps_E = rng.integers(1, n_regimes, n_eras) * moves_E
    steps_E[0] = rng.integers(n_regimes)
    return np.cumsum(steps_E) % n_regimes
