"""What can be known of a made world: the best causal method, for generators whose parameters are known.

In an era the blocks of features pay x = pay of the regime + drift + returns, and predictions score their loadings times
x, plus the noise of the labels. With all these parameters the method filters regime, drift and noise (labels overlap)
from resolved eras, or reads the regime where facts show it, carries them over the eras that are not resolved, and takes
the weights that maximise expected CORR. Nothing is estimated, unless it is to learn what regimes pay.

Where models are refitted, that method also knows how much of each block every version loads. `regimes_known` does not:
it reads histories of the present versions as the gate projects them, and learns by the gate's own paths, to which the
regime is a fact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from eravane.gate.directions import directions, read
from eravane.gate.outcomes import EraOutcome
from eravane.gate.paths import REGIMES, Facts, Paths
from eravane.gate.portable_weights import expected_weights
from eravane.gate.versions import Version, Versions, VersionScores

FloatArray = NDArray[np.float64]

# Weeks that a label spans, and hypotheses about the past regimes that are followed.
WEEKS, FOLLOWED = 4, 100
# How far apart facts put the regimes, in standard deviations.
APART = 100.0


@dataclass(frozen=True, eq=False)
class Truth:
    """Parameters of a world of E eras, R regimes and G blocks.

    Attributes:
        pay_RG: what blocks pay in each regime; regime_E: the regime of each era.
        leave_A: probability that a regime ends after its first, second, ... era; the last one holds from there on.
        shown: whether facts tell the regime of an era.
        returns: standard deviation of what blocks pay around that in an era; it overlaps as labels do.
        drift, keep: standard deviation of its drift, and what is kept of that from era to era.
        white: share of the labels' noise that does not overlap.
        loads_EMG: expected c of the models in force is loads_MG x.
        seen_EG, reads_EGG: what resolved eras tell, reads_GG x + noise of variance 1.
        renewed_E: eras in which what is read changes, so that its noise has nothing in common with the era before.
    """

    pay_RG: FloatArray
    regime_E: NDArray[np.int64]
    leave_A: FloatArray
    shown: bool
    returns: float
    drift: float
    keep: float
    white: float
    loads_EMG: FloatArray
    seen_EG: FloatArray
    reads_EGG: FloatArray
    renewed_E: NDArray[np.bool_]


def condensed(c_K: FloatArray, loads_KG: FloatArray, C_KK: FloatArray, rows: int) -> tuple[FloatArray, FloatArray]:
    """All that scores c with noise of covariance C / rows tell of x: reads_GG x + noise of variance 1, and reads_GG."""
    power_K, vector_KK = np.linalg.eigh(C_KK)
    kept_K = power_K > 1e-6 * power_K[-1]
    to_KJ = vector_KK[:, kept_K] * np.sqrt(rows / power_K[kept_K])
    left_JG, s_G, right_GG = np.linalg.svd(to_KJ.T @ loads_KG, full_matrices=False)
    return right_GG.T @ (left_JG.T @ (to_KJ.T @ c_K)), (right_GG.T * s_G) @ right_GG


def knowable(outcomes: Sequence[EraOutcome], truth: Truth, lag: int, learnt: bool = False) -> FloatArray:
    """Weights [E, M] of the best method; `learnt`: it knows past regimes, and learns from them what each one pays."""
    x_EG = _expected(truth, lag, learnt)
    rows = []
    for outcome, loads_MG, x_G in zip(outcomes, truth.loads_EMG, x_EG, strict=True):
        root_MM = np.linalg.cholesky(outcome.C_MM + 1e-6 * np.eye(len(outcome.C_MM)))
        best_M = nnls(root_MM.T, np.linalg.solve(root_MM, loads_MG @ x_G))[0]
        rows.append(best_M / best_M.sum() if best_M.sum() > 0 else np.full(len(best_M), 1 / len(best_M)))
    return np.stack(rows)


def regimes_known(
    outcomes: Sequence[EraOutcome],
    versions: Sequence[Version],
    version_scores: Mapping[int, VersionScores],
    truth: Truth,
    lag: int,
) -> FloatArray:
    """Weights [E, M] by paths that know past regimes, and the era's own where facts show it; equal without a past."""
    kept, paths, used = Versions(), Paths(WEEKS), 0
    fact_ER = APART * np.eye(max(REGIMES, len(truth.pay_RG)))[truth.regime_E]
    rows = []
    for e, outcome in enumerate(outcomes):
        begun = [version for version in versions if version.start <= outcome.era]
        renewed = len(begun) > len(kept.kept) or not used
        for version in begun[len(kept.kept) :]:
            kept.add(version)
        known = max(0, e + 1 - lag)
        for resolved in outcomes[used:known] if versions else ():
            kept.score(resolved.era, version_scores[resolved.era])
        if known and renewed:
            newest_MM = kept.agreement_MM
            C_MM = np.mean([o.C_MM for o in outcomes[:known]], axis=0) if newest_MM is None else newest_MM
            basis, c_EM = directions(C_MM), np.stack([o.c_M for o in outcomes[:known]])
            c_EM = kept.project([o.era for o in outcomes[:known]], c_EM)
            share_K, width_F = np.ones(len(C_MM)), np.ones(fact_ER.shape[1])
            paths.fit(read(basis, c_EM, C_MM, WEEKS), share_K, Facts(fact_ER[:known], width_F, 0.0, 1.0))
        elif known > used:
            paths.add(outcomes[known - 1].c_M @ basis.to_MK, fact_ER[known - 1])
        used, everyone = known, np.ones(len(outcome.c_M), dtype=bool)
        expected_M = outcome.C_MM.sum(axis=1)
        if known:
            state_R, u_RK, fact_RF, _ = paths.foreseen(lag)
            if truth.shown:
                state_R = np.eye(REGIMES)[((fact_RF - fact_ER[e]) ** 2).sum(axis=1).argmin()]
            expected_M = (state_R @ u_RK) @ basis.back_KM
        rows.append(expected_weights(expected_M, outcome.C_MM, everyone))
    return np.stack(rows)


def _expected(truth: Truth, lag: int, learnt: bool) -> FloatArray:
    """Expected x of every era [E, G], from what is resolved `lag` eras before.

    A Kalman filter over what regimes pay, the drift, and the noise of the last `WEEKS` weeks; one mean for each
    hypothesis about the regime and its age, one covariance for all of them.
    """
    (eras, G), R = truth.seen_EG.shape, len(truth.pay_RG)
    known = truth.shown or learnt
    size, drift, weeks = (R + 1 + WEEKS) * G, slice(R * G, (R + 1) * G), slice((R + 1) * G, None)
    move_DD = np.eye(size)
    move_DD[drift, drift] *= truth.keep
    move_DD[weeks, weeks] = np.kron(np.eye(WEEKS, k=-1), np.eye(G))
    P_DD = np.zeros((size, size))
    P_DD[drift, drift] = truth.drift**2 * np.eye(G)
    mean_ND = np.zeros((R, size))
    mean_ND[:, : R * G] = truth.pay_RG.mean() if learnt else truth.pay_RG.ravel()
    if learnt:
        P_DD[: R * G, : R * G] = truth.pay_RG.var() * np.eye(R * G)
    regime_N, age_N, log_N = np.arange(R), np.ones(R, dtype=np.int64), np.zeros(R)
    ages, other_RR = len(truth.leave_A), (1 - np.eye(R)) / max(R - 1, 1)
    x_EG = np.tile(mean_ND[0, : R * G].reshape(R, G).mean(axis=0), (eras, 1))
    for e in range(eras):
        reads_GG = truth.reads_EGG[e]
        if e:
            mean_ND, P_DD = mean_ND @ move_DD.T, move_DD @ P_DD @ move_DD.T
            P_DD[drift, drift] += (1 - truth.keep**2) * truth.drift**2 * np.eye(G)
        noise_GG = (1 - truth.white) * np.eye(G) + truth.returns**2 * reads_GG @ reads_GG.T
        if e == 0 or truth.renewed_E[e]:
            mean_ND[:, weeks], P_DD[weeks], P_DD[:, weeks] = 0, 0, 0
            P_DD[weeks, weeks] = np.kron(np.eye(WEEKS), noise_GG)
        else:
            P_DD[weeks, weeks][:G, :G] = noise_GG
        if e:  # every hypothesis stays or moves on
            leave_N = truth.leave_A[np.minimum(age_N, ages) - 1]
            log_NR = log_N[:, None] + np.log(leave_N[:, None] * other_RR[regime_N] + 1e-300)
            log_NR[np.arange(len(log_N)), regime_N] = log_N + np.log(1 - leave_N + 1e-300)
            age_NR = np.where(np.arange(R) == regime_N[:, None], age_N[:, None] + 1, 1)
            parent_N, regime_N = np.divmod(np.arange(log_NR.size), R)
            mean_ND, log_N, age_N = mean_ND[parent_N], log_NR.ravel(), age_NR.ravel()
        if known:
            log_N = np.where(regime_N == truth.regime_E[e], log_N, -np.inf)
        alive_N = log_N > log_N.max() - 60
        mean_ND, log_N, regime_N, age_N = mean_ND[alive_N], log_N[alive_N], regime_N[alive_N], age_N[alive_N]
        shows_RGD = np.zeros((R, G, size))
        for r in range(R):
            shows_RGD[r, :, r * G : (r + 1) * G] = reads_GG
        shows_RGD[:, :, drift], shows_RGD[:, :, weeks] = reads_GG, np.tile(np.eye(G), WEEKS) / np.sqrt(WEEKS)
        # With what regimes pay known, its covariance is 0, and which regime is meant does not matter for the gain.
        show_GD = shows_RGD[regime_N[0]]
        S_GG = show_GD @ P_DD @ show_GD.T + (truth.white + 1e-6) * np.eye(G)
        error_NG = truth.seen_EG[e] - np.einsum("ngd,nd->ng", shows_RGD[regime_N], mean_ND)
        gain_DG = np.linalg.solve(S_GG, show_GD @ P_DD).T
        mean_ND, P_DD = mean_ND + error_NG @ gain_DG.T, P_DD - gain_DG @ show_GD @ P_DD
        P_DD = (P_DD + P_DD.T) / 2
        log_N = log_N - 0.5 * (error_NG * np.linalg.solve(S_GG, error_NG.T).T).sum(axis=1)
        mean_ND, log_N, regime_N, age_N = _merged(mean_ND, log_N, regime_N, age_N)
        if e + lag < eras:
            share_N = np.exp(log_N)
            state_RA = np.zeros((R, ages))
            np.add.at(state_RA, (regime_N, np.minimum(age_N, ages) - 1), share_N)
            for _ in range(lag):
                left_R = other_RR @ (state_RA * truth.leave_A).sum(axis=1)
                stay_RA = state_RA * (1 - truth.leave_A)
                state_RA = np.pad(stay_RA[:, :-1], ((0, 0), (1, 0)))
                state_RA[:, -1] += stay_RA[:, -1]
                state_RA[:, 0] += left_R
            share_R = np.eye(R)[truth.regime_E[e + lag]] if truth.shown else state_RA.sum(axis=1)
            mean_D = share_N @ mean_ND
            x_EG[e + lag] = share_R @ mean_D[: R * G].reshape(R, G) + truth.keep**lag * mean_D[drift]
    return x_EG


def _merged(
    mean_ND: FloatArray, log_N: FloatArray, regime_N: NDArray[np.int64], age_N: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, NDArray[np.int64], NDArray[np.int64]]:
    """Hypotheses of one regime and age as one, the likeliest `FOLLOWED` of them, with log probabilities."""
    key_H, group_N = np.unique(np.stack([regime_N, age_N]), axis=1, return_inverse=True)
    share_N = np.exp(log_N - log_N.max())
    share_H = np.bincount(group_N.ravel(), share_N)
    mean_HD = np.zeros((len(share_H), mean_ND.shape[1]))
    np.add.at(mean_HD, group_N.ravel(), share_N[:, None] * mean_ND)
    best_H = np.argsort(-share_H)[:FOLLOWED]
    best_H = best_H[share_H[best_H] > 0]
    share_H, mean_HD = share_H[best_H], mean_HD[best_H] / share_H[best_H, None]
    return mean_HD, np.log(share_H / share_H.sum()), key_H[0, best_H], key_H[1, best_H]
