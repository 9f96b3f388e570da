"""The rules in force, each with where it comes from."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from eravane.calendar.horizon import Horizon, TargetHorizon
from eravane.core.config import RunConfig, load_config
from eravane.core.errors import RunError, SubmitError
from eravane.core.files import Place
from eravane.scoring.payout import RULES, PayoutRule, rule_in_force
from eravane.tournament import connect
from eravane.tournament.credentials import switched_off
from eravane.tournament.images import PINS
from eravane.tournament.rules import ASK_S, ask_rule

if TYPE_CHECKING:
    from eravane.tournament.client import Client

TABLE = "built-in table"


@dataclass(frozen=True)
class Rule:
    """One rule: its name, its value, and where it comes from."""

    name: str
    value: str
    source: str


def rules(config: Place | None = None, run: Place | None = None, *, client: Client | None = None) -> list[Rule]:
    """Round, payout, target, horizon, lags, overlap and hosted image.

    Args:
        config: TOML configuration whose multipliers override the rule.
        run: run folder whose target, horizon and rule are shown.
        client: the tournament's API; None connects, and where it does not answer the built-in table is shown.

    Raises:
        ConfigError: the configuration is wrong.
        RunError: the run folder has no manifest.
    """
    settings = RunConfig() if config is None else load_config(Path(config))
    found, current = _asked(client)
    if run is None:
        chosen = settings.selection
        horizon, rule = None, rule_in_force(chosen.corr_multiplier, chosen.mmc_multiplier, current)
        source = TABLE if rule.source == "table" else rule.source
    else:
        horizon, rule = _of_run(Path(run))
        source = f"{run}, {rule.source}"
    return [*found, *_payout(rule, source), *_horizon(horizon, rule, source, run), _image()]


def _payout(rule: PayoutRule, source: str) -> list[Rule]:
    factor = "set by the stakes of the day" if rule.factor is None else f"{rule.factor:g}"
    return [
        Rule("payout", rule.formula(), source),
        Rule("clip", f"{rule.clip:.0%} of the stake", source),
        Rule("payout factor", factor, source),
        Rule("in force from", f"round {rule.from_round} {rule.since}".rstrip() if rule.from_round else "-", source),
        *(
            Rule(f"payout before {new.from_round}", f"{old.formula()}, from {old.from_round}", f"built-in {old.source}")
            for old, new in pairwise(RULES)
        ),
    ]


def _horizon(horizon: TargetHorizon | None, rule: PayoutRule, source: str, run: Place | None) -> list[Rule]:
    if horizon is None:
        span, how = Horizon.of_days(rule.horizon), f"what is paid ({source})"
        target = Rule("target", "-", "the data decide: `eravane plan DATA`, `eravane doctor DATA`")
    else:
        span, how = horizon.span, f"{run}, by {horizon.how}"
        target = Rule("target", f"{horizon.target} = {horizon.twin}" if horizon.twin else horizon.target, how)
    lags = f"{span.score_lag} and {span.tree_lag} eras, purge {span.purge}"
    return [
        target,
        Rule("horizon", f"{span}, {span.eras} eras", how),
        Rule("lags of scores and trees", lags, "the horizon"),
        Rule("Bartlett lag", f"{span.hac_lag} eras", "the horizon"),
        Rule("overlap", f"{span.overlapping_rounds} daily rounds", "the horizon"),
    ]


def _image() -> Rule:
    minor = sys.version_info.minor
    pins = ", ".join(f"{name} {version}" for name, version in PINS.get(minor, {}).items())
    return Rule("hosted image", f"Python 3.{minor}: {pins or 'unknown'}", "this Python; numerai-predict, 2026-07")


def _asked(client: Client | None) -> tuple[list[Rule], PayoutRule | None]:
    """The current round and its rule, as far as the tournament answers."""
    if client is None and switched_off():
        return [Rule("round", "not asked", "the tournament is switched off")], None
    try:
        client = client or connect(ASK_S)
        current, rule = client.current_round(), ask_rule(client)
    except SubmitError as error:
        return [Rule("round", "unknown", str(error)), Rule("newest rule", RULES[-1].sentence(), TABLE)], None
    if current is None:
        return [Rule("round", "none is open", "tournament")], rule
    opened = f"{current.number}, stakes until {current.stakes_until:%Y-%m-%d %H:%M} UTC"
    return [Rule("round", opened, "tournament")], rule


def _of_run(run: Path) -> tuple[TargetHorizon, PayoutRule]:
    try:
        noted = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        return TargetHorizon.from_dict(noted["horizon"]), PayoutRule.from_dict(noted["payout"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{run} has no manifest that names horizon and payout; give a run of this version") from None
