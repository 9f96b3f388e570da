"""The meta-learner of edition 1: a network and ridges on lagged scores under an AdaHedge top level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.core.config import FirstGateConfig
from eravane.core.layout import Layout, value_of
from eravane.gate.choice import Choice
from eravane.gate.edition1.records import LAGGED, AdaHedge, FirstHistory, FirstRecords
from eravane.gate.experts import correlation
from eravane.gate.gate import MetaLearner
from eravane.gate.inputs import lagged_inputs
from eravane.gate.network import Network
from eravane.gate.outcomes import PAID_BY, EraFacts, GateModel
from eravane.gate.portable_weights import with_newcomers
from eravane.gate.scorer import LAST_TEMPERATURE
from eravane.gate.stored import stored_config, stored_models
from eravane.scoring.payout import BEFORE_TABLE

PENDING = "pending."


class FirstMetaLearner(MetaLearner):
    """Gates and weights from a scorer shared by all base models, under an AdaHedge top level.

    Args:
        config: the [gate] section.
        models: the pool, in the order of every array.
        lag: eras until a label may be used; horizon: eras that a label spans.
        seed: seed of everything random.
        device: torch device of the network.
    """

    def __init__(
        self,
        config: FirstGateConfig,
        models: Sequence[GateModel],
        *,
        lag: int,
        seed: int,
        horizon: int,
        device: str = "cpu",
        **_later: object,
    ) -> None:
        self._config: FirstGateConfig = config
        self._lag, self._horizon, self._seed, self._device = lag, horizon, seed, device
        self._paid, self._rest_after = PAID_BY[config.objective], config.rest_after
        self.models = tuple(models)
        self.experts = ("equal_weight", *(name for name in LAGGED if name in config.experts), "network")
        self._history = FirstHistory(len(models), BEFORE_TABLE)
        self._records: FirstRecords = FirstRecords(len(models), config, horizon)
        self._hedge = AdaHedge(np.zeros(len(self.experts)))
        self._hedged = self._decided = 0
        self._pending: dict[int, Choice] = {}
        self._closed_M = np.zeros(len(models), dtype=np.int64)
        self._network = Network(config, self.models, lag, seed, device, config.objective)
        self._notes, self._noted = list[str](), set[str]()

    @property
    def versions(self) -> None:
        """Always None: this gate does not read earlier versions of the base models."""
        return None

    @property
    def earned(self) -> dict[str, float]:
        """Always empty: this gate does not count what experts earn."""
        return {}

    @property
    def _hedge_P(self) -> FloatArray:
        return self._hedge.weights_P

    def _news(self) -> list[str]:
        return []

    def _train(self, known: int, *, warm: bool = True) -> str:
        if self._network.due(known):
            self._network.refit(self._history, self._records, known)
            return "full"
        if warm and self._config.warm_steps:
            self._network.warm_start(self._history, self._records, known)
            return "warm"
        return "none"

    def comparators(self, era: int, dispersion_M: FloatArray) -> dict[str, FloatArray]:
        """Weights of the comparators for `era`, from outcomes up to `era - lag` alone."""
        self._check(era)
        return self._records.comparators(len(self._history), dispersion_M)

    def _settle(self, position: int) -> None:
        """Charge the experts for a resolved era, with the weights they had chosen for it."""
        history = self._history
        choice = self._pending.pop(history.eras[position], None)
        experts_PM = self._rehearsed(position) if choice is None else choice.experts_PM
        c_M, C_MM = history.row(self._paid, position), history.row("C", position)
        self._hedge.update(np.array([-correlation(weights_M, c_M, C_MM) for weights_M in experts_PM]))

    def _rehearsed(self, position: int) -> FloatArray:
        history = self._history
        era = history.eras[position]
        known = history.known(era, self._lag)
        if known >= self._config.warmup:
            self._train(known, warm=False)
        everyone = np.ones(len(self.models), dtype=bool)
        facts, C_MM = history.facts[position], history.row("C", position)
        return self._experts(era, known, facts, everyone, C_MM, history.row("dispersion", position))[0]

    def _experts(
        self, era: int, known: int, facts: EraFacts, open_M: BoolArray, C_MM: FloatArray, dispersion_M: FloatArray
    ) -> tuple[FloatArray, BoolArray, FloatArray]:
        """Weights of every expert [P, M], and the network's gates; the network is equal weight until it is trained."""
        size = len(self.models)
        equal_M, everyone, answers_AM = np.full(size, 1.0 / size), np.ones(size, dtype=bool), np.zeros((0, size))
        if known < self._config.warmup:
            return np.stack([equal_M] * len(self.experts)), everyone, answers_AM
        lagged = self._lagged(known)
        if not self._network.ready:
            return np.stack([equal_M, *lagged, equal_M]), everyone, answers_AM
        gates_M, network_M = self._network.predict(self._records, known, facts, open_M, C_MM, dispersion_M)
        return np.stack([equal_M, *lagged, network_M]), gates_M, answers_AM

    def _lagged(self, known: int) -> list[FloatArray]:
        return [with_newcomers(row_M, self._records.seen_NM[known]) for row_M in self._records.chosen(known)]

    def frozen(self) -> dict[str, Any]:
        """Numbers from which `portable.experts` and `portable.open_models` decide the era that was decided last."""
        known, records, size = len(self._history), self._records, len(self.models)
        tiers = sorted({model.feature_set for model in self.models})
        return {
            "warming_up": known < self._config.warmup,
            "hedge_P": self._hedge.weights_P,
            "networked": 1,
            "experts_LM": [np.full(size, 1.0 / size), *self._lagged(known)],
            "c_LM": [],
            "agreement_MM": np.zeros((size, size)),
            "lagged_ML": lagged_inputs(records, known),
            "seen_M": records.seen_NM[known],
            "signal_M": records.signal_NM[known],
            "dispersion_M": records.dispersion_NM[known],
            "ridge": self._config.ridge,
            "agents_MA": np.array([[float(model.feature_set == tier) for tier in tiers] for model in self.models]),
            "temperature": LAST_TEMPERATURE,
            "max_active": self._config.max_active,
            "inputs": self._config.inputs,
        }

    def state(self, *, history: bool = True) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything that the next era needs, in the form that release 0.1.0 gave it."""
        arrays = self._network.arrays() | (self._history.arrays() if history else {})
        arrays |= {f"{PENDING}{era}": choice.experts_PM for era, choice in self._pending.items()}
        arrays |= {"hedge.losses": self._hedge.losses_P, "closed": self._closed_M}
        return arrays, {
            "config": asdict(self._config),
            "models": [asdict(model) for model in self.models],
            "lag": self._lag,
            "horizon": self._horizon,
            "seed": self._seed,
            "gap": self._hedge.gap,
            "hedged": self._hedged,
            "decided": self._decided,
            "names": self._history.names(),
            "notes": self._notes,
        }

    @classmethod
    def restore(
        cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, object], *, device: str = "cpu"
    ) -> FirstMetaLearner:
        """Rebuild the learner that `state` described; it goes on byte for byte as that one would.

        Raises:
            LayoutError: arrays or values are others than `state` gives, with another dtype or shape.
        """
        models, config = stored_models(values), stored_config(values, FirstGateConfig)
        assert isinstance(config, FirstGateConfig)
        known = {name: value_of(values, name, int) for name in ("lag", "horizon", "seed")}
        learner = cls(config, models, **known, device=device)
        everyone = np.ones((len(arrays.get("history.era", ())), len(models)), dtype=bool)
        sizes = {"M": len(models), "experts": len(learner.experts)}
        layout = Layout({**arrays, "history.present": everyone}, **sizes)
        names = value_of(values, "names", dict)
        learner._history = FirstHistory.restore(len(models), layout, names, BEFORE_TABLE)
        learner._replay_records()
        gap = float(value_of(values, "gap", (int, float)))
        learner._hedge = AdaHedge(np.array(layout.take("hedge.losses", "f8", "experts")), gap)
        learner._hedged, learner._decided = value_of(values, "hedged", int), value_of(values, "decided", int)
        learner._notes = list(value_of(values, "notes", list))
        learner._closed_M = np.array(layout.take("closed", "i8", "M"))
        for era in layout.numbers(PENDING):
            experts_PM = layout.take(f"{PENDING}{era}", "f8", "experts", "M")
            learner._pending[era] = Choice(experts_PM, np.zeros(0), np.zeros(0), np.zeros(0))
        learner._network.load(layout)
        layout.end()
        return learner
