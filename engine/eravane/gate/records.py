"""Statistics of resolved eras by base model: lagged scores, weights from them, and models worse than the pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.gate.experts import Average, normalise, slope
from eravane.gate.outcomes import PAID_BY, History
from eravane.gate.portable_weights import with_newcomers

# Half-lives of the lagged scores that the network reads, in resolved eras; memory matters little (16 to 128: within
# 3e-4 of each other on real series), so these are no setting.
HALF_LIVES = (4.0, 16.0, 64.0)
# Which of them stands for what a model pays at present.
SIGNAL = 1
# Ridge per model, in units of the predictions' variance: the more models, the more directions of C that noise fills.
RIDGE = 0.015
AGREEMENT_HALF_LIFE = 64.0
# Ways to weigh models by their own records alone, beside equal weight.
LAGGED = ("screened", "best_single")
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
    """Running averages over the resolved eras; entry n of every list is computed from n resolved eras.

    Everything is a function of the history alone, so that it is rebuilt, not stored.

    Args:
        size: models of the pool; aim: what is paid; horizon: eras that a label spans.

    Attributes:
        standing: who is worse than the pool.
        ridge: of the network's agreement inputs, in units of the predictions' variance.
    """

    def __init__(self, size: int, aim: str, horizon: int) -> None:
        self._paid, self._horizon = PAID_BY[aim], horizon
        self.reset(size)

    def reset(self, size: int) -> None:
        """Forget everything and start with a pool of `size` models."""
        self.ridge = RIDGE * size
        self._means = [Average.zeros((size,), half_life) for half_life in HALF_LIVES]
        self._agreement = Average.zeros((size, size), AGREEMENT_HALF_LIFE)
        self._dispersion = Average.zeros((size,), max(HALF_LIVES))
        self._plain = Average.zeros((size,), float("inf"))
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
        for average in (*self._means, self._plain):
            average.add(c_M, present_M)
        self._dispersion.add(np.log(np.maximum(history.row("dispersion", position), 1e-12)), present_M)
        self.standing.add(c_M, C_MM, present_M)
        self._record(self.seen_NM[-1] | present_M)

    def _record(self, seen_M: BoolArray) -> None:
        self.seen_NM.append(seen_M)
        self.means_NMH.append(np.column_stack([average.mean for average in self._means]))
        self._lagged_N.append(
            {
                "screened": normalise(np.ones(len(seen_M)), seen_M & ~self.standing.out_M),
                "best_single": normalise(np.eye(len(seen_M))[int(np.argmax(self._plain.mean))], seen_M),
            }
        )
        self.signal_NM.append(np.where(seen_M, self._means[SIGNAL].mean, 0.0))
        self.dispersion_NM.append(self._dispersion.mean)

    @property
    def agreement_MM(self) -> FloatArray:
        """Mean agreement of the models' predictions over past eras; the identity before the first."""
        mean_MM = self._agreement.mean
        return np.asarray(mean_MM + np.diag((np.diag(mean_MM) <= 0).astype(np.float64)))

    def chosen(self, known: int) -> list[FloatArray]:
        """Weights that the network reads beside lagged scores, [M] each: none; edition 1 had some."""
        return []

    def lagged(self, known: int) -> dict[str, FloatArray]:
        """Weights of every way in `LAGGED` when `known` eras are resolved, [M] each; 0 for models never seen."""
        return self._lagged_N[known]


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
