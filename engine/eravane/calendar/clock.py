"""Lags after which a label may be used.

The label of era s is usable at era t if and only if `s <= t - lag`. Scores and weights use the score lag, anything
that fits trees the tree lag (the purge of Numerai's benchmark models plus one); both follow from the horizon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from eravane.calendar.horizon import Horizon


@dataclass(frozen=True)
class Clock:
    """The two lags of one target, in eras.

    Attributes:
        span: how long its labels are, and the smallest lags at which nothing leaks.
        score_lag: lag for scores, weights and the gate (6 for 20-day targets, 14 for 60-day ones).
        tree_lag: lag for everything that fits trees (9 and 17).
        observed_lag: lag between the live era and the newest label in the file.
        stated_hac_lag: Bartlett lag that an older run began with (0: that of the horizon).
    """

    span: Horizon
    score_lag: int
    tree_lag: int
    observed_lag: int = 0
    stated_hac_lag: int = 0

    @classmethod
    def of(
        cls, span: Horizon, *, observed_lag: int = 0, score_lag: int | None = None, tree_lag: int | None = None
    ) -> Clock:
        """The lags of labels of some length.

        Args:
            span: how long the labels are.
            observed_lag: lag seen in the data file; the larger of it and the rule counts.
            score_lag, tree_lag: explicit lags that replace both; below the minimum the run is stamped as leaking.
        """
        return cls(
            span=span,
            score_lag=max(span.score_lag, observed_lag) if score_lag is None else score_lag,
            tree_lag=max(span.tree_lag, observed_lag) if tree_lag is None else tree_lag,
            observed_lag=observed_lag,
        )

    @property
    def leaking(self) -> bool:
        """Whether a lag is shorter than the labels need."""
        return self.score_lag < self.span.score_lag or self.tree_lag < self.span.tree_lag

    @property
    def purge(self) -> int:
        """Eras left out between the last training era and the first predicted one."""
        return self.tree_lag - 1

    @property
    def hac_lag(self) -> int:
        """Bartlett lag for means over eras (8 for 20 days, 16 for 60)."""
        return self.stated_hac_lag or self.span.hac_lag

    def newest_score(self, era: int) -> int:
        """Newest era whose label may enter scores and weights at `era`."""
        return era - self.score_lag


@dataclass(frozen=True)
class KnownAt:
    """Labels that arrived later than the lags, as recorded by the weekly steps of a run.

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
        """The eras as a JSON-able dictionary."""
        return {
            target: {str(era): at for era, at in sorted(late.items())} for target, late in sorted(self.eras.items())
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Mapping[str, int]]) -> KnownAt:
        """Read what `as_dict` gave."""
        return cls({target: {int(era): at for era, at in late.items()} for target, late in content.items()})
