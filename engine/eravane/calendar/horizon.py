"""How long labels are, and all that follows from it: lags, purge, Bartlett lag, overlap; the one place that knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eravane.core.errors import ConfigError

DAYS_PER_ERA = 5
# A target over h eras (20 days: 4, 60 days: 12) is known h + 1 weeks later with two days of data delay; one more week
# is what the literature and Numerai's own tools keep (numerai docs; Wong and Barahona 2023, b2 = 6).
SCORE_MARGIN = 2
# Numerai's benchmark models purge 8 eras for 20-day and 16 for 60-day targets: the lag is the purge plus one.
TREE_MARGIN = 5
# Rounds open on five days a week; one that spans d trading days, with its delays, is open beside d + 4 others.
ROUND_MARGIN = 4
_SUFFIX = re.compile(r"_(\d+)$")


@dataclass(frozen=True)
class Horizon:
    """Length of a label.

    Attributes:
        eras: eras (weeks) that the label's return spans: 4 for 20-day targets, 12 for 60-day ones.
    """

    eras: int

    @classmethod
    def of_days(cls, days: int) -> Horizon:
        """The horizon of labels over `days` trading days, a multiple of five."""
        return cls(days // DAYS_PER_ERA)

    @classmethod
    def named(cls, target: str) -> Horizon | None:
        """The horizon that a target's suffix states (`_20`: 4 eras, `_60`: 12 eras); None without such a suffix."""
        suffix = _SUFFIX.search(target)
        days = int(suffix.group(1)) if suffix else 0
        return cls.of_days(days) if days and days % DAYS_PER_ERA == 0 else None

    @classmethod
    def required(cls, target: str, horizon_eras: int = 0, remedy: str = "set data.horizon_eras") -> Horizon:
        """The horizon by suffix, else `horizon_eras`.

        Raises:
            ConfigError: neither is there; the message ends with the remedy.
        """
        named = cls.named(target)
        if named is None and not horizon_eras:
            raise ConfigError(
                f"how long the labels of {target!r} are cannot be seen in the name (no suffix such as _20 or _60): "
                f"{remedy} (4 for 20 days, 12 for 60; in Numerai's v5.3 `target` is target_ender_60)"
            )
        return named or cls(horizon_eras)

    @property
    def days(self) -> int:
        """Trading days that the label spans."""
        return self.eras * DAYS_PER_ERA

    @property
    def score_lag(self) -> int:
        """Smallest lag at which a label may enter scores and weights, eras (6 for 20 days, 14 for 60)."""
        return self.eras + SCORE_MARGIN

    @property
    def tree_lag(self) -> int:
        """Smallest lag at which a label may enter anything that fits trees, eras (9 for 20 days, 17 for 60)."""
        return self.eras + TREE_MARGIN

    @property
    def purge(self) -> int:
        """Eras left out between the last training era and the first predicted one (8 for 20 days, 16 for 60)."""
        return self.tree_lag - 1

    @property
    def hac_lag(self) -> int:
        """Bartlett lag for means over eras (8 for 20 days, 16 for 60)."""
        return self.purge

    @property
    def empty_eras(self) -> int:
        """Newest eras of a fresh validation file that have no label yet (5 for 20 days, 13 for 60)."""
        return self.eras + 1

    @property
    def overlapping_rounds(self) -> int:
        """Daily rounds whose scores share returns with one round's (24 for 20 days, 64 for 60)."""
        return self.days + ROUND_MARGIN

    def __str__(self) -> str:
        return f"{self.days} days"


@dataclass(frozen=True)
class TargetHorizon:
    """How long the labels of one target column are, and how that is known.

    Attributes:
        target: the column.
        span: its horizon.
        how: "name" (its suffix), "twin" (it equals the column `twin`), "empty eras" (as many of the newest eras lack it
            as labels of that length do) or "configuration" (`data.horizon_eras`).
        twin: the column that it equals, "" where there is none.
        notes: what in the file speaks against it, as sentences.
    """

    target: str
    span: Horizon
    how: str
    twin: str = ""
    notes: tuple[str, ...] = ()

    def sentence(self, score_lag: int, tree_lag: int) -> str:
        """The line on a run's target: "target = target_ender_60, 60 days: lags 14 and 17, purge 16"."""
        name = f"{self.target} = {self.twin}" if self.twin else self.target
        known = {"configuration": " (data.horizon_eras)", "empty eras": " (by its newest, empty eras)"}.get(
            self.how, ""
        )
        return f"{name}, {self.span}{known}: lags {score_lag} and {tree_lag}, purge {tree_lag - 1}"

    def as_dict(self) -> dict[str, object]:
        """The facts as a JSON-able dictionary: target, twin, eras, days, how, notes."""
        return {
            "target": self.target,
            "twin": self.twin,
            "eras": self.span.eras,
            "days": self.span.days,
            "how": self.how,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TargetHorizon:
        """Read what `as_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        span, notes = Horizon(int(content["eras"])), tuple(map(str, content["notes"]))
        return cls(str(content["target"]), span, str(content["how"]), str(content["twin"]), notes)
