"""When a label may be used: the one place that knows the tournament's delays.

The label of era s is usable at era t if and only if `s <= t - lag`. Scores and weights use the score lag, anything
that fits trees the tree lag (the purge of Numerai's benchmark models plus one).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# A target over h eras (20 days: 4, 60 days: 12) is known h + 1 weeks later with two days of data delay; one more week
# is what the literature and Numerai's own tools keep (numerai docs; Wong and Barahona 2023, b2 = 6).
SCORE_MARGIN = 2
# Numerai's benchmark models purge 8 eras for 20-day and 16 for 60-day targets: the lag is the purge plus one.
TREE_MARGIN = 5
DAYS_PER_ERA = 5
DEFAULT_HORIZON = 4


def horizon_of(target: str, horizon_eras: int = 0) -> int:
    """Eras that a target's return spans: from its suffix (`_20`: 4, `_60`: 12), else `horizon_eras`, else 4."""
    suffix = re.search(r"_(\d+)$", target)
    if suffix and int(suffix.group(1)) % DAYS_PER_ERA == 0:
        return int(suffix.group(1)) // DAYS_PER_ERA
    return horizon_eras or DEFAULT_HORIZON


@dataclass(frozen=True)
class Clock:
    """The two lags of one target, in eras.

    Attributes:
        score_lag: lag for scores, weights and the gate (6 for 20-day targets, 14 for 60-day ones).
        tree_lag: lag for everything that fits trees (9 and 17).
        minimum_score_lag, minimum_tree_lag: the smallest lags at which nothing leaks.
        observed_lag: lag between the live era and the newest label in the file.
    """

    score_lag: int
    tree_lag: int
    minimum_score_lag: int
    minimum_tree_lag: int
    observed_lag: int = 0

    @classmethod
    def for_target(
        cls,
        target: str,
        *,
        horizon_eras: int = 0,
        observed_lag: int = 0,
        score_lag: int | None = None,
        tree_lag: int | None = None,
    ) -> Clock:
        """Derive the lags of a target.

        Args:
            target: column name; its suffix gives the horizon.
            horizon_eras: horizon of targets without a suffix, eras.
            observed_lag: lag seen in the data file; the larger of it and the rule counts.
            score_lag, tree_lag: explicit lags that replace both; below the minimum the run is stamped as leaking.
        """
        horizon = horizon_of(target, horizon_eras)
        least_score, least_tree = horizon + SCORE_MARGIN, horizon + TREE_MARGIN
        return cls(
            score_lag=max(least_score, observed_lag) if score_lag is None else score_lag,
            tree_lag=max(least_tree, observed_lag) if tree_lag is None else tree_lag,
            minimum_score_lag=least_score,
            minimum_tree_lag=least_tree,
            observed_lag=observed_lag,
        )

    @property
    def leaking(self) -> bool:
        """Whether a lag is shorter than the labels need."""
        return self.score_lag < self.minimum_score_lag or self.tree_lag < self.minimum_tree_lag

    @property
    def purge(self) -> int:
        """Eras left out between the last training era and the first predicted one."""
        return self.tree_lag - 1

    @property
    def horizon(self) -> int:
        """Eras that a label spans."""
        return self.minimum_score_lag - SCORE_MARGIN

    @property
    def hac_lag(self) -> int:
        """Bartlett lag for means over eras: twice the horizon (8 for 20 days, 16 was set for 60)."""
        return 8 if self.horizon <= DEFAULT_HORIZON else 16

    def newest_score(self, era: int) -> int:
        """Newest era whose label may enter scores and weights at `era`."""
        return era - self.score_lag

    def newest_tree_label(self, era: int) -> int:
        """Newest era whose label may enter trees that predict `era`."""
        return era - self.tree_lag


@dataclass(frozen=True)
class KnownAt:
    """Labels that came later than the lags say, as the weekly steps of a run saw them.

    A replay over data that hold every label by now must not use one before the run did.

    Attributes:
        eras: target -> era of the label -> first era that could use it; labels not listed follow the lags alone.
    """

    eras: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def hidden(self, target: str, at: int, eras: Iterable[int]) -> tuple[int, ...]:
        """Those of `eras` whose label was not there yet when era `at` was predicted."""
        late = self.eras.get(target, {})
        return tuple(era for era in eras if late.get(era, 0) > at)

    def of(self, target: str, era: int) -> int:
        """First era that could use the label of `era`, as far as its arrival decides; 0 where the lags alone do."""
        return self.eras.get(target, {}).get(era, 0)

    def with_arrivals(self, target: str, arrived: Iterable[int], at: int) -> KnownAt:
        """The same with labels that arrived in time for era `at`, for the first time or once more."""
        return KnownAt({**self.eras, target: {**self.eras.get(target, {}), **dict.fromkeys(arrived, at)}})

    def as_dict(self) -> dict[str, dict[str, int]]:
        """For JSON."""
        return {
            target: {str(era): at for era, at in sorted(late.items())} for target, late in sorted(self.eras.items())
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Mapping[str, int]]) -> KnownAt:
        """Read what `as_dict` gave."""
        return cls({target: {int(era): at for era, at in late.items()} for target, late in content.items()})
