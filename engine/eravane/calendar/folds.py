"""Purged walk-forward folds on integer eras, as Numerai's benchmark models cut them."""

from __future__ import annotations

from dataclasses import dataclass

from eravane.core.errors import ConfigError


@dataclass(frozen=True)
class Fold:
    """Train on eras `train_first..train_last`, predict eras `predict_first..predict_last`, all inclusive."""

    train_first: int
    train_last: int
    predict_first: int
    predict_last: int

    def train_last_at(self, tree_lag: int) -> int:
        """Newest training era of a target with another lag than the fold was cut for."""
        return self.predict_first - tree_lag

    @property
    def name(self) -> str:
        """Text of the fold in logs and cache keys."""
        return f"{self.train_first}-{self.train_last}>{self.predict_first}-{self.predict_last}"

    @classmethod
    def from_name(cls, name: str) -> Fold:
        """Read a `name` back."""
        return cls(*(int(era) for part in name.split(">") for era in part.split("-")))


def walk_forward(
    first_era: int,
    last_era: int,
    *,
    chunk: int,
    tree_lag: int,
    newest: int = 0,
    window: int = 0,
    minimum: int = 1,
) -> list[Fold]:
    """Cut eras into chunks; each chunk is predicted from the eras at least `tree_lag` before its first era.

    With chunk 156 and tree_lag 9 this is Numerai's table: train 1-148 predict 157-312, train 1-304 predict 313-468,
    ... (numerai docs, benchmark models). The last chunk ends at `last_era`, however short it is.

    Args:
        first_era, last_era: eras to cut, inclusive.
        chunk: eras predicted per fold.
        tree_lag: a fold trains on eras up to `predict_first - tree_lag`: the purge plus one.
        newest: keep only this many of the newest folds (0: all).
        window: train on this many eras at most (0: all).
        minimum: fewest eras a fold may train on; folds with fewer are left out.

    Raises:
        ConfigError: not one fold has enough training eras.
    """
    folds: list[Fold] = []
    for predict_first in range(first_era + chunk, last_era + 1, chunk):
        train_last = predict_first - tree_lag
        train_first = max(first_era, train_last - window + 1) if window else first_era
        if train_last - train_first + 1 >= minimum:
            predict_last = min(predict_first + chunk - 1, last_era)
            folds.append(Fold(train_first, train_last, predict_first, predict_last))
    if not folds:
        raise ConfigError(
            f"eras {first_era} to {last_era} are too few for one walk-forward fold: it needs {chunk} eras "
            f"(zoo.fold_eras) that leave {minimum} training eras (zoo.minimum_eras) after a purge of {tree_lag - 1}; "
            "lower zoo.fold_eras or zoo.minimum_eras, or start the loop later (time.loop_start, time.loop_eras)"
        )
    return folds[-newest:] if newest else folds
