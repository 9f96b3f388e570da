"""Payout rules of the tournament: the one definition of the payout mix, as a dated table.

A round pays `stake * clip(factor * (corr * CORR + mmc * MMC), -clip, +clip)` with CORR and MMC of the rule's horizon
(docs.numer.ai, staking; the multipliers of a round stand in `roundScoreConfigs` of the API).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from eravane.calendar.horizon import Horizon
from eravane.core.arrays import Floats
from eravane.core.errors import ConfigError

Scores = TypeVar("Scores", float, Floats)


@dataclass(frozen=True)
class PayoutRule:
    """Payout of the rounds from one on.

    Attributes:
        from_round: first round that pays so; 0 where a configuration sets it.
        since: date on which that round opened, ISO 8601; "" where it is not known.
        corr, mmc: multipliers of CORR and MMC.
        horizon: trading days of the scores that are paid.
        clip: largest gain and loss, as a share of the stake.
        factor: payout factor of the round; None where it is set by the stakes of the day.
        source: where the rule comes from: "table" (with what is not from a source), "tournament" (with the date of
            reading) or "configuration".
    """

    from_round: int
    since: str
    corr: float
    mmc: float
    horizon: int
    clip: float
    factor: float | None
    source: str = "table"

    def mix(self, corr: Scores, mmc: Scores) -> Scores:
        """The payout mix of scores, before factor and clip: multiplier-weighted sum of CORR and MMC."""
        return self.corr * corr + self.mmc * mmc

    def paid(self, corr_E: ArrayLike, mmc_E: ArrayLike) -> Floats:
        """Earnings of a stake of 1 with scores [E]; a factor that is not known counts as 1."""
        mix_E = self.mix(np.asarray(corr_E, dtype=np.float64), np.asarray(mmc_E, dtype=np.float64))
        return np.asarray(np.clip((1.0 if self.factor is None else self.factor) * mix_E, -self.clip, self.clip))

    def formula(self) -> str:
        """The rule's mix: "3 CORR60 + 15 MMC60"."""
        return f"{self.corr:g} CORR{self.horizon} + {self.mmc:g} MMC{self.horizon}"

    def sentence(self) -> str:
        """The rule with its round, clip and source."""
        since = f", since {self.since}" if self.since else ""
        rounds = f"round {self.from_round}{since}" if self.from_round else "every round"
        return f"{self.formula()}, at most {self.clip:.0%} of the stake; {rounds} ({self.source})"

    def pays(self, span: Horizon) -> bool:
        """Whether scores on labels of this length are paid."""
        return span.days == self.horizon

    def as_dict(self) -> dict[str, object]:
        """The rule as a JSON-able dictionary."""
        return asdict(self)

    def as_json(self) -> bytes:
        """The same as a JSON file."""
        return (json.dumps(self.as_dict(), indent=2) + "\n").encode()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PayoutRule:
        """Read what `as_dict` gave.

        Raises:
            TypeError, KeyError, ValueError: it is something else.
        """
        factor = content["factor"]
        return cls(
            from_round=int(content["from_round"]),
            since=str(content["since"]),
            corr=float(content["corr"]),
            mmc=float(content["mmc"]),
            horizon=int(content["horizon"]),
            clip=float(content["clip"]),
            factor=None if factor is None else float(factor),
            source=str(content["source"]),
        )


# Dates and multipliers: numerai docs (2024-01, 2026-03); round 1343: the API, read by others on 2026-09-26 (up to 1342
# it stated .75 and 2.25). No source numbers the first rounds of the older rules: five rounds a week, from Tuesday to
# Saturday, lead from round 1343 on Friday 2026-08-28 back to these, over round 1329 on 2026-08-08, which is sourced.
COUNTED = "table; first round counted back from 1343"
RULES = (
    PayoutRule(650, "2024-01-02", 0.5, 2.0, 20, 0.05, None, COUNTED),
    PayoutRule(1172, "2026-01-01", 0.75, 2.25, 20, 0.05, None, COUNTED),
    PayoutRule(1343, "2026-08-28", 3.0, 15.0, 60, 1.0, 1.0),
)


def rule_of(round_number: int) -> PayoutRule:
    """The rule of the table for a round; the oldest for rounds before it."""
    return next((rule for rule in reversed(RULES) if rule.from_round <= round_number), RULES[0])


def rule_in_force(corr: float | None = None, mmc: float | None = None, current: PayoutRule | None = None) -> PayoutRule:
    """The rule that a run counts with.

    Args:
        corr, mmc: multipliers that the configuration sets; None takes the rule's.
        current: the rule as the tournament has it; None takes the newest of the table.

    Raises:
        ConfigError: neither score would be paid.
    """
    rule = RULES[-1] if current is None else current
    if corr is None and mmc is None:
        return rule
    corr, mmc = rule.corr if corr is None else corr, rule.mmc if mmc is None else mmc
    if corr == mmc == 0:
        raise ConfigError("selection.corr_multiplier and selection.mmc_multiplier are both 0; set one of them above 0")
    return replace(rule, from_round=0, since="", corr=corr, mmc=mmc, source="configuration")


# What the gates of runs without a noted rule were trained on: constants until the table came.
BEFORE_TABLE = rule_of(1342)


def noted_rule(content: Mapping[str, Any]) -> PayoutRule:
    """The rule that a manifest or a gate's state notes under `payout`; without one that of runs before the table."""
    noted = content.get("payout")
    return BEFORE_TABLE if noted is None else PayoutRule.from_dict(noted)
