"""Present worth of base models that stays for a while and then changes: Bayesian change-point detection.

Between two changes the models' c (see `outcomes`) scatter around a level of their own, and levels scatter around the
models' long-run means. Every era may be the first of a segment, and the posterior over the start of the present one
follows from a recursion (Adams and MacKay, 2007, "Bayesian online changepoint detection"): near a change recent eras
count alone, long after it the whole segment does, and where nothing ever changes the long-run means do.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray

# The likeliest starts of the present segment; the others are dropped, so that an era costs the same for ever.
RUNS = 64
# Resolved eras between estimates of the scales, and horizons of history before the first.
ESTIMATED_EVERY, FIRST_HORIZONS = 13, 3
# Half of a level's variance is spread evenly over directions, as covariances of few eras need it.
EVEN = 0.5
# Levels vary by at least this share of an era's noise, so that a change is always possible.
LEAST_VARIANCE = 0.05


class ChangePoints:
    """Posterior of the models' present levels, from resolved eras alone.

    In a segment c = level + noise, noise ~ N(0, s I); labels of `horizon` eras overlap, so that L eras say as much as
    L / horizon (likelihoods to the power 1 / horizon). Levels ~ N(m, V diag(tau) V'): m are the models' means over all
    eras, shrunk to their common mean by James and Stein's rule, V the directions in which scores more than a horizon
    apart still move together. s, m, tau and V are estimated from the same past.

    Args:
        size: models of the pool, M; horizon: eras that a label spans.
        every: expected eras between two changes.
    """

    def __init__(self, size: int, horizon: int, every: float) -> None:
        self._size, self._horizon, self._hazard = size, horizon, 1.0 / every
        self._count = 0
        self._total_M, self._squares_M, self._seen_M = np.zeros(size), np.zeros(size), np.zeros(size, dtype=bool)
        self._newest: deque[tuple[FloatArray, BoolArray]] = deque(maxlen=2 * horizon + 1)
        self._jumps = self._jump_count = 0.0
        self._pairs = 0
        self._product_MM = np.zeros((size, size))
        self._now_M, self._earlier_M = np.zeros(size), np.zeros(size)
        self._noise, self._turn_MM, self._variance_M = 0.0, np.eye(size), np.ones(size)
        # Possible starts of the present segment: eras before it, sum of c before it, log posterior.
        self._before_R, self._sum_RM, self._log_R = np.zeros(1), np.zeros((1, size)), np.zeros(1)

    def add(self, c_M: FloatArray, present_M: BoolArray) -> None:
        """Take in one resolved era; an absent model counts as at its mean, one never seen as at the era's."""
        common = c_M[present_M].mean() if present_M.any() else 0.0
        usual_M = self._total_M / max(self._count, 1)
        c_M = np.where(present_M, c_M, np.where(self._seen_M, usual_M, common))
        if self._count >= FIRST_HORIZONS * self._horizon:
            if self._noise == 0 or self._count % ESTIMATED_EVERY == 0:
                self._estimate()
            self._advance(c_M)
        self._seen_M = self._seen_M | present_M
        self._count += 1
        self._total_M = self._total_M + c_M
        self._squares_M = self._squares_M + c_M**2
        self._newest.append((c_M, present_M))
        self._remember()

    @property
    def forecast_M(self) -> FloatArray:
        """Expected c of each model [M] in the present segment; 0 before the first era."""
        if self._noise == 0:
            return self._total_M / max(self._count, 1)
        level_RM, _ = self._levels()
        return np.asarray(self._mean_M + self._turn_MM @ (np.exp(self._log_R) @ level_RM))

    def _remember(self) -> None:
        """Sums behind the scales: differences over a horizon, and products of eras one to two horizons apart."""
        horizon, rows = self._horizon, self._newest
        if len(rows) > horizon:
            (now_M, here_M), (then_M, there_M) = rows[-1], rows[-1 - horizon]
            both_M = here_M & there_M
            self._jumps += float(((now_M - then_M)[both_M] ** 2).sum())
            self._jump_count += float(both_M.sum())
        if len(rows) > 2 * horizon:
            earlier_M = np.sum([c_M for c_M, _ in list(rows)[: horizon + 1]], axis=0) / (horizon + 1)
            self._product_MM += np.outer(rows[-1][0], earlier_M)
            self._now_M, self._earlier_M = self._now_M + rows[-1][0], self._earlier_M + earlier_M
            self._pairs += 1

    def _estimate(self) -> None:
        """Noise of an era, and variance of the levels by direction."""
        mean_M = self._total_M / self._count
        spread = float((self._squares_M / self._count - mean_M**2).mean())
        self._noise = max(self._jumps / max(self._jump_count, 1.0) / 2, 1e-12)
        level = max(spread - self._noise, LEAST_VARIANCE * self._noise)
        lasting_MM = self._product_MM - np.outer(self._now_M, mean_M) - np.outer(mean_M, self._earlier_M)
        lasting_MM = lasting_MM / max(self._pairs, 1) + np.outer(mean_M, mean_M)
        values_M, self._turn_MM = np.linalg.eigh((lasting_MM + lasting_MM.T) / 2)
        # What is above rounding errors; those would make up a direction where scores do not move together at all.
        values_M = np.where(values_M > 1e-9 * np.abs(values_M).max(), values_M, 0.0)
        share_M = values_M / values_M.mean() if values_M.sum() > 0 else np.ones(self._size)
        self._variance_M = level * (EVEN + (1 - EVEN) * share_M)

    @property
    def _mean_M(self) -> FloatArray:
        """Long-run means, shrunk to their common mean as far as their noise explains how they differ."""
        mean_M = self._total_M / self._count
        between = float(mean_M.var(ddof=1)) if self._size > 1 else 0.0
        error = self._horizon * self._noise / self._count
        kept = max(between - error, 0.0) / between if between > 0 else 0.0
        return np.asarray(mean_M.mean() + kept * (mean_M - mean_M.mean()))

    def _levels(self) -> tuple[FloatArray, FloatArray]:
        """Posterior mean of the level, less the long-run mean, and its variance, by start and direction [R, M]."""
        length_R1 = (self._count - self._before_R)[:, None]
        sum_RM = (self._total_M - self._sum_RM - length_R1 * self._mean_M) @ self._turn_MM
        scale = self._horizon * self._noise
        variance_RM = 1.0 / (1.0 / self._variance_M + length_R1 / scale)
        return variance_RM * sum_RM / scale, variance_RM

    def _advance(self, c_M: FloatArray) -> None:
        """Weigh the starts by how well they foresaw an era, and let a segment start with it."""
        level_RM, variance_RM = self._levels()
        here_M = (c_M - self._mean_M) @ self._turn_MM
        stayed_R = np.log1p(-self._hazard) + self._log_R + self._likelihood(here_M - level_RM, variance_RM)
        fresh = np.log(self._hazard) + self._likelihood(here_M, self._variance_M)
        log_R = np.append(stayed_R, fresh)
        kept_R = np.sort(np.argsort(-log_R, kind="stable")[:RUNS])
        self._log_R = log_R[kept_R] - np.logaddexp.reduce(log_R[kept_R])
        self._before_R = np.append(self._before_R, self._count)[kept_R]
        self._sum_RM = np.vstack([self._sum_RM, self._total_M])[kept_R]

    def _likelihood(self, surprise_M: FloatArray, variance_M: FloatArray) -> FloatArray:
        """Log density of an era given how far it is from a level of that variance, over the last dimension."""
        total_M = variance_M + self._noise
        return np.asarray(-0.5 * (surprise_M**2 / total_M + np.log(total_M)).sum(-1) / self._horizon)
