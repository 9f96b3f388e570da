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
from eravane.core.errors import RunError
from eravane.core.layout import Layout, value_of
from eravane.gate.choice import LearnReport
from eravane.gate.edition1.records import LAGGED, AdaHedge, FirstHistory, FirstRecords
from eravane.gate.experts import correlation
from eravane.gate.gate import MetaLearner
from eravane.gate.inputs import lagged_inputs
from eravane.gate.network import Network
from eravane.gate.outcomes import PAID_BY, EraFacts, GateModel
from eravane.gate.portable import mix_experts, open_models
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
        self._weighed: dict[int, FloatArray] = {}
        self._closed_M = np.zeros(len(models), dtype=np.int64)
        self._network = Network(config, self.models, lag, seed, device, config.objective)
        self._notes, self._noted = list[str](), set[str]()

    @property
    def versions(self) -> None:
        """None: this gate does not look at earlier versions of the base models."""
        return None

    def learn(self, era: int) -> LearnReport:
        """Train on what is known before `era`: hedge, then a full refit every k resolved eras, else a warm start.

        Raises:
            RunError: an observed era is newer than `era - lag`.
        """
        self._check(era)
        known = len(self._history)
        for position in range(self._hedged, known):
            if self._history.eras[position] in self._weighed or known - position <= self._config.rehearsal:
                self._settle(position)
        self._hedged = known
        trained, loss = "none", float("nan")
        if known < self._config.warmup:
            self._note(
                "warm-up", f"{known} resolved eras, warm-up needs {self._config.warmup}: equal weight until then"
            )
        elif self._network.due(known):
            trained, loss = "full", self._network.refit(self._history, self._records, known)
        elif self._config.warm_steps:
            trained, loss = "warm", self._network.warm_start(self._history, self._records, known)
        measured, kept = self._network.marginals
        if measured:
            self._note(
                "marginals", f"{kept:,} of {measured:,} marginal statistics vary over eras, the others are dropped"
            )
        notes, self._notes = tuple(self._notes), []
        hedge = dict(zip(self.experts, self._hedge.weights_P.tolist(), strict=True))
        return LearnReport(era, known, trained, loss, hedge, {}, measured, kept, notes)

    def decide(self, era: int, facts: EraFacts) -> BoolArray:
        """Gates [M] for an era, before any base model predicts it; at least one is open, at most `max_active`.

        Raises:
            RunError: an observed era is newer than `era - lag`.
        """
        self._check(era)
        size = len(self.models)
        nobody, blank = np.zeros(size, dtype=bool), np.zeros((size, size))
        experts_PM, gates_M = self._chosen(len(self._history), facts, nobody, blank, np.ones(size))
        open_M = open_models(experts_PM, gates_M, self._hedge.weights_P, 1, self._config.max_active)
        if era > self._decided:
            self._closed_M = np.where(open_M, 0, self._closed_M + 1)
            self._decided = era
        return open_M

    def weigh(
        self, era: int, facts: EraFacts, open_M: BoolArray, C_MM: FloatArray, dispersion_M: FloatArray
    ) -> FloatArray:
        """Weights [M] of the open models: non-negative, sum 1, 0 where closed.

        Raises:
            RunError: an observed era is newer than `era - lag`, or every gate is closed.
        """
        self._check(era)
        if not open_M.any():
            raise RunError(f"era {era}: every gate is closed; open at least one model")
        experts_PM, _ = self._chosen(len(self._history), facts, open_M, C_MM, dispersion_M)
        self._weighed[era] = experts_PM
        return mix_experts(self._hedge.weights_P, experts_PM, open_M, C_MM)

    def expert_weights(self, era: int) -> dict[str, FloatArray]:
        """What each expert of the top level chose for an era that was weighed and is not yet resolved, [M] each."""
        return dict(zip(self.experts, self._weighed[era], strict=True))

    def comparators(self, era: int, dispersion_M: FloatArray) -> dict[str, FloatArray]:
        """Weights of the comparators for `era`, from outcomes up to `era - lag` alone."""
        self._check(era)
        return self._records.comparators(len(self._history), dispersion_M)

    def _settle(self, position: int) -> None:
        """Charge the experts for a resolved era, with the weights they had chosen for it."""
        history = self._history
        experts_PM = self._weighed.pop(history.eras[position], None)
        if experts_PM is None:
            experts_PM = self._rehearsed(position)
        c_M, C_MM = history.row(self._paid, position), history.row("C", position)
        self._hedge.update(np.array([-correlation(weights_M, c_M, C_MM) for weights_M in experts_PM]))

    def _rehearsed(self, position: int) -> FloatArray:
        history = self._history
        known = history.known(history.eras[position], self._lag)
        if known >= self._config.warmup and self._network.due(known):
            self._network.refit(history, self._records, known)
        everyone = np.ones(len(self.models), dtype=bool)
        facts, C_MM = history.facts[position], history.row("C", position)
        return self._chosen(known, facts, everyone, C_MM, history.row("dispersion", position))[0]

    def _chosen(
        self, known: int, facts: EraFacts, open_M: BoolArray, C_MM: FloatArray, dispersion_M: FloatArray
    ) -> tuple[FloatArray, BoolArray]:
        """Weights of every expert [P, M], and the network's gates; the network is equal weight until it is trained."""
        size = len(self.models)
        equal_M = np.full(size, 1.0 / size)
        if known < self._config.warmup:
            return np.stack([equal_M] * len(self.experts)), np.ones(size, dtype=bool)
        lagged = self._lagged(known)
        if not self._network.ready:
            return np.stack([equal_M, *lagged, equal_M]), np.ones(size, dtype=bool)
        gates_M, network_M = self._network.predict(self._records, known, facts, open_M, C_MM, dispersion_M)
        return np.stack([equal_M, *lagged, network_M]), gates_M

    def _lagged(self, known: int) -> list[FloatArray]:
        return [with_newcomers(row_M, self._records.seen_NM[known]) for row_M in self._records.chosen(known)]

    def frozen(self) -> dict[str, Any]:
        """What decides the era that was decided last, as `portable.experts` and `portable.open_models` take it."""
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
        arrays |= {f"{PENDING}{era}": experts_PM for era, experts_PM in self._weighed.items()}
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
            learner._weighed[era] = layout.take(f"{PENDING}{era}", "f8", "experts", "M")
        learner._network.load(layout)
        layout.end()
        return learner
