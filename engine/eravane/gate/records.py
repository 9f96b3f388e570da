"""What resolved eras say of each base model: lagged scores, weights drawn from them, who is worse than the pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.core.config import GateConfig
from eravane.gate.experts import STABLE, Average, normalise, ridge_weights, shrunk, slope
from eravane.gate.outcomes import PAID_BY, History
from eravane.gate.portable import with_newcomers

# Half-lives of the lagged scores that the network reads, in resolved eras; memory matters little (16 to 128: within
# 3e-4 of each other on real series), so these are no setting.
HALF_LIVES = (4.0, 16.0, 64.0)
# The ridges: where all models are good the newest eras count, where some are bad all of them do.
RIDGES = {"ridge": 16.0, "ridge_64": 64.0, "ridge_all": float("inf")}
# In units of the predictions' variance. On real pools .1 beats 1 by up to 8e-4, and costs nothing on made worlds.
RIDGE = 0.1
AGREEMENT_HALF_LIFE = 64.0
# Ways to weigh models by resolved eras alone, beside equal weight.
LAGGED = ("screened", "best_single", *RIDGES)
# Eras in a row that a model is closed before its tree updates are skipped: shorter pauses end too often.
REST_AFTER = 4
# A model leaves equal weight's pool when what it adds is below 0 by so many errors, and returns when by fewer.
LEAVES, RETURNS, JUDGED_AFTER = -2.5, -1.0, 52


class Standing:
    """Who is worse than the pool: what each model adds to equal weight, its error, and whether it has left.

    What a model adds is the slope of the pool's correlation in its weight; errors are Newey and West's with Bartlett
    weights over two horizons, since labels overlap.

    Attributes:
        out_M: bool [M], models that have left.
    """

    def __init__(self, size: int, horizon: int) -> None:
        self._lags = 2 * horizon
        self._newest: deque[FloatArray] = deque(maxlen=self._lags)
        self._count_M, self._total_M = np.zeros(size), np.zeros(size)
        self._product_LM, self._early_LM = np.zeros((self._lags + 1, size)), np.zeros((self._lags + 1, size))
        self.out_M = np.zeros(size, dtype=bool)

    def add(self, c_M: FloatArray, C_MM: FloatArray, present_M: BoolArray) -> None:
        """Take in one resolved era."""
        added_M = np.where(present_M, slope(normalise(np.ones(len(c_M)), present_M), c_M, C_MM), 0.0)
        self._product_LM[0] += added_M**2
        for lag, earlier_M in enumerate(reversed(self._newest), start=1):
            self._product_LM[lag] += added_M * earlier_M
            self._early_LM[lag] += added_M + earlier_M
        self._newest.append(added_M)
        self._count_M += present_M
        self._total_M += added_M
        t_M = self.t_M
        self.out_M = (self._count_M >= JUDGED_AFTER) & np.where(self.out_M, t_M < RETURNS, t_M < LEAVES)
        if self.out_M.all():
            self.out_M[int(np.argmax(t_M))] = False

    def news(self, names: Sequence[str], before_M: BoolArray) -> list[str]:
        """Sentences on the models that have left, or are back, since `before_M` was in force."""
        found = []
        for m in np.flatnonzero(self.out_M != before_M).tolist():
            what = "leaves the pool that equal weight starts from" if self.out_M[m] else "is back in the pool"
            added = f"what it adds is {self.mean_M[m]:+.4f} (error {self.error_M[m]:.4f}, t {self.t_M[m]:.1f})"
            found.append(f"model {names[m]} {what}: {added}")
        return found

    @property
    def mean_M(self) -> FloatArray:
        """Mean of what each model adds, in CORR per unit of weight."""
        return self._total_M / np.maximum(self._count_M, 1)

    @property
    def error_M(self) -> FloatArray:
        """Error of `mean_M`."""
        count_M, mean_M = np.maximum(self._count_M, 1), self.mean_M
        variance_M = self._product_LM[0] / count_M - mean_M**2
        for lag in range(1, self._lags + 1):
            pairs_M = np.maximum(count_M - lag, 1)
            cross_M = (self._product_LM[lag] - mean_M * self._early_LM[lag]) / pairs_M + mean_M**2
            variance_M = variance_M + 2 * (1 - lag / (self._lags + 1)) * cross_M * pairs_M / count_M
        return np.asarray(np.sqrt(np.maximum(variance_M, 1e-18) / count_M))

    @property
    def t_M(self) -> FloatArray:
        """`mean_M` in its errors."""
        return self.mean_M / np.maximum(self.error_M, 1e-12)


class Records:
    """Running averages over the resolved eras; entry n of every list holds what n resolved eras say.

    Everything is a function of the history alone, so that it is rebuilt, not stored.

    Args:
        size: models of the pool; config: the [gate] section; aim: what is paid; horizon: eras that a label spans.

    Attributes:
        standing: who is worse than the pool.
        ridge: of the agreement inputs, in units of the predictions' variance.
    """

    ridge = RIDGE

    def __init__(self, size: int, config: GateConfig, aim: str, horizon: int) -> None:
        self._config, self._paid, self._horizon = config, PAID_BY[aim], horizon
        self.reset(size)

    def reset(self, size: int) -> None:
        """Forget everything and start with a pool of `size` models."""
        self._means = [Average.zeros((size,), half_life) for half_life in HALF_LIVES]
        self._ridge_c = {name: Average.zeros((size,), half_life) for name, half_life in RIDGES.items()}
        self._agreement = Average.zeros((size, size), AGREEMENT_HALF_LIFE)
        self._dispersion = Average.zeros((size,), max(HALF_LIVES))
        self._plain = Average.zeros((size,), float("inf"))
        self._noise = Average.zeros((1,), AGREEMENT_HALF_LIFE)
        self.standing = Standing(size, self._horizon)
        nobody = np.zeros(size, dtype=bool)
        self.seen_NM: list[BoolArray] = [nobody]
        self.means_NMH: list[FloatArray] = [np.zeros((size, len(HALF_LIVES)))]
        self._lagged_N: list[dict[str, FloatArray]] = [{name: np.full(size, 1.0 / size) for name in LAGGED}]
        self.signal_NM: list[FloatArray] = [np.zeros(size)]
        self.dispersion_NM: list[FloatArray] = [np.zeros(size)]

    def add(self, history: History, position: int) -> None:
        """Take in the resolved era at `position`."""
        present_M, c_M = history.row("present", position), history.row(self._paid, position)
        C_MM = history.row("C", position)
        self._agreement.add(C_MM, present_M[:, None] & present_M[None, :])
        # How far an era's c is from its long-run mean, in units of C.
        rest_M = np.where(present_M, c_M - self._plain.mean, 0.0)
        power = rest_M @ np.linalg.solve(self.agreement_MM + STABLE * np.eye(len(c_M)), rest_M) / len(c_M)
        self._noise.add(np.array([power]), np.array([bool(present_M.any()) and len(self.seen_NM) > self._horizon]))
        for average in (*self._means, *self._ridge_c.values(), self._plain):
            average.add(c_M, present_M)
        self._dispersion.add(np.log(np.maximum(history.row("dispersion", position), 1e-12)), present_M)
        self.standing.add(c_M, C_MM, present_M)
        self._record(self.seen_NM[-1] | present_M)

    def _record(self, seen_M: BoolArray) -> None:
        self.seen_NM.append(seen_M)
        self.means_NMH.append(np.column_stack([average.mean for average in self._means]))
        C_MM = self.agreement_MM
        lagged = {
            "screened": normalise(np.ones(len(seen_M)), seen_M & ~self.standing.out_M),
            "best_single": normalise(np.eye(len(seen_M))[int(np.argmax(self._plain.mean))], seen_M),
        }
        for name, average in self._ridge_c.items():
            # As if eras were independent: shrinking by the noise of overlapping labels loses 3 to 5e-4 on real series,
            # and gains nothing where nothing is to be learnt, since equal weight is an expert too.
            noise = float(self._noise.mean[0] * average.error.mean())
            expected_M = shrunk(np.where(seen_M, average.mean, 0.0), C_MM, noise)
            lagged[name] = ridge_weights(np.where(seen_M, expected_M, 0.0), C_MM, RIDGE, seen_M)
        self._lagged_N.append(lagged)
        self.signal_NM.append(np.where(seen_M, self._ridge_c["ridge"].mean, 0.0))
        self.dispersion_NM.append(self._dispersion.mean)

    @property
    def agreement_MM(self) -> FloatArray:
        """Mean agreement of the models' predictions over past eras; the identity before the first."""
        mean_MM = self._agreement.mean
        return np.asarray(mean_MM + np.diag((np.diag(mean_MM) <= 0).astype(np.float64)))

    def lagged(self, known: int) -> dict[str, FloatArray]:
        """Weights of every way in `LAGGED` when `known` eras are resolved, [M] each; 0 for models never seen."""
        return self._lagged_N[known]

    def chosen(self, known: int) -> list[FloatArray]:
        """Weights of the ridges that the network reads, [M] each; 0 for models never seen."""
        return [self._lagged_N[known][name] for name in ("ridge", "ridge_all")]


def comparator_weights(records: Records, known: int, dispersion_M: FloatArray) -> dict[str, FloatArray]:
    """Weights of the comparators when `known` eras are resolved: each float64 [M], sum 1.

    equal_weight; raw_average (weights by prediction spread, as averaging raw predictions does); and the ways in
    `LAGGED`. Equal weight stands in where nothing is resolved.
    """
    size = len(dispersion_M)
    return {
        "equal_weight": np.full(size, 1.0 / size),
        "raw_average": normalise(dispersion_M, np.ones(size, dtype=bool)),
        **{name: with_newcomers(row_M, records.seen_NM[known]) for name, row_M in records.lagged(known).items()},
    }
