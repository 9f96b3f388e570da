"""Purged walk-forward splits by era, for scikit-learn's cross-validation and for use on their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseCrossValidator

from eravane.calendar.eras import era_numbers
from eravane.calendar.folds import Fold, walk_forward
from eravane.calendar.horizon import Horizon
from eravane.core.errors import ConfigError, DataError

# Numerai's benchmark models predict 156 eras, three years, per fold.
LONGEST_CHUNK = 156


class WalkForwardSplit(BaseCrossValidator):  # type: ignore[misc]
    """Walk-forward splits: every test chunk is predicted from eras that lie before it by more than a purge.

    The last test chunk ends with the newest era; a chunk is left out where a gap in the eras leaves it nothing to train
    on. Pass the era of every row as `groups`.

    Args:
        n_splits: newest folds to use (0: all).
        chunk: eras per test chunk (0: `even_chunk`).
        purge: eras left out between training and test; None takes that of the labels' length, 8 for 20-day targets
            and 16 for 60-day ones (Numerai's benchmark models).
        target: target column, whose suffix (_20, _60) gives its horizon.
        horizon_eras: eras that a label spans (4 for 20 days, 12 for 60), where neither purge nor the name gives it.
        window: newest eras to train on (0: all).
        minimum: fewest eras to train on.
    """

    # scikit-learn hands `groups` to the splitter where metadata routing is switched on.
    __metadata_request__split: ClassVar[dict[str, bool]] = {"groups": True}

    def __init__(
        self,
        n_splits: int = 4,
        *,
        chunk: int = 0,
        purge: int | None = None,
        target: str = "target",
        horizon_eras: int = 0,
        window: int = 0,
        minimum: int = 1,
    ) -> None:
        self.n_splits, self.chunk, self.purge = n_splits, chunk, purge
        self.target, self.horizon_eras = target, horizon_eras
        self.window, self.minimum = window, minimum

    def folds(self, groups: ArrayLike | None) -> list[Fold]:
        """The folds of these eras.

        Raises:
            DataError: no eras were given, or no numbers.
            ConfigError: neither purge, nor horizon_eras, nor the target's name gives the horizon, or the eras
                are too few for one fold.
        """
        return self._cut(_eras_of(groups))

    def split(
        self, X: object, y: object = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Row numbers of training and test rows, fold by fold, the oldest first.

        Raises:
            DataError, ConfigError: as `folds`.
        """
        era_N = _eras_of(groups)
        for fold in self._cut(era_N):
            train_N = (era_N >= fold.train_first) & (era_N <= fold.train_last)
            test_N = (era_N >= fold.predict_first) & (era_N <= fold.predict_last)
            yield np.flatnonzero(train_N), np.flatnonzero(test_N)

    def get_n_splits(self, X: object = None, y: object = None, groups: ArrayLike | None = None) -> int:
        """How many folds `split` gives.

        Raises:
            DataError, ConfigError: as `folds`.
        """
        return len(self.folds(groups))

    def _cut(self, era_N: NDArray[np.int64]) -> list[Fold]:
        eras_E = np.unique(era_N)
        purge = self.purge
        if purge is None:
            purge = Horizon.required(self.target, self.horizon_eras, "give horizon_eras or purge").purge
        first, last = int(eras_E[0]), int(eras_E[-1])
        chunk = self.chunk or even_chunk(last - first + 1, self.n_splits)
        cut = walk_forward(first, last, chunk=chunk, tree_lag=purge + 1, window=self.window)
        # Eras need not be consecutive: a fold is kept where it has eras to train on and to predict.
        kept = [fold for fold in cut if _count(eras_E, fold.train_first, fold.train_last) >= max(self.minimum, 1)]
        kept = [fold for fold in kept if _count(eras_E, fold.predict_first, fold.predict_last)]
        if not kept:
            raise ConfigError(
                f"no fold of eras {first} to {last} has {self.minimum} training eras; lower minimum or chunk"
            )
        return kept[-self.n_splits :] if self.n_splits else kept


def even_chunk(eras: int, folds: int) -> int:
    """Eras per fold by default: equal parts, the first to train on alone, 156 at most."""
    return max(1, min(LONGEST_CHUNK, -(-eras // ((folds or 4) + 1))))


def _eras_of(groups: Any) -> NDArray[np.int64]:
    if groups is None:
        raise DataError("walk-forward splits need the era of every row: pass eras as `groups`")
    era_N = era_numbers(groups, len(groups))
    if not era_N.size:
        raise DataError("walk-forward splits need at least one row")
    return era_N


def _count(eras_E: NDArray[np.int64], first: int, last: int) -> int:
    return int(((eras_E >= first) & (eras_E <= last)).sum())
