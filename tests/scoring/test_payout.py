"""The payout rules: the published table, what a stake earns, and what a configuration may change."""

from __future__ import annotations

import numpy as np
import pytest

from eravane.calendar.horizon import Horizon
from eravane.core.errors import ConfigError
from eravane.scoring.payout import RULES, PayoutRule, rule_in_force, rule_of


@pytest.mark.parametrize(
    ("number", "corr", "mmc", "days", "clip"),
    [(700, 0.5, 2.0, 20, 0.05), (1342, 0.75, 2.25, 20, 0.05), (1343, 3.0, 15.0, 60, 1.0), (1400, 3.0, 15.0, 60, 1.0)],
)
def test_each_round_has_the_rule_of_its_date(number: int, corr: float, mmc: float, days: int, clip: float) -> None:
    rule = rule_of(number)
    assert (rule.corr, rule.mmc, rule.horizon, rule.clip) == (corr, mmc, days, clip)
    assert [rule.from_round for rule in RULES] == sorted(rule.from_round for rule in RULES)


def test_first_rounds_follow_from_the_calendar() -> None:
    """Rounds open on five days a week, Tuesday to Saturday; round 1329 opened on 2026-08-08."""
    for rule in (*RULES, PayoutRule(1329, "2026-08-08", 1.0, 1.0, 20, 0.05, None)):
        assert 1343 - np.busday_count(rule.since, "2026-08-28", weekmask="0111110") == rule.from_round
    assert [("counted back" in rule.sentence()) for rule in RULES] == [True, True, False]


def test_a_stake_earns_the_clipped_mix() -> None:
    rule = PayoutRule(1, "", 0.75, 2.25, 20, 0.05, 0.5)
    corr_E, mmc_E = np.array([0.02, 0.2, -0.3]), np.array([0.01, 0.1, -0.1])
    np.testing.assert_allclose(rule.mix(corr_E, mmc_E), [0.0375, 0.375, -0.45])
    np.testing.assert_allclose(rule.paid(corr_E, mmc_E), [0.01875, 0.05, -0.05])
    assert rule_of(1343).paid(0.02, 0.01) == pytest.approx(0.21)


def test_only_scores_of_the_rules_horizon_are_paid() -> None:
    assert rule_of(1343).pays(Horizon(12))
    assert not rule_of(1343).pays(Horizon(4))
    assert rule_of(1342).pays(Horizon(4))


def test_a_configuration_overrides_multipliers_and_says_so() -> None:
    assert rule_in_force() == RULES[-1]
    changed = rule_in_force(corr=1.0)
    assert (changed.corr, changed.mmc, changed.source, changed.horizon) == (1.0, RULES[-1].mmc, "configuration", 60)
    newer = PayoutRule(1400, "2026-12-01", 1.0, 5.0, 60, 0.5, 1.0, "tournament, 2026-12-02")
    assert rule_in_force(current=newer) == newer
    with pytest.raises(ConfigError, match="both 0"):
        rule_in_force(0.0, 0.0)


def test_a_rule_survives_json() -> None:
    for rule in RULES:
        assert PayoutRule.from_dict(rule.as_dict()) == rule
