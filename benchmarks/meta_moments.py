"""A second generator of worlds, at the level of moments: other correlations, drift and switching than `eravane.synth`.

Stocks have 60 latent features in 12 blocks with uneven loadings and a common factor. A base model is a ridge on the
covariances of its features with the target over 80 eras, refitted every 40, and scored before that window as the loop
does. Regimes last for gamma-distributed times, and each is followed by another one; what blocks pay drifts around the
regime; weekly returns overlap over four eras. Nothing is shared with the generator that the gate was first tuned on but
the overlap of labels.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gamma

from benchmarks.meta_knowable import Truth, condensed
from benchmarks.meta_worlds import CLOCK, WINDOW, Planted, before
from eravane.gate.context import STRUCTURE
from eravane.gate.outcomes import EraFacts, EraOutcome, GateModel
from eravane.gate.versions import Version, VersionScores, scored_versions

FloatArray = NDArray[np.float64]

BLOCKS, WIDTH, WARM, REFIT, RIDGE, ROWS = 12, 5, 100, 40, 0.05, 4_000
FEATURES = BLOCKS * WIDTH
# Half-life of the drift of what blocks pay, and its size; the size of weekly returns of blocks.
DRIFT_HALF_LIFE, DRIFT, RETURNS = 150.0, 0.12, 0.15


@dataclass(frozen=True)
class Kind:
    """A kind of world: eras, models, size of the signal, mean length of a regime, and whether facts show it."""

    eras: int = 600
    models: int = 12
    signal: float = 0.07
    lasts: float = 35.0
    shown: bool = False
    null: bool = False


KINDS = {
    "hidden": Kind(),
    "visible": Kind(shown=True),
    "visible and fast": Kind(shown=True, lasts=10.0),
    "weak": Kind(signal=0.035),
    "weak, long": Kind(signal=0.03, eras=1_200, models=24),
    "many models": Kind(eras=300, models=60),
    "null": Kind(eras=400, signal=0.06, null=True),
}


def moment_world(name: str, seed: int) -> Planted:
    """A world of one of `KINDS`."""
    kind, rng = KINDS[name], np.random.default_rng([seed, zlib.crc32(name.encode())])
    total = WARM + kind.eras + 5
    home = np.repeat(np.arange(BLOCKS), WIDTH)
    S_FF = _correlations(rng, home)
    direction_F = rng.standard_normal(FEATURES)
    for block in range(BLOCKS):
        own = home == block
        direction_F[own] /= np.sqrt(direction_F[own] @ S_FF[np.ix_(own, own)] @ direction_F[own])
    pay_RB, regime_T = _regimes(rng, kind, total)
    loads_FB = S_FF @ (direction_F[:, None] * (home[:, None] == np.arange(BLOCKS))) * kind.signal
    theta_TF = (pay_RB[regime_T] + _wander(rng, kind, total))[:, home] * direction_F * kind.signal
    weekly_TF = rng.standard_normal((total + 3, FEATURES)) @ np.linalg.cholesky(S_FF).T / np.sqrt(ROWS)
    cov_TF = theta_TF @ S_FF + sum(weekly_TF[i : total + i] for i in range(4)) / 2
    cells = _cells(rng, kind, home)
    starts = range(WARM, WARM + kind.eras, REFIT)
    versions_VMF = np.stack([_fitted(cov_TF, S_FF, cells, start) for start in starts])
    root_FF = np.linalg.cholesky(S_FF)
    kept = tuple(
        Version(
            start,
            {0: (np.sqrt(FEATURES) * w_MF @ root_FF).astype(np.float32)},
            {era: w_MF @ cov_TF[era] for era in before(start) if era >= WARM},
        )
        for start, w_MF in zip(starts, versions_VMF, strict=True)
    )
    block_M = np.array([np.bincount(home[cell]).argmax() for cell in cells])
    active_RB = pay_RB > np.quantile(pay_RB, 0.7, axis=1, keepdims=True)
    shown_TM = active_RB[regime_T][:, block_M] if kind.shown else np.zeros((total, kind.models))
    facts = _facts(rng, shown_TM.astype(np.float64))
    outcomes, version_scores = [], {}
    for era in range(WARM, WARM + kind.eras):
        now = (era - WARM) // REFIT
        numbers = scored_versions(now + 1)
        version_scores[era] = VersionScores(numbers, versions_VMF[list(numbers)] @ cov_TF[era])
        C_MM = versions_VMF[now] @ S_FF @ versions_VMF[now].T
        c_M = versions_VMF[now] @ cov_TF[era]
        outcomes.append(EraOutcome(era, c_M, c_M, C_MM, facts[era], np.ones(kind.models)))
    pool = tuple(GateModel(f"m{m}", "medium" if m % 2 else "small", str(m)) for m in range(kind.models))
    regime_E = regime_T[WARM : WARM + kind.eras]
    in_force = [(o.era - WARM) // REFIT for o in outcomes]
    resolved = {"data": [condensed(cov_TF[o.era], loads_FB, S_FF, ROWS) for o in outcomes], "scores": []}
    for outcome in outcomes:
        seen = version_scores[outcome.era]
        w_KF = np.concatenate(versions_VMF[list(seen.versions)])
        resolved["scores"].append(condensed(seen.paid_KM.ravel(), w_KF @ loads_FB, w_KF @ S_FF @ w_KF.T, ROWS))
    truths = {
        what: Truth(
            pay_RG=pay_RB,
            regime_E=regime_E,
            leave_A=_leaves(kind.lasts),
            shown=kind.shown,
            returns=RETURNS,
            drift=0.0 if kind.null else DRIFT,
            keep=0.5 ** (1 / DRIFT_HALF_LIFE),
            white=0.0,
            loads_EMG=versions_VMF[in_force] @ loads_FB,
            seen_EG=np.stack([seen_G for seen_G, _ in pairs]),
            reads_EGG=np.stack([reads_GG for _, reads_GG in pairs]),
            renewed_E=(what == "scores") & (np.diff(in_force, prepend=-1) > 0),
        )
        for what, pairs in resolved.items()
    }
    return Planted(outcomes, pool, regime_E, kept, version_scores, truths)


def _leaves(lasts: float) -> FloatArray:
    """Probability that a regime ends after its first, second, ... era, as `_regimes` draws it."""
    longest = int(8 * lasts)
    ended_A = gamma.cdf(np.arange(1, longest + 2), 3, scale=lasts / 3) * (np.arange(1, longest + 2) > 3)
    return np.asarray(np.diff(ended_A) / (1 - ended_A[:-1]))


def _correlations(rng: np.random.Generator, home: NDArray[np.int64]) -> FloatArray:
    load_F, common_F = rng.uniform(0.2, 0.8, FEATURES), rng.uniform(0, 0.35, FEATURES) * rng.choice([-1, 1], FEATURES)
    S_FF = np.outer(load_F, load_F) * (home[:, None] == home) + np.outer(common_F, common_F)
    np.fill_diagonal(S_FF, np.maximum(1.0, load_F**2 + common_F**2 + 0.1))
    spread_F = np.sqrt(np.diag(S_FF))
    return np.asarray(S_FF / np.outer(spread_F, spread_F))


def _regimes(rng: np.random.Generator, kind: Kind, total: int) -> tuple[FloatArray, NDArray[np.int64]]:
    count = int(rng.integers(3, 6))
    regime, now = list[int](), 0
    while len(regime) < total:
        now = int(rng.choice([other for other in range(count) if other != now]))
        regime += [now] * max(3, int(rng.gamma(3, kind.lasts / 3)))
    pay_RB = np.ones((count, BLOCKS)) if kind.null else rng.standard_normal((count, BLOCKS)) + 0.35
    return pay_RB / np.linalg.norm(pay_RB, axis=1, keepdims=True), np.array(regime[:total])


def _wander(rng: np.random.Generator, kind: Kind, total: int) -> FloatArray:
    keep = 0.5 ** (1 / DRIFT_HALF_LIFE)
    drift_TB = np.zeros((total, BLOCKS))
    for t in range(1, total):
        drift_TB[t] = keep * drift_TB[t - 1] + np.sqrt(1 - keep**2) * rng.standard_normal(BLOCKS)
    weekly_TB = RETURNS * rng.standard_normal((total + 3, BLOCKS))
    overlap_TB = sum(weekly_TB[i : total + i] for i in range(4)) / 2
    return np.asarray(overlap_TB + (0.0 if kind.null else DRIFT) * drift_TB)


def _cells(rng: np.random.Generator, kind: Kind, home: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    cells = []
    for m in range(kind.models):
        own = np.flatnonzero(home == m % BLOCKS)
        own = own if kind.models == BLOCKS else rng.choice(own, WIDTH - 1, replace=False)
        cells.append(np.union1d(own, rng.choice(FEATURES, int(rng.integers(1, 6)), replace=False)))
    return cells


def _fitted(cov_TF: FloatArray, S_FF: FloatArray, cells: list[NDArray[np.int64]], start: int) -> FloatArray:
    newest = start - CLOCK.tree_lag
    mean_F = cov_TF[max(0, newest - WINDOW + 1) : newest + 1].mean(axis=0)
    weights_MF = np.zeros((len(cells), FEATURES))
    for m, cell in enumerate(cells):
        weights_MF[m, cell] = np.linalg.solve(S_FF[np.ix_(cell, cell)] + RIDGE * np.eye(len(cell)), mean_F[cell])
    spread_M = np.sqrt(np.einsum("mf,fg,mg->m", weights_MF, S_FF, weights_MF))
    return np.asarray(weights_MF / spread_M[:, None])


def _facts(rng: np.random.Generator, shown_TM: FloatArray) -> list[EraFacts]:
    """Statistics of cells that wander on their own; where regimes show, three of them move with the regime."""
    total, models = shown_TM.shape
    tells_S = 1.5 * np.array([1.0, 1.0, 0.5, 1.0, 0.0, 0.0, 0.0])
    own_MS, facts = rng.standard_normal((models, len(STRUCTURE))), []
    cells = tuple(np.arange(m, m + 1) for m in range(models))
    for t in range(total):
        own_MS = 0.9 * own_MS + np.sqrt(1 - 0.81) * rng.standard_normal(own_MS.shape)
        shown_MS = 0.5 * own_MS + shown_TM[t][:, None] * tells_S
        names = ("log_rows", "missing")
        facts.append(
            EraFacts(
                shown_MS, np.array([np.log(ROWS), 0.0]), STRUCTURE, names, np.zeros((0, models), np.float32), cells
            )
        )
    return facts
