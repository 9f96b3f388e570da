"""The hidden world behind a made dataset: stocks whose features drift, and weekly returns that are summed.

The same stocks underlie every era. Their latent features follow a slow AR(1); their weekly residual
returns are independent. A target of era t is the sum of the weekly returns t, t+1, ... over its horizon (4 or
12 eras), so two targets less than a horizon apart share weeks: realised group weights are autocorrelated .75, .5,
.25, 0 at lags 1 to 4 (20 days). The score of any fixed model inherits that from group and stock returns alike, less
what five target values lose: .67, .44, .22, 0 (cutting two normal variables of correlation .75 into the shares
5/20/50/20/5 leaves .67).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Float32s, Floats
from eravane.synth.config import SynthConfig
from eravane.synth.layout import Layout, build_layout
from eravane.synth.signal import Signals, draw_regimes, draw_weights

Features = NDArray[np.int8] | NDArray[np.float32]

LONGEST = 12
"""Weeks summed by the longest horizon."""

_TARGET_CUTS = (0.05, 0.25, 0.75, 0.95)
_FACTOR_SHARE = 0.8
_SHARED_NOISE = 0.64
_ACTIVE_CORRELATION, _ACTIVE_MEAN, _ACTIVE_SPREAD = 0.05, 0.3, 1.1
_BLOCK = 64


@dataclass(frozen=True)
class MadeEra:
    """One era of a made dataset, with its truth.

    Attributes:
        era: 1, 2, ...; the live era is one more than the last historical one.
        features_FN: int8 levels 0..4, or float32 with NaN for a missing feature ("marginal").
        targets_TN: float32 in {0, .25, .5, .75, 1}, one row per target name, complete: hiding labels that
            are not yet known is the reader's task.
        signals_GN: float32, the standardised signal of each group.
        regime: the state of the Markov chain, from 0.
        expected_G: float64, the main target's expected group weights (squares sum to 1).
        realised_20_G, realised_60_G: float64, expected weights plus the mean-zero group returns of the horizon.
    """

    era: int
    features_FN: Features
    targets_TN: Float32s
    signals_GN: Float32s
    regime: int
    expected_G: Floats
    realised_20_G: Floats
    realised_60_G: Floats


class World:
    """The parts that are drawn once, and the state that changes from era to era.

    Attributes:
        config, layout: the settings, and the names derived from them.
        signals: how each group's signal follows from its features.
        weights_RG: float64, expected group weights of the main target in each regime.
        regimes_E, rows_E: int64, regime and rows of eras 1, 2, ..., the live era last.
        first_era_F: int64, each feature's first era with data.

    Memory: the latent features of the largest era (float32), 12 weeks of returns, and one era's output;
    independent of the number of eras.
    """

    def __init__(self, config: SynthConfig) -> None:
        """Draw names, signals, regimes and row counts for a configuration."""
        self.config = config
        self.layout: Layout = build_layout(config)
        n_eras, n_groups = config.eras + 1, len(self.layout.groups)
        signal, weights, chain, returns, rows, late = np.random.default_rng([config.seed, 2]).spawn(6)
        self.signals = Signals.draw(signal, self.layout.home_F, n_groups, config.interactions)
        self.weights_RG = draw_weights(weights, config, n_groups)
        self.regimes_E = draw_regimes(chain, config, n_eras)
        families = list(dict.fromkeys(name.rsplit("_", 1)[0] for name in self.layout.targets))
        self._family_T = [families.index(name.rsplit("_", 1)[0]) for name in self.layout.targets]
        self._weeks_T = [4 if name.endswith("_20") else LONGEST for name in self.layout.targets]
        self._main_family = self._family_T[self.layout.main]
        self._tilt_KG = weights.standard_normal((len(families), n_groups))
        self._tilt_KG /= np.linalg.norm(self._tilt_KG, axis=1, keepdims=True)
        self._group_returns_WG = returns.standard_normal((n_eras + LONGEST, n_groups))
        self.rows_E = _row_counts(rows, config, n_eras)
        self.first_era_F = _first_eras(late, config, len(self.layout.features))

    def eras(self) -> Iterator[MadeEra]:
        """Yield every historical era in order, then the live era."""
        state = _Stocks(self.config, self.layout.home_F, len(self.layout.groups), int(self.rows_E.max()))
        n_families = int(self._tilt_KG.shape[0])
        weeks = [self._week_returns(week, n_families) for week in range(1, LONGEST)]
        for era in range(1, self.config.eras + 2):
            weeks.append(self._week_returns(era + LONGEST - 1, n_families))
            yield self._era(era, state, weeks)
            weeks.pop(0)

    def _week_returns(self, week: int, n_families: int) -> Float32s:
        """Return the stocks' residual returns of one week for each target family, unit variance."""
        rng = np.random.default_rng([self.config.seed, 3, week])
        own_KN = rng.standard_normal((n_families, int(self.rows_E.max())), dtype=np.float32)
        shared_N = own_KN[self._main_family].copy()
        own_KN *= np.float32(np.sqrt(1 - _SHARED_NOISE))
        own_KN += np.float32(np.sqrt(_SHARED_NOISE)) * shared_N
        own_KN[self._main_family] = shared_N
        return own_KN

    def _era(self, era: int, stocks: _Stocks, weeks: list[Float32s]) -> MadeEra:
        """Move the stocks by one week and form the era's features, signals and targets."""
        n = int(self.rows_E[era - 1])
        regime = int(self.regimes_E[era - 1])
        active_G = self.weights_RG[regime] > 0.9 * self.weights_RG[regime].max()
        if self.config.null:
            active_G[:] = False
        missing_F = self.first_era_F > era
        features_FN, values_FN = stocks.step(era, n, active_G, missing_F)
        signals_GN = self.signals.evaluate(values_FN)
        expected_KG = self._expected(regime)
        group_20_G, group_60_G = self._group_noise(era, 4), self._group_noise(era, LONGEST)
        targets_TN = np.empty((len(self._family_T), n), dtype=np.float32)
        for t, (family, horizon) in enumerate(zip(self._family_T, self._weeks_T, strict=True)):
            noise_N = np.sum([week[family, :n] for week in weeks[:horizon]], axis=0, dtype=np.float64)
            noise_N /= np.sqrt(horizon)
            weights_G = expected_KG[family] + (group_20_G if horizon == 4 else group_60_G)
            # einsum, not BLAS: the order of a sum must not depend on the number of threads.
            signal_N = np.einsum("g,gn->n", weights_G, signals_GN, dtype=np.float64)
            targets_TN[t] = _five_values(self.config.snr * signal_N + noise_N)
        order_N = np.random.default_rng([self.config.seed, 5, era]).permutation(n)
        expected_G = expected_KG[self._main_family]
        return MadeEra(
            era=era,
            features_FN=features_FN.take(order_N, axis=1),
            targets_TN=targets_TN[:, order_N],
            signals_GN=signals_GN[:, order_N],
            regime=regime,
            expected_G=expected_G,
            realised_20_G=expected_G + group_20_G,
            realised_60_G=expected_G + group_60_G,
        )

    def _expected(self, regime: int) -> Floats:
        """Return the expected group weights of every target family; the main one has the regime's own."""
        main_G: Floats = self.weights_RG[regime]
        mixed_KG: Floats = 0.8 * main_G + 0.6 * self._tilt_KG
        mixed_KG /= np.linalg.norm(mixed_KG, axis=1, keepdims=True)
        mixed_KG[self._main_family] = main_G
        return mixed_KG

    def _group_noise(self, era: int, horizon: int) -> Floats:
        """Return the groups' unexpected returns over the weeks of a horizon."""
        weeks_WG = self._group_returns_WG[era - 1 : era - 1 + horizon]
        scale = self.config.return_noise / float(np.sqrt(horizon))
        return np.asarray(scale * weeks_WG.sum(axis=0), dtype=np.float64)


def _row_counts(rng: np.random.Generator, config: SynthConfig, n_eras: int) -> NDArray[np.int64]:
    """Return rows per era, which move slowly between random levels ten eras apart."""
    knots = np.arange(0, n_eras + 10, 10)
    levels = rng.uniform(-config.row_spread, config.row_spread, knots.size)
    return np.round(config.rows * (1 + np.interp(np.arange(n_eras), knots, levels))).astype(np.int64)


def _first_eras(rng: np.random.Generator, config: SynthConfig, n_features: int) -> NDArray[np.int64]:
    """Return each feature's first era with data: 1, or for late ones an era in the first 30 %."""
    first_era_F = np.ones(n_features, dtype=np.int64)
    order = rng.permutation(n_features)
    late = order[: round(config.missing_share * n_features)]
    first_era_F[late] = rng.integers(2, round(0.3 * config.eras), late.size, endpoint=True)
    if config.constant_features:
        first_era_F[order[-config.constant_features :]] = config.eras + 2
    return first_era_F


class _Stocks:
    """Latent features of all stocks: group factors, a market factor and each feature's own part."""

    def __init__(self, config: SynthConfig, home_F: NDArray[np.int64], n_groups: int, n_max: int) -> None:
        self._config = config
        self._home_F = home_F
        self._own_FN = np.zeros((home_F.size, n_max), dtype=np.float32)
        self._common_GN = np.zeros((n_groups + 1, n_max), dtype=np.float32)
        self._born = 0

    def step(
        self, era: int, n: int, active_G: NDArray[np.bool_], missing_F: NDArray[np.bool_]
    ) -> tuple[Features, Float32s]:
        """Move the first n stocks by one week; return their features [F, n] and the signal's inputs [F, n]."""
        rng = np.random.Generator(np.random.SFC64([self._config.seed, 4, era]))
        self._drift(rng, self._common_GN, n)
        marginal = self._config.regimes == "marginal"
        rho_G, shift_G, spread_G = self._visible(active_G)
        values_FN = np.empty((self._home_F.size, n), dtype=np.float32)
        features_FN: Features = np.empty_like(values_FN) if marginal else np.empty(values_FN.shape, dtype=np.int8)
        for start in range(0, self._home_F.size, _BLOCK):
            rows = slice(start, start + _BLOCK)
            home_B = self._home_F[rows]
            self._drift(rng, self._own_FN[rows], n)
            x_BN = self._latent(rows, home_B, rho_G, n)
            if marginal:
                values_FN[rows] = x_BN
                features_FN[rows] = x_BN * spread_G[home_B][:, None] + shift_G[home_B][:, None]
            else:
                features_FN[rows] = fifths(x_BN)
                features_FN[rows][missing_F[rows]] = 2
                values_FN[rows] = (features_FN[rows] - np.float32(2)) * np.float32(np.sqrt(0.5))
        if marginal:
            features_FN[missing_F] = np.nan
            values_FN[missing_F] = 0
        self._born = max(self._born, n)
        return features_FN, values_FN

    def _drift(self, rng: np.random.Generator, state_BN: Float32s, n: int) -> None:
        """Advance the AR(1) of the first n stocks in place; stocks seen for the first time start fresh."""
        fresh_BN = rng.standard_normal((state_BN.shape[0], n), dtype=np.float32)
        phi = self._config.feature_persistence
        old = min(self._born, n)
        state_BN[:, :old] *= np.float32(phi)
        fresh_BN[:, :old] *= np.float32(np.sqrt(1 - phi**2))
        state_BN[:, :old] += fresh_BN[:, :old]
        state_BN[:, old:n] = fresh_BN[:, old:]

    def _visible(self, active_G: NDArray[np.bool_]) -> tuple[Float32s, Float32s, Float32s]:
        """Return per group (and for "no group", last) the correlation, mean shift and spread it shows."""
        active_G = np.append(active_G, False)
        structure = active_G & (self._config.regimes == "structure")
        marginal = active_G & (self._config.regimes == "marginal")
        rho_G = self._config.correlation + _ACTIVE_CORRELATION * structure
        shift_G = _ACTIVE_MEAN * marginal
        spread_G = np.where(marginal, _ACTIVE_SPREAD, 1.0)
        return rho_G.astype(np.float32), shift_G.astype(np.float32), spread_G.astype(np.float32)

    def _latent(self, rows: slice, home_B: NDArray[np.int64], rho_G: Float32s, n: int) -> Float32s:
        """Return the latent features of a block of columns, unit variance."""
        group = np.sqrt(_FACTOR_SHARE * rho_G) * (np.arange(rho_G.size) < rho_G.size - 1)
        market = np.sqrt((1 - _FACTOR_SHARE) * rho_G)
        own = np.sqrt(1 - group**2 - market**2)
        x_BN: Float32s = self._own_FN[rows, :n] * own[home_B][:, None].astype(np.float32)
        x_BN += group[home_B][:, None].astype(np.float32) * self._common_GN[home_B, :n]
        x_BN += market[home_B][:, None].astype(np.float32) * self._common_GN[-1, :n]
        return x_BN


def fifths(x_BN: Float32s) -> NDArray[np.int8]:
    """Return each row's levels 0..4 with counts that differ by at most one; [B, N] -> int8 [B, N]."""
    n = x_BN.shape[1]
    cuts = [round(n * k / 5) for k in range(1, 5)]
    sorted_BN = np.sort(x_BN, axis=1)
    levels_BN = np.zeros(x_BN.shape, dtype=np.int8)
    for cut in cuts:
        levels_BN += (x_BN >= sorted_BN[:, cut : cut + 1]).view(np.int8)
    tied_B = (sorted_BN[:, cuts] == sorted_BN[:, [cut - 1 for cut in cuts]]).any(axis=1)
    for row in np.flatnonzero(tied_B):
        # float32 draws repeat now and then; a repeat across a cut would make two fifths unequal.
        levels_BN[row, np.argsort(x_BN[row], kind="stable")] = np.searchsorted(cuts, np.arange(n), side="right")
    return levels_BN


def _five_values(y_N: Floats) -> Float32s:
    """Return the ranks of y cut into 5/20/50/20/5 % and mapped to 0, .25, .5, .75, 1."""
    n = y_N.size
    cuts = [round(share * n) for share in _TARGET_CUTS]
    values_N = np.empty(n, dtype=np.float32)
    values_N[np.argsort(y_N, kind="stable")] = np.searchsorted(cuts, np.arange(n), side="right") / 4
    return values_N


def iter_eras(config: SynthConfig) -> Iterator[MadeEra]:
    """Return an iterator over the historical eras of a made world in memory, in order, without files.

    The features, targets and truth are those that `synthesise` writes; targets are complete, whether or not
    they would be known yet. Memory: one era and the stocks' latent state.
    """
    return islice(World(config).eras(), config.eras)
