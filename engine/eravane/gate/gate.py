"""The meta-learner: decides, per era, which base models run and with what weight, before its labels are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.config import GateConfig
from eravane.core.errors import ConfigError, RunError
from eravane.gate.experts import AdaHedge, correlation, normalise
from eravane.gate.network import Network
from eravane.gate.outcomes import PAID_BY, EraFacts, EraOutcome, GateModel, History
from eravane.gate.prototypes import Prototypes, find_regimes, whiten
from eravane.gate.records import LAGGED, Records, comparator_weights, with_newcomers

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

INPUTS = ("scores", "structure", "marginals", "agreement")
# A closed gate of the network closes a model only where the top level agrees: what the other experts would still give
# it is below this share of an equal weight.
NEGLIGIBLE = 0.25
# Eras that the labels of a 20-day target span.
TWENTY_DAYS = 4


@dataclass(frozen=True)
class LearnReport:
    """What one call of `learn` did.

    Attributes:
        era: the era that will be decided with what was learnt; resolved: eras known by then.
        trained: "none" (warm-up), "warm" (a few steps) or "full" (from scratch); loss: of the last step, or NaN.
        hedge: weight of each expert at the top level.
        marginals, marginals_kept: marginal statistics measured, and how many of them vary over eras.
        notes: sentences for the log.
    """

    era: int
    resolved: int
    trained: str
    loss: float
    hedge: dict[str, float]
    marginals: int
    marginals_kept: int
    notes: tuple[str, ...]

    def as_event(self) -> dict[str, Any]:
        """The report as a line of events.jsonl holds it."""
        hedge = {name: round(weight, 4) for name, weight in self.hedge.items()}
        return {"resolved": self.resolved, "trained": self.trained, "hedge": hedge, "notes": list(self.notes)}


class MetaLearner:
    """Gates and weights from a scorer shared by all base models, under an AdaHedge top level.

    Args:
        config: the [gate] section.
        models: the pool, in the order of every array.
        lag: eras until a label may be used; horizon: eras that a label spans.
        seed: seed of everything random.
        device: torch device of the network.

    Raises:
        ConfigError: an unknown input block or expert, or an empty pool.
    """

    def __init__(
        self,
        config: GateConfig,
        models: Sequence[GateModel],
        *,
        lag: int,
        seed: int,
        horizon: int = TWENTY_DAYS,
        device: str = "cpu",
    ) -> None:
        unknown = sorted(set(config.inputs) - set(INPUTS)) + sorted(set(config.experts) - set(LAGGED))
        if unknown or not models:
            raise ConfigError(
                f"gate.inputs are of {INPUTS}, gate.experts of {LAGGED}, given {unknown}; "
                f"the pool has {len(models)} models"
            )
        self._config, self._lag, self._horizon, self._seed, self._device = config, lag, horizon, seed, device
        self.models = tuple(models)
        self.experts = ("equal_weight", *(name for name in LAGGED if name in config.experts), "network")
        self._history = History(len(models))
        self._records = Records(len(models), config, horizon)
        self._hedge = AdaHedge(np.zeros(len(self.experts)))
        self._hedged, self._decided = 0, 0
        self._pending: dict[int, FloatArray] = {}
        self._closed_M = np.zeros(len(models), dtype=np.int64)
        self._network = Network(config, self.models, lag, seed, device)
        self._notes: list[str] = []
        self._said: set[str] = set()

    def observe(self, outcome: EraOutcome) -> None:
        """Take in a resolved era; eras come in ascending order, each once.

        Raises:
            RunError: the era is not later than the last one, or its arrays do not fit the pool.
        """
        self._history.append(outcome)
        self._records.add(self._history, len(self._history) - 1)

    def learn(self, era: int) -> LearnReport:
        """Train on what is known before `era`: hedge, then a full refit every k resolved eras, else a warm start.

        The newest resolved eras that were never weighed (the folds' history) are rehearsed first: the network is
        refitted on what was known then and its weights are scored, so that the top level starts with evidence.

        Raises:
            RunError: an observed era is newer than `era - lag`.
        """
        self._check(era)
        known = len(self._history)
        for position in range(self._hedged, known):
            if self._history.eras[position] in self._pending or known - position <= self._config.rehearsal:
                self._settle(position)
        self._hedged = known
        trained, loss = "none", float("nan")
        if known < self._config.warmup:
            self._say("warm-up", f"{known} resolved eras, warm-up needs {self._config.warmup}: equal weight until then")
        elif self._network.due(known):
            trained, loss = "full", self._network.refit(self._history, self._records, known)
        elif self._config.warm_steps:
            trained, loss = "warm", self._network.warm_start(self._history, self._records, known)
        measured, kept = self._network.marginals
        if measured:
            self._say(
                "marginals", f"{kept:,} of {measured:,} marginal statistics vary over eras, the others are dropped"
            )
        notes, self._notes = tuple(self._notes), []
        hedge = dict(zip(self.experts, self._hedge.weights_P.tolist(), strict=True))
        return LearnReport(era, known, trained, loss, hedge, measured, kept, notes)

    def _say(self, topic: str, note: str) -> None:
        """Add a note to the next report, on each topic once."""
        if topic not in self._said:
            self._said.add(topic)
            self._notes.append(note)

    def decide(self, era: int, facts: EraFacts) -> BoolArray:
        """Gates [M] for an era, before any base model predicts it; at least one is open, at most `max_active`.

        Raises:
            RunError: an observed era is newer than `era - lag`.
        """
        self._check(era)
        known = len(self._history)
        size = len(self.models)
        nobody, blank = np.zeros(size, dtype=bool), np.zeros((size, size))
        experts_PM, gates_M = self._experts(known, facts, nobody, blank, np.ones(size))
        hedge_P = self._hedge.weights_P
        share_M = hedge_P @ experts_PM
        open_M = gates_M | (hedge_P[:-1] @ experts_PM[:-1] >= NEGLIGIBLE / size)
        if self._config.max_active and open_M.sum() > self._config.max_active:
            ranked = np.argsort(-np.where(open_M, share_M, -1.0), kind="stable")[: self._config.max_active]
            open_M = np.isin(np.arange(size), ranked)
        if era > self._decided:
            self._closed_M = np.where(open_M, 0, self._closed_M + 1)
            self._decided = era
        return np.asarray(open_M)

    def weigh(
        self, era: int, facts: EraFacts, open_M: BoolArray, C_MM: FloatArray, dispersion_M: FloatArray
    ) -> FloatArray:
        """Weights [M] of the open models: non-negative, sum 1, 0 where closed.

        Args:
            era: the era; facts: as given to `decide`; open_M: bool [M], which models predicted.
            C_MM: float64 [M, M], z z'/n of this era's predictions; dispersion_M: their standard deviations. Entries of
                closed models are ignored.

        Raises:
            RunError: an observed era is newer than `era - lag`, or every gate is closed.
        """
        self._check(era)
        if not open_M.any():
            raise RunError(f"era {era}: every gate is closed; open at least one model")
        experts_PM, _ = self._experts(len(self._history), facts, open_M, C_MM, dispersion_M)
        self._pending[era] = experts_PM
        usable_M = open_M & (np.nan_to_num(np.diag(C_MM)) > 0)
        return normalise(self._hedge.weights_P @ experts_PM, usable_M if usable_M.any() else open_M)

    def expert_weights(self, era: int) -> dict[str, FloatArray]:
        """What each expert of the top level chose for an era that was weighed and is not yet resolved, [M] each."""
        return dict(zip(self.experts, self._pending[era], strict=True))

    def comparators(self, era: int, C_MM: FloatArray, dispersion_M: FloatArray) -> dict[str, FloatArray]:
        """Weights of the comparators for `era`, from outcomes up to `era - lag` alone (see `comparator_weights`)."""
        self._check(era)
        return comparator_weights(self._records, len(self._history), dispersion_M)

    def prototypes(self) -> Prototypes:
        """Regimes among the resolved eras, and which models the present network uses in them (see `Prototypes`).

        Raises:
            RunError: no era is resolved.
        """
        if not len(self._history):
            raise RunError("no era is resolved yet: there are no regimes to look at")
        history, everyone = self._history, np.ones(len(self.models), dtype=bool)
        regime_E, share_EP = find_regimes(whiten(history.column("scores")), self._config.prototypes)
        uses = []
        for position, era in enumerate(history.eras):
            known = history.known(era, self._lag)
            facts, C_MM = history.facts[position], history.row("C", position)
            experts_PM, gates_M = self._experts(known, facts, everyone, C_MM, history.row("dispersion", position))
            uses.append(np.stack([history.row("scores", position), gates_M, experts_PM[-1]]))
        means = np.stack(
            [np.mean([u for u, r in zip(uses, regime_E, strict=True) if r == p], axis=0) for p in np.unique(regime_E)]
        )
        era_E = np.array(history.eras, dtype=np.int64)
        return Prototypes(era_E, regime_E, share_EP, means[:, 0], means[:, 1], means[:, 2])

    @property
    def resting_M(self) -> BoolArray:
        """Models closed for so many eras in a row that their tree updates are skipped, bool [M]."""
        return self._closed_M >= self._config.rest_after

    def set_models(self, models: Sequence[GateModel]) -> None:
        """Change the pool: a new model starts from the shared scorer, a vanished one is dropped; both are named."""
        places = {model.model_id: position for position, model in enumerate(self.models)}
        positions = [places.get(model.model_id) for model in models]
        names = [model.model_id for model in models]
        self._notes += [
            f"model {name} is new: it starts from the shared scorer" for name in names if name not in places
        ]
        self._notes += [f"model {name} has vanished and is dropped" for name in places if name not in names]
        old = self._pending
        self._pending = {era: np.stack([_moved(row, positions) for row in rows]) for era, rows in old.items()}
        self._closed_M = np.array([0 if p is None else self._closed_M[p] for p in positions], dtype=np.int64)
        self._history.realign(positions)
        self.models = tuple(models)
        self._replay_records()
        self._network.set_models(self.models, positions)

    def _replay_records(self) -> None:
        self._records.reset(len(self.models))
        for position in range(len(self._history)):
            self._records.add(self._history, position)

    def _check(self, era: int) -> None:
        if self._history.eras and self._history.eras[-1] > era - self._lag:
            raise RunError(
                f"era {self._history.eras[-1]} was observed, but era {era} may use labels up to {era - self._lag} only"
            )

    def _settle(self, position: int) -> None:
        """Charge the experts for a resolved era, with the weights they had chosen for it."""
        history = self._history
        era = history.eras[position]
        experts_PM = self._pending.pop(era, None)
        if experts_PM is None:
            experts_PM = self._rehearse(position)
        c_M, C_MM = history.row(PAID_BY[self._config.objective], position), history.row("C", position)
        self._hedge.update(np.array([-correlation(weights_M, c_M, C_MM) for weights_M in experts_PM]))

    def _rehearse(self, position: int) -> FloatArray:
        history = self._history
        known = history.known(history.eras[position], self._lag)
        if known >= self._config.warmup and self._network.due(known):
            self._network.refit(history, self._records, known)
        everyone = np.ones(len(self.models), dtype=bool)
        facts, C_MM = history.facts[position], history.row("C", position)
        return self._experts(known, facts, everyone, C_MM, history.row("dispersion", position))[0]

    def _experts(
        self, known: int, facts: EraFacts, open_M: BoolArray, C_MM: FloatArray, dispersion_M: FloatArray
    ) -> tuple[FloatArray, BoolArray]:
        """Weights of every expert [P, M], and the network's gates; the network is equal weight until it is trained."""
        size = len(self.models)
        equal_M = np.full(size, 1.0 / size)
        if known < self._config.warmup:
            return np.stack([equal_M] * len(self.experts)), np.ones(size, dtype=bool)
        seen_M = self._records.seen_NM[known]
        lagged = [with_newcomers(weights_M, seen_M) for weights_M in self._records.chosen(known)]
        if not self._network.ready:
            return np.stack([equal_M, *lagged, equal_M]), np.ones(size, dtype=bool)
        gates_M, network_M = self._network.predict(self._records, known, facts, open_M, C_MM, dispersion_M)
        return np.stack([equal_M, *lagged, network_M]), gates_M

    def state(self, *, history: bool = True) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything that the next era needs: arrays (for safetensors) and JSON-able values.

        Without `history` the observed outcomes, which grow with every era, are left to the caller to keep; `restore`
        wants them back as `History.arrays` gives them.
        """
        arrays = self._network.arrays() | (self._history.arrays() if history else {})
        arrays |= {f"pending.{era}": experts_PM for era, experts_PM in self._pending.items()}
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
        cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any], *, device: str = "cpu"
    ) -> MetaLearner:
        """Rebuild the learner that `state` described; it goes on byte for byte as that one would."""
        stored = values["config"]
        lists = {name: tuple(entry) for name, entry in stored.items() if isinstance(entry, list)}
        config = GateConfig(**{**stored, **lists})
        models = [GateModel(**model) for model in values["models"]]
        known = {name: values[name] for name in ("lag", "horizon", "seed")}
        learner = cls(config, models, **known, device=device)
        learner._history = History.restore(len(models), arrays, values["names"])
        learner._replay_records()
        learner._hedge = AdaHedge(np.array(arrays["hedge.losses"]), values["gap"])
        learner._hedged, learner._decided = values["hedged"], values["decided"]
        learner._notes = list(values["notes"])
        learner._closed_M = np.array(arrays["closed"])
        prefix = "pending."
        learner._pending = {int(n.removeprefix(prefix)): arrays[n] for n in arrays if n.startswith(prefix)}
        learner._network.load(arrays)
        return learner


def _moved(weights_M: FloatArray, positions: Sequence[int | None]) -> FloatArray:
    everyone = np.ones(len(positions), dtype=bool)
    return normalise(np.array([0.0 if p is None else weights_M[p] for p in positions]), everyone)
