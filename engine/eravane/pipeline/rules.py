"""Horizons of a run's targets and its payout rule, decided once, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eravane.calendar.clock import Clock
from eravane.calendar.horizon import TargetHorizon
from eravane.calendar.timeline import horizons_before
from eravane.core.config import RunConfig
from eravane.core.errors import RunError, SubmitError
from eravane.core.files import write_atomically
from eravane.data.store.store import EraStore
from eravane.data.store.targets import target_horizons
from eravane.runstate.runfolder import RunFolder
from eravane.scoring.payout import RULES, PayoutRule, noted_rule, rule_in_force
from eravane.synth import TRUTH
from eravane.tournament.rules import ask_rule

PAYOUT = "payout.json"


@dataclass(frozen=True)
class Settled:
    """Horizons and payout rule of a run.

    Attributes:
        horizons: how long the labels of each target in use are, the main one's first; empty where that is not noted.
        payout: what is paid.
    """

    horizons: Mapping[str, TargetHorizon] = field(default_factory=dict)
    payout: PayoutRule = RULES[-1]

    def sentence(self, clock: Clock) -> str:
        """The main target with its twin, horizon and lags."""
        main = next(iter(self.horizons.values()), None)
        return "" if main is None else main.sentence(clock.score_lag, clock.tree_lag)

    def as_dict(self) -> dict[str, object]:
        """Content for manifest.json: `horizon` of the main target, and `payout`."""
        main = next(iter(self.horizons.values()), None)
        return {"horizon": None if main is None else main.as_dict(), "payout": self.payout.as_dict()}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Settled:
        """Read them from a run's manifest; that of an older version has neither."""
        horizon = manifest.get("horizon")
        main = None if horizon is None else TargetHorizon.from_dict(horizon)
        return cls({} if main is None else {main.target: main}, noted_rule(manifest))


def settle(config: RunConfig, data: Path, store: EraStore, folder: RunFolder, note: Callable[[str], None]) -> Settled:
    """Settle horizons and payout rule of a run that starts or resumes.

    Raises:
        ConfigError, DataError: as `run_horizons`.
        RunError: as `run_payout`.
    """
    horizons = run_horizons(config, store, folder, note)
    made = (data / TRUTH).is_file()
    return Settled(horizons, run_payout(config, horizons[config.data.target], folder, made=made, note=note))


def run_horizons(
    config: RunConfig, store: EraStore, folder: RunFolder, note: Callable[[str], None]
) -> dict[str, TargetHorizon]:
    """How long the labels of every target in use are; a run that an older version began keeps what that took.

    Raises:
        ConfigError: a target is not in the data, or its horizon is unknown.
        DataError: a target has no label, or labels off the scale 0 to 1.
    """
    if folder.started and "horizon" not in folder.manifest():
        return horizons_before(config)
    found = target_horizons(config, store.facts)
    for sentence in (sentence for horizon in found.values() for sentence in horizon.notes):
        note(f"CONTRADICTION: {sentence}")
    return found


def run_payout(
    config: RunConfig, main: TargetHorizon, folder: RunFolder, *, made: bool, note: Callable[[str], None]
) -> PayoutRule:
    """The payout rule of a run: as its folder keeps it, else the tournament's own, else the newest of the table.

    The tournament is asked once, within seconds, and never for made data; the answer is kept in `payout.json`.

    Raises:
        RunError: `payout.json` is damaged.
        ConfigError: the configured multipliers pay nothing.
    """
    current = _kept(folder)
    if current is None and not made:
        try:
            current = ask_rule()
        except SubmitError as error:
            note(f"the tournament could not be asked for its payout rule ({error}); the built-in table is used")
    if current is not None and not (folder.path / PAYOUT).exists():
        write_atomically(folder.path / PAYOUT, current.as_json())
    rule = rule_in_force(config.selection.corr_multiplier, config.selection.mmc_multiplier, current)
    note(f"payout: {rule.sentence()}")
    if not rule.pays(main.span):
        note(f"scores on {main.span.days}-day labels are no longer paid: {rule.formula()} is")
    return rule


def _kept(folder: RunFolder) -> PayoutRule | None:
    if not (folder.path / PAYOUT).exists():
        return None
    try:
        return PayoutRule.from_dict(folder.read_json(PAYOUT))
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{folder.path / PAYOUT} is damaged; delete it, the rule is then read again") from None
