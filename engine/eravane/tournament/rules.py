"""The rules that the tournament itself states: what each round pays, and over which horizon a score runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eravane.scoring.payout import PayoutRule
from eravane.tournament import connect
from eravane.tournament.credentials import switched_off

if TYPE_CHECKING:
    from eravane.tournament.client import Client

CORR, MMC = "CORR", "MMC"
# Definitions by what a metric's name holds, the more special first: `canon_mmc20` is MMC, `v2_corr20` CORR.
_KINDS = ("CWMM", "MMC", "BMC", "FNC", "CORR")
_DAYS = re.compile(r"(\d+)(?:d|_days)?$")
# A run waits no longer for a rule that the table nearly always holds as well.
ASK_S = 6.0


def kind_of(metric: str) -> str:
    """Our name of a live metric's definition: MMC of `canon_mmc20`; the metric itself where it is not one of ours."""
    name = metric.upper()
    return next((kind for kind in _KINDS if kind in name), name)


def days_of(metric: str) -> int | None:
    """Trading days that a metric's name states: 60 of `corr60`, 20 of `v2_corr20`; None without."""
    found = _DAYS.search(metric)
    days = int(found.group(1)) if found else 0
    return days if days and days % 5 == 0 else None


def rule_of(entry: Mapping[str, Any], source: str) -> PayoutRule | None:
    """The rule of a round as `list_rounds` gives it; None where it pays for neither CORR nor MMC.

    Raises:
        KeyError, TypeError, ValueError: it has another shape.
    """
    paying = [config for config in entry.get("roundScoreConfigs") or [] if config.get("isPayout")]
    multipliers, days = dict.fromkeys((CORR, MMC), 0.0), set[int]()
    clips, factors = [], []
    for config in paying:
        name = str(config.get("displayName") or config.get("name"))
        kind = kind_of(name)
        if kind not in multipliers:
            continue
        multipliers[kind] += float(config["defaultMultiplier"])
        stated = days_of(name) or config.get("totalScoreDays")
        days |= {int(stated)} if stated else set()
        clips.append(config.get("clipThreshold"))
        factors.append(config.get("payoutFactor") or entry.get("payoutFactor"))
    if not any(multipliers.values()) or not days:
        return None
    clip, factor = _first(clips), _first(factors)
    opened = entry.get("openTime")
    return PayoutRule(
        from_round=int(entry["number"]),
        since=str(opened)[:10] if opened else "",
        corr=multipliers[CORR],
        mmc=multipliers[MMC],
        horizon=max(days),
        clip=1.0 if clip is None else float(clip),
        factor=None if factor is None else float(factor),
        source=source,
    )


def rules_of(rounds: Sequence[Mapping[str, Any]], source: str) -> dict[int, PayoutRule]:
    """Round number -> its rule, of all rounds that pay."""
    found = {int(entry["number"]): rule_of(entry, source) for entry in rounds}
    return {number: rule for number, rule in sorted(found.items()) if rule is not None}


def ask_rule(client: Client | None = None) -> PayoutRule | None:
    """The rule of the newest round that pays, with the date of reading; None where the tournament names none.

    Raises:
        SubmitError: the tournament does not answer.
    """
    if client is None and switched_off():
        return None
    client = client or connect(ASK_S)
    today = datetime.now(UTC).date().isoformat()
    rounds = client.unresolved_rounds()
    rules = client.shaped("rounds", lambda: rules_of(rounds, f"tournament, {today}"))
    return rules[max(rules)] if rules else None


def _first(values: Sequence[object]) -> Any:
    return next((value for value in values if value is not None), None)
