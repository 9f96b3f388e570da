"""The gate's experts by name, what was chosen for an era, and what one call of `learn` did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eravane.core.arrays import Floats as FloatArray
from eravane.core.config import GateConfig
from eravane.gate.cells import RIDGES

EXPERTS = ("screened", "best_single", "ridges", "regimes", "network")
# Weights that Squint starts with, before they are scaled to sum 1. It takes hundreds of eras to tell alike experts
# apart, so that they start by what they were worth on tuning worlds; less of equal weight costs where nothing is to be
# learnt, more of it on real pools.
PRIOR = {"equal_weight": 5.0, "screened": 0.01, "best_single": 0.01, "regimes": 12.0}
OTHERS = 0.3


@dataclass(frozen=True)
class LearnReport:
    """Result of one call of `learn`.

    Attributes:
        era: the era that will be decided with what was learnt; resolved: eras known by then.
        trained: "none" (warm-up), "warm" (a few steps) or "full" (from scratch).
        hedge: weight of each expert at the top level.
        earned: summed correlation over equal weight on resolved eras, of the gate and of each expert alone.
        notes: sentences for the log.
    """

    era: int
    resolved: int
    trained: str
    hedge: dict[str, float]
    earned: dict[str, float]
    notes: tuple[str, ...]

    def as_event(self) -> dict[str, Any]:
        """The report as a line of events.jsonl holds it."""
        hedge = {name: round(weight, 4) for name, weight in self.hedge.items()}
        earned = {name: round(gain, 6) for name, gain in self.earned.items()}
        notes = list(self.notes)
        return {"resolved": self.resolved, "trained": self.trained, "hedge": hedge, "earned": earned, "notes": notes}


@dataclass(frozen=True, eq=False)
class Choice:
    """Weights chosen for an era: each expert's [P, M], those of experts [P], answers of the regimes, the mix [M]."""

    experts_PM: FloatArray
    hedge_P: FloatArray
    answers_AM: FloatArray
    weights_M: FloatArray


def expert_names(config: GateConfig) -> tuple[str, ...]:
    """The experts in the order of every array, equal weight first, the network last."""
    names = ["equal_weight"]
    for expert in EXPERTS:
        if expert in config.experts:
            names += list(RIDGES) if expert == "ridges" else [expert]
    return tuple(names)
