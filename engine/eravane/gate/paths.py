"""Regimes as paths: hypotheses about when the regime changed and to which one, with what each regime pays learnt along.

Expectation and maximisation gives every era a share of every state and finds means that fit these shares, a local
optimum in which short histories of many models end far from what can be known. Here a hypothesis is a path of regimes
so far. Given a path all is linear and normal: an era shows the usual c, what its regime adds to that, a slow drift, and
the noise of the weeks that its label spans, of which the next label shares all but one. So a Kalman filter gives the
means of the regimes with their errors, overlap is accounted for exactly, and how well a path foresaw each next era is
its evidence (a Rao-Blackwellised filter that keeps the likeliest paths).

c is read along directions of the models' agreement, in units of its noise. What regimes add is larger where
predictions spread much: those are what many models have in common. So directions are of two kinds, the widest sixth and
the others (of all that are read: those of two versions may be), and those of a kind share one covariance, of the size
of the regimes and weeks.

Facts of an era are read as further directions, in kinds of their own: means of regimes, a drift, and noise without
weeks. Statistics of features stay for months, as volatility and rates do: where eras count as independent, slow moves
of them look like new regimes. Facts that have been known in the same eras share a covariance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Floats as FloatArray
from eravane.core.errors import LayoutError
from eravane.core.layout import Layout
from eravane.gate.directions import Directions, Reading, directions, read

# Regimes of a path, paths that are kept, and log odds to the likeliest one beyond which a path is dropped.
REGIMES, KEPT, UNLIKELY = 6, 32, 20.0
# Probability that a regime ends with an era.
LEAVE = 1 / 40.0
# Variances in units of the noise of c, means over directions: what a regime adds, the error of the usual c, the drift;
# and what is kept of the drift.
OWN, USUAL, DRIFT, KEEP = 0.15, 0.15, 0.02, 0.5 ** (1 / 100.0)
# Share of the directions that are wide, and the power of a kind's spread to which its variances are proportional.
WIDE, BY_SPREAD = 1 / 6.0, 0.5
# Share of the noise that labels do not share with their neighbours.
WHITE = 0.1
# Facts: variance of what a regime adds, in squared widths; what is kept of the drift from era to era; the largest share
# of the variance within a regime that may drift.
OWN_FACTS, KEEP_FACTS, MOST_DRIFT = 1.0, 0.95, 0.98
# Share of the first version in the evidence of paths that read no facts, where models have been refitted: its history
# is of one kind throughout, but says less about the present models.
FIRST = 0.3
# Parts of the state: what every regime adds, the usual c, the drift, the noise of the newest week and of those before.
_COMMON, _DRIFT, _WEEK = REGIMES, REGIMES + 1, REGIMES + 2
# Parameters of a kind of directions: variances of what a regime adds, of the error of the usual value, and of the
# drift; what is kept of that; variances of the noise of a week, and of an era alone.
_PARAMETERS = ("own", "usual", "drift", "keep", "week", "white")


class Facts(NamedTuple):
    """Facts of past eras [E, F], NaN where missing (F may be 0), and how they scatter within a regime.

    Attributes:
        width_F: their standard deviation; trust: power of their likelihood.
        drift_share: share of the variance within a regime that drifts, one for all facts.
    """

    value_EF: FloatArray
    width_F: FloatArray
    drift_share: float
    trust: float


class Foreseen(NamedTuple):
    """What paths expect of an era before its facts are seen.

    Attributes:
        state_R: probabilities of the regimes; u_RK, facts_RF: c along the directions and facts in each of them.
        width_F: standard deviation of facts around that; errors of the means and of the newest drift are left out.
    """

    state_R: FloatArray
    u_RK: FloatArray
    facts_RF: FloatArray
    width_F: FloatArray


class Paths:
    """The likeliest paths after the newest resolved era, and the state of the filter on each.

    Args:
        horizon: eras that a label spans.
    """

    def __init__(self, horizon: int) -> None:
        self._horizon, self._parts = horizon, _WEEK + horizon
        self._mean_HPK, self._cov_HGPP = np.zeros((0, self._parts, 0)), np.zeros((0, 0, self._parts, self._parts))
        self._kind_K, self._share_K, self._unit_K = np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0)
        self._parameters_GX, self._usual_K, self._facts = np.zeros((0, len(_PARAMETERS))), np.zeros(0), 0
        self._regime_H, self._used_H, self._log_H = (
            np.zeros(0, dtype=np.int64),
            np.zeros(0, dtype=np.int64),
            np.zeros(0),
        )

    def fit(self, reading: Reading, share_K: FloatArray, facts: Facts) -> None:
        """Follow all resolved eras from the first one.

        Args:
            reading: c along the directions; share_K: power of each direction's likelihood; facts: of these eras.
        """
        known_EF = np.isfinite(facts.value_EF)
        usual_F = np.where(known_EF, facts.value_EF, 0.0).sum(axis=0) / np.maximum(known_EF.sum(axis=0), 1)
        self._facts, (kind_K, strength_G) = len(usual_F), _kinds(reading.power_K)
        parameters = [(OWN * x, USUAL * x, DRIFT * x, KEEP, 1 - WHITE, WHITE) for x in strength_G]
        parameters += (
            [(OWN_FACTS, 0.0, facts.drift_share, KEEP_FACTS, 0.0, 1 - facts.drift_share)] if self._facts else []
        )
        self._parameters_GX = np.array(parameters)
        self._kind_K = np.concatenate([kind_K, np.full(self._facts, len(strength_G))])
        # A fact that was never known has no width: it is not read before the next fit.
        self._share_K = np.concatenate([share_K, np.where(known_EF.any(axis=0), facts.trust, 0.0)])
        self._unit_K = np.concatenate([np.sqrt(reading.noise_K), facts.width_F])
        self._usual_K = np.concatenate([reading.usual_K, usual_F]) / self._unit_K
        self._mean_HPK = np.zeros((0, self._parts, len(self._unit_K)))
        for u_K, facts_F in zip(reading.u_EK, facts.value_EF, strict=True):
            self.add(u_K, facts_F)

    def add(self, u_K: FloatArray, facts_F: FloatArray) -> None:
        """Take in one resolved era: c along the directions, and its facts."""
        u_K, weeks = np.concatenate([u_K, facts_F]) / self._unit_K, slice(_WEEK, None)
        seen_K = np.isfinite(u_K) & (self._share_K > 0)
        self._part(seen_K)
        own_G, usual_G, drift_G, keep_G, week_G, white_G = self._parameters_GX.T
        kind_K = self._kind_K
        seen_G = np.isin(np.arange(len(self._parameters_GX)), kind_K[seen_K])
        if not len(self._mean_HPK):
            mean_HPK = np.zeros((1, self._parts, len(u_K)))
            mean_HPK[0, _COMMON] = self._usual_K
            first_GP = np.stack([own_G] * REGIMES + [usual_G, drift_G] + [week_G] * self._horizon, axis=1)
            cov_HGPP = (first_GP[:, :, None] * np.eye(self._parts))[None]
            log_HR = np.where(np.arange(REGIMES) == 0, 0.0, -np.inf)[None]
            regime_H, used_H = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
        else:
            regime_H, used_H = self._regime_H, self._used_H
            mean_HPK, cov_HGPP = self._mean_HPK.copy(), self._cov_HGPP.copy()
            mean_HPK[:, _WEEK + 1 :], mean_HPK[:, _WEEK] = self._mean_HPK[:, _WEEK:-1], 0.0
            cov_HGPP[:, :, _WEEK + 1 :] = self._cov_HGPP[:, :, _WEEK:-1]
            cov_HGPP[..., _WEEK + 1 :] = cov_HGPP[..., _WEEK:-1].copy()
            cov_HGPP[:, :, _WEEK], cov_HGPP[..., _WEEK], cov_HGPP[:, :, _WEEK, _WEEK] = 0.0, 0.0, week_G
            mean_HPK[:, _DRIFT] *= keep_G[kind_K]
            cov_HGPP[:, :, _DRIFT] *= keep_G[:, None]
            cov_HGPP[..., _DRIFT] *= keep_G[:, None]
            cov_HGPP[:, :, _DRIFT, _DRIFT] += (1 - keep_G**2) * drift_G
            log_HR = self._log_H[:, None] + _moves(regime_H, used_H)
        # What an era shows beside what its regime adds, and the variance of that.
        show_P = np.zeros(self._parts)
        show_P[[_COMMON, _DRIFT]], show_P[weeks] = 1.0, 1 / np.sqrt(self._horizon)
        beside_HGP = cov_HGPP @ show_P
        own_HGR = np.diagonal(cov_HGPP, axis1=2, axis2=3)[..., :REGIMES]
        variance_HGR = own_HGR + 2 * beside_HGP[..., :REGIMES] + (beside_HGP @ show_P + white_G)[..., None]
        error_HRK = (u_K - np.einsum("p,hpk->hk", show_P, mean_HPK))[:, None] - mean_HPK[:, :REGIMES]
        error_HRK = np.where(seen_K, error_HRK, 0.0)
        for g in range(len(seen_G)):
            share_K = np.where((kind_K == g) & seen_K, self._share_K, 0.0)
            log_HR = log_HR - 0.5 * (error_HRK**2 @ share_K / variance_HGR[:, g])
            log_HR = log_HR - 0.5 * share_K.sum() * np.log(variance_HGR[:, g])
        best = np.argsort(-log_HR, axis=None, kind="stable")[:KEPT]
        best = best[log_HR.flat[best] > log_HR.max() - UNLIKELY]
        h, r = np.divmod(best, REGIMES)
        cross_HGP = beside_HGP[h] + cov_HGPP[h, :, r]
        gain_HGP = seen_G[:, None] * cross_HGP / variance_HGR[h, :, r][..., None]
        # In one layout, as it comes back from disk: the order of a sum must not depend on it.
        moved_HPK = np.ascontiguousarray(gain_HGP[:, kind_K].swapaxes(1, 2))
        self._mean_HPK = mean_HPK[h] + moved_HPK * error_HRK[h, r][:, None]
        self._cov_HGPP = cov_HGPP[h] - gain_HGP[..., None] * cross_HGP[:, :, None]
        self._regime_H, self._used_H = r, np.maximum(used_H[h], r + 1)
        log_H = log_HR[h, r] - log_HR[h, r].max()
        self._log_H = log_H - np.log(np.exp(log_H).sum())

    @property
    def directions(self) -> int:
        """Directions of c that are followed."""
        return len(self._unit_K) - self._facts

    def _part(self, seen_K: NDArray[np.bool_]) -> None:
        """Make kinds of their own of directions that are not seen while others of their kind are."""
        for g in np.intersect1d(self._kind_K[seen_K], self._kind_K[~seen_K]):
            self._kind_K = np.where((self._kind_K == g) & ~seen_K, len(self._parameters_GX), self._kind_K)
            self._parameters_GX = np.vstack([self._parameters_GX, self._parameters_GX[g]])
            if len(self._mean_HPK):
                self._cov_HGPP = np.concatenate([self._cov_HGPP, self._cov_HGPP[:, g : g + 1]], axis=1)

    def foreseen(self, steps: int) -> Foreseen:
        """What is expected `steps` eras after the newest resolved one.

        Regimes of one number are taken together over all paths, which descend from few.
        """
        at = np.arange(len(self._log_H))
        # The chain is symmetric: it has one probability of being back or still in the regime, one for the others.
        stays = 1 / REGIMES + (1 - 1 / REGIMES) * (1 - LEAVE * REGIMES / (REGIMES - 1)) ** steps
        state_HR = np.full((len(at), REGIMES), (1 - stays) / (REGIMES - 1))
        state_HR[at, self._regime_H] = stays
        state_HR *= np.exp(self._log_H)[:, None]
        state_R = state_HR.sum(axis=0)
        _, _, drift_K, keep_K, _, white_K = self._parameters_GX[self._kind_K].T
        usual_HK = self._mean_HPK[:, _COMMON] + keep_K**steps * self._mean_HPK[:, _DRIFT]
        u_HRK = self._mean_HPK[:, :REGIMES] + usual_HK[:, None]
        u_RK = np.einsum("hr,hrk->rk", state_HR / state_R, u_HRK) * self._unit_K
        width_K = self._unit_K * np.sqrt(white_K + drift_K * (1 - keep_K ** (2 * steps)))
        c, facts = slice(self.directions), slice(self.directions, None)
        return Foreseen(state_R, u_RK[:, c], u_RK[:, facts], width_K[facts])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All state, for safetensors."""
        return {
            "mean": self._mean_HPK,
            "cov": self._cov_HGPP,
            "kind": self._kind_K,
            "parameters": self._parameters_GX,
            "share": self._share_K,
            "regime": self._regime_H,
            "used": self._used_H,
            "log": self._log_H,
            "unit": self._unit_K,
            "facts": np.array([self._facts]),
        }

    def load(self, layout: Layout, prefix: str) -> None:
        """Take over the state of `arrays()`, each name of which begins with `prefix` there.

        Raises:
            LayoutError: it is laid out in another way.
        """

        def take(name: str, *dimensions: str | int, dtype: str = "f8") -> NDArray[Any]:
            return np.array(layout.take(f"{prefix}{name}", dtype, *dimensions))

        count, kinds, along = (f"{prefix}{of}" for of in ("paths", "kinds", "directions"))
        self._mean_HPK = take("mean", count, self._parts, along)
        self._cov_HGPP = take("cov", count, kinds, *[self._parts] * 2)
        self._kind_K, self._parameters_GX = take("kind", along, dtype="i8"), take("parameters", kinds, len(_PARAMETERS))
        self._share_K, self._facts = take("share", along), int(take("facts", 1, dtype="i8")[0])
        if not (
            np.isin(self._kind_K, np.arange(len(self._parameters_GX))).all() and 0 <= self._facts <= len(self._kind_K)
        ):
            raise LayoutError(
                f"reads '{prefix}kind' as kinds of '{prefix}parameters', of directions and '{prefix}facts'"
            )
        self._regime_H, self._used_H = take("regime", count, dtype="i8"), take("used", count, dtype="i8")
        self._log_H, self._unit_K = take("log", count), take("unit", along)


class PathBank:
    """Paths of every view of an era; those that read no facts follow the models' first version, too.

    Args:
        size: models of the pool; horizon: eras that a label spans.
    """

    def __init__(self, size: int, horizon: int) -> None:
        self._size, self._horizon = size, horizon
        self._paths: dict[int, Paths] = {}
        self._first_MK = np.zeros((0, size))

    @property
    def views(self) -> int:
        """How many views are followed."""
        return len(self._paths)

    def fit(
        self,
        basis: Directions,
        c_EM: FloatArray,
        C_MM: FloatArray,
        facts: Mapping[int, Facts],
        first: tuple[FloatArray, FloatArray] | None,
    ) -> None:
        """Follow all resolved eras from the first one.

        Args:
            basis: directions of the present models' agreement C_MM; c_EM: c of the present models.
            facts: of every view.
            first: c of the models' first version [E, M], and its agreement [M, M]; None where there is no other one.
        """
        present, share_K = read(basis, c_EM, C_MM, self._horizon), np.ones(self._size)
        alone, alone_K, self._first_MK = present, share_K, np.zeros((0, self._size))
        if first is not None:
            before = directions(first[1])
            self._first_MK = before.to_MK
            both = zip(read(before, *first, self._horizon), present, strict=True)
            alone = Reading(*(np.concatenate(pair, axis=-1) for pair in both))
            alone_K = np.repeat([FIRST, 1 - FIRST], self._size)
        self._paths = {view: Paths(self._horizon) for view in facts}
        for view, of_view in facts.items():
            followed = (present, share_K) if of_view.value_EF.shape[1] else (alone, alone_K)
            self._paths[view].fit(*followed, of_view)

    def add(self, u_K: FloatArray, facts: Mapping[int, FloatArray], first_M: FloatArray | None) -> None:
        """Take in one resolved era: c along the directions, facts by view, and c of the models' first version."""
        first_K = first_M @ self._first_MK if first_M is not None and len(self._first_MK) else u_K[:0]
        for view, paths in self._paths.items():
            facts_F = facts.get(view, np.zeros(0))
            paths.add(u_K if len(facts_F) else np.concatenate([first_K, u_K]), facts_F)

    def foreseen(self, steps: int) -> dict[int, Foreseen]:
        """Result of `Paths.foreseen` for the present models, by view."""
        found = {view: paths.foreseen(steps) for view, paths in self._paths.items()}
        return {view: expected._replace(u_RK=expected.u_RK[:, -self._size :]) for view, expected in found.items()}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All state, for safetensors."""
        found = {"first": self._first_MK}
        for view, paths in self._paths.items():
            found |= {f"paths.{view}.{name}": array for name, array in paths.arrays().items()}
        return found

    def load(self, layout: Layout, prefix: str, views: Sequence[int]) -> None:
        """Take over the state of `arrays()`, each name of which begins with `prefix` there.

        Raises:
            LayoutError: it is laid out in another way.
        """
        self._first_MK = np.array(layout.take(f"{prefix}first", "f8", "first", "M"))
        if len(self._first_MK) not in (0, self._size):
            raise LayoutError(f"reads '{prefix}first' for {self._size} models, and it has {len(self._first_MK)}")
        self._paths = {view: Paths(self._horizon) for view in views}
        for view, paths in self._paths.items():
            paths.load(layout, f"{prefix}paths.{view}.")
            if paths.directions not in (self._size, self._size + len(self._first_MK)):
                raise LayoutError(f"reads '{prefix}paths.{view}.facts' beside directions of {self._size} models")


def independent(facts_EK: FloatArray) -> float:
    """Share of independent facts: (tr R)^2 / tr R^2 over K, R their correlations."""
    known_EK = np.isfinite(facts_EK)
    mean_K = np.where(known_EK, facts_EK, 0.0).sum(axis=0) / np.maximum(known_EK.sum(axis=0), 1)
    z_EK = np.where(known_EK, facts_EK - mean_K, 0.0)
    spread_K = z_EK.std(axis=0)
    z_EK = z_EK[:, spread_K > 0] / spread_K[spread_K > 0]
    if not z_EK.shape[1]:
        return 0.0
    R_KK = z_EK.T @ z_EK / len(z_EK)
    return float(np.trace(R_KK) ** 2 / (R_KK**2).sum() / len(R_KK))


def drifting(rest_EF: FloatArray) -> float:
    """Share of the variance of facts that drifts, from products of neighbouring eras, of which noise shares nothing."""
    known_EF = np.isfinite(rest_EF)
    rest_EF = np.where(known_EF, rest_EF, 0.0)
    pairs, square = (known_EF[1:] & known_EF[:-1]).sum(), (rest_EF**2).sum()
    if not pairs or not square:
        return 0.0
    shared = (rest_EF[1:] * rest_EF[:-1]).sum() / pairs / (square / known_EF.sum())
    return min(MOST_DRIFT, max(0.0, float(shared) / KEEP_FACTS))


def _kinds(power_K: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Kind of every direction [K], the widest first, and how strong the variances of a kind are [G], on average 1."""
    wide = max(1, round(WIDE * len(power_K)))
    kind_K = (np.argsort(np.argsort(-power_K, kind="stable"), kind="stable") >= wide).astype(np.int64)
    strength_G = np.array([power_K[kind_K == g].mean() for g in range(int(kind_K.max()) + 1)]) ** BY_SPREAD
    return kind_K, strength_G / strength_G[kind_K].mean()


def _moves(regime_H: NDArray[np.int64], used_H: NDArray[np.int64]) -> FloatArray:
    """Log probability of the next regime [H, R]; regimes not used yet are alike, so the first of them has their sum."""
    regime_R = np.arange(REGIMES)
    new_HR = np.where(regime_R == used_H[:, None], REGIMES - used_H[:, None], 0)
    move_HR = LEAVE / (REGIMES - 1) * np.where(regime_R < used_H[:, None], 1, new_HR)
    move_HR[np.arange(len(regime_H)), regime_H] = 1 - LEAVE
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(move_HR))
