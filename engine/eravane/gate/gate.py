"""The meta-learner: decides, per era, which base models run and with what weight, before its labels are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.calendar.horizon import SCORE_MARGIN
from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.core.config import GateConfig
from eravane.core.errors import ConfigError, LayoutError, RunError
from eravane.core.layout import Layout, value_of
from eravane.gate.cells import OWN_CONTEXT, RIDGES, Cells
from eravane.gate.choice import EXPERTS, OTHERS, PRIOR, Choice, LearnReport, expert_names
from eravane.gate.experts import Squint, correlation, normalise, slope
from eravane.gate.inputs import lagged_inputs
from eravane.gate.network import Network
from eravane.gate.outcomes import PAID_BY, EraFacts, EraOutcome, GateModel, History
from eravane.gate.portable import era_agreement, mix_experts, open_models
from eravane.gate.portable_weights import expected_weights, with_newcomers
from eravane.gate.records import REST_AFTER, Records, comparator_weights
from eravane.gate.scorer import LAST_TEMPERATURE
from eravane.gate.stored import stored_config, stored_models, stored_rule
from eravane.gate.versions import Versions
from eravane.scoring.payout import RULES, PayoutRule

INPUTS = ("scores", "structure", "marginals", "agreement")


class MetaLearner:
    """Gates and weights from several experts, one of them a scorer shared by all base models, mixed by Squint.

    Args:
        config: the [gate] section.
        models: the pool, in the order of every array.
        lag: eras until a label may be used; horizon: eras that a label spans (0: as many as the lag allows for).
        seed: seed of everything random.
        device: torch device of the network.
        aim: what is paid, "corr" or "payout"; payout: the mix of the latter.

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
        horizon: int = 0,
        device: str = "cpu",
        aim: str = "corr",
        payout: PayoutRule = RULES[-1],
    ) -> None:
        unknown = sorted(set(config.inputs) - set(INPUTS)) + sorted(set(config.experts) - set(EXPERTS))
        if unknown or not models:
            raise ConfigError(
                f"gate.inputs are of {INPUTS}, gate.experts of {EXPERTS}, given {unknown}; "
                f"the pool has {len(models)} models"
            )
        self._config, self._lag, self._seed, self._device = config, lag, seed, device
        self._horizon = horizon or max(1, lag - SCORE_MARGIN)
        self._aim, self._paid = aim, PAID_BY[aim]
        self.models, self.experts = tuple(models), expert_names(config)
        self._payout, self._history = payout, History(len(models), payout)
        self._records = Records(len(models), aim, self._horizon)
        prior_P = np.array([PRIOR.get(name, OTHERS) for name in self.experts])
        self._squint = Squint(prior_P / prior_P.sum(), self._horizon)
        self._earned_P = np.zeros(len(self.experts) + 1)
        self._hedged = self._decided = 0
        self._pending: dict[int, Choice] = {}
        self._closed_M = np.zeros(len(models), dtype=np.int64)
        self._network = Network(config, self.models, lag, seed, device, aim)
        self._cells = self._new_cells()
        self._notes, self._noted = list[str](), set[str]()
        self._rest_after = REST_AFTER
        self._out_M = np.zeros(len(models), dtype=bool)
        self._outside_D = np.zeros(0)

    def _new_cells(self) -> Cells:
        return Cells(self._history, self._records, self._network, self._paid, self._lag, self._horizon)

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
        trained = "none"
        if known < self._config.warmup:
            self._note(
                "warm-up", f"{known} resolved eras, warm-up needs {self._config.warmup}: equal weight until then"
            )
        else:
            trained = self._train(known)
        self._notes += self._news()
        measured, kept = self._network.marginals
        if measured:
            self._note(
                "marginals", f"{kept:,} of {measured:,} marginal statistics vary over eras, the others are dropped"
            )
        notes, self._notes = tuple(self._notes), []
        hedge = dict(zip(self.experts, self._hedge_P.tolist(), strict=True))
        return LearnReport(era, known, trained, hedge, self.earned, notes)

    @property
    def _hedge_P(self) -> FloatArray:
        """Weights of the experts at the top level [P]."""
        return self._squint.weights_P

    def _news(self) -> list[str]:
        """Models that have left the screened pool or come back since the last report, in sentences."""
        news = self._records.standing.news([model.model_id for model in self.models], self._out_M)
        self._out_M = self._records.standing.out_M.copy()
        return news

    def _train(self, known: int, *, warm: bool = True) -> str:
        """Refit what is due on the first `known` resolved eras; return what the network did."""
        trained = "none"
        if self._network.due(known):
            trained = "full"
            self._network.refit(self._history, self._records, known)
        elif warm and self._config.networked:
            trained = "warm"
            self._network.warm_start(self._history, self._records, known)
        if "regimes" in self._config.experts and known:
            self._cells.follow(known, refit=trained == "full")
        return trained

    def paid(self, c_M: FloatArray, contribution_M: FloatArray | None) -> FloatArray:
        """Payment of models in an era by the run's aim, from their c and their contribution [M]."""
        return c_M if self._paid == "c" else self._history.payout_of(c_M, contribution_M)

    @property
    def resolved(self) -> tuple[int, ...]:
        """Resolved eras, ascending."""
        return tuple(self._history.eras)

    @property
    def versions(self) -> Versions | None:
        """Versions of the base models, from which the history of the present ones follows; None where none are used."""
        return self._cells.versions

    @property
    def earned(self) -> dict[str, float]:
        """Summed correlation over equal weight so far, of the gate ("gate") and of each expert alone."""
        return dict(zip(("gate", *self.experts), self._earned_P.tolist(), strict=True))

    def _note(self, topic: str, note: str) -> None:
        """Add a note to the next report, on each topic once."""
        if topic not in self._noted:
            self._noted.add(topic)
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
        experts_PM, gates_M, _ = self._experts(era, known, facts, nobody, blank, np.ones(size))
        networked, most = int("network" in self.experts), self._config.max_active
        open_M = open_models(experts_PM, gates_M, self._hedge_P, networked, most)
        self._outside_D = np.asarray(facts.context_D[OWN_CONTEXT:], dtype=np.float64)
        if era > self._decided:
            self._closed_M = np.where(open_M, 0, self._closed_M + 1)
            self._decided = era
        return open_M

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
        experts_PM, _, answers_AM = self._experts(era, len(self._history), facts, open_M, C_MM, dispersion_M)
        hedge_P = self._hedge_P
        weights_M = mix_experts(hedge_P, experts_PM, open_M, C_MM)
        self._pending[era] = Choice(experts_PM, hedge_P, answers_AM, weights_M)
        return weights_M

    def expert_weights(self, era: int) -> dict[str, FloatArray]:
        """Weights of each expert of the top level for an era that was weighed and is not yet resolved, [M] each."""
        return dict(zip(self.experts, self._pending[era].experts_PM, strict=True))

    def comparators(self, era: int, dispersion_M: FloatArray) -> dict[str, FloatArray]:
        """Weights of the comparators for `era`, from outcomes up to `era - lag` alone (see `comparator_weights`)."""
        self._check(era)
        known, usual_MM = len(self._history), self._records.agreement_MM
        chosen = self.expert_weights(era) if era in self._pending else {}
        ridges = {name: chosen.get(name, row_M) for name, row_M in self._ridges(known, usual_MM).items()}
        return comparator_weights(self._records, known, dispersion_M) | ridges

    @property
    def resting_M(self) -> BoolArray:
        """Models closed for so many eras in a row that their tree updates are skipped, bool [M]."""
        return self._closed_M >= self._rest_after

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
        """Judge the experts by a resolved era, with the weights they had chosen for it."""
        history = self._history
        choice = self._pending.pop(history.eras[position], None) or self._rehearse(position)
        c_M, C_MM = history.row(self._paid, position), history.row("C", position)
        # The mix is judged by its slope, so that an expert counts for what it adds to the others.
        self._squint.update(choice.hedge_P, choice.experts_PM @ slope(choice.hedge_P @ choice.experts_PM, c_M, C_MM))
        self._cells.settle(choice.answers_AM, c_M)
        present_M = history.row("present", position)
        equal = correlation(normalise(np.ones(len(c_M)), present_M), c_M, C_MM)
        chosen = [choice.weights_M, *choice.experts_PM]
        self._earned_P = self._earned_P + [correlation(weights_M, c_M, C_MM) - equal for weights_M in chosen]

    def _rehearse(self, position: int) -> Choice:
        """Weights that would have been chosen for an era of the folds' history, from what was known then."""
        history = self._history
        known = history.known(history.eras[position], self._lag)
        if known >= self._config.warmup:
            self._train(known, warm=False)
        everyone = np.ones(len(self.models), dtype=bool)
        facts, C_MM, dispersion_M = (
            history.facts[position],
            history.row("C", position),
            history.row("dispersion", position),
        )
        experts_PM, _, answers_AM = self._experts(history.eras[position], known, facts, everyone, C_MM, dispersion_M)
        hedge_P = self._squint.weights_P
        return Choice(experts_PM, hedge_P, answers_AM, normalise(hedge_P @ experts_PM, everyone))

    def _experts(
        self, era: int, known: int, facts: EraFacts, open_M: BoolArray, C_MM: FloatArray, dispersion_M: FloatArray
    ) -> tuple[FloatArray, BoolArray, FloatArray]:
        """Weights of every expert [P, M], the network's gates, and what the regimes' members expect [A, M].

        What is not trained yet stands at equal weight.
        """
        size = len(self.models)
        equal_M, gates_M, answers_AM = np.full(size, 1.0 / size), np.ones(size, dtype=bool), np.zeros((0, size))
        if known < self._config.warmup:
            return np.stack([equal_M] * len(self.experts)), gates_M, answers_AM
        era_MM = era_agreement(open_M, C_MM, self._records.agreement_MM)
        chosen = self._lagged_experts(known) | self._ridges(known, era_MM)
        if "regimes" in self.experts:
            chosen["regimes"], answers_AM = self._cells.weights(era, known, facts, era_MM)
        if "network" in self.experts:
            chosen["network"] = equal_M
            if self._network.ready:
                gates_M, chosen["network"] = self._network.predict(
                    self._records, known, facts, open_M, C_MM, dispersion_M
                )
        return np.stack([chosen[name] for name in self.experts]), gates_M, answers_AM

    def _lagged_experts(self, known: int) -> dict[str, FloatArray]:
        """Weights of the experts that read resolved eras alone, [M] each, equal weight first."""
        size, seen_M = len(self.models), self._records.seen_NM[known]
        lagged = {name: with_newcomers(row_M, seen_M) for name, row_M in self._records.lagged(known).items()}
        return {
            name: row
            for name, row in ({"equal_weight": np.full(size, 1.0 / size)} | lagged).items()
            if name in self.experts
        }

    def _ridges(self, known: int, C_MM: FloatArray) -> dict[str, FloatArray]:
        """Weights of the ridges when `known` eras are resolved, [M] each, for predictions that agree as C does."""
        expected_LM, seen_M = self._cells.expected(known), self._records.seen_NM[known]
        return {name: expected_weights(c_M, C_MM, seen_M) for name, c_M in zip(RIDGES, expected_LM, strict=True)}

    def frozen(self) -> dict[str, Any]:
        """Numbers from which `portable.experts` and `portable.open_models` decide the era that was decided last."""
        known, records = len(self._history), self._records
        lagged = self._lagged_experts(known)
        tiers = sorted({model.feature_set for model in self.models})
        width = OWN_CONTEXT + len(self._outside_D)
        found = {
            "agreement_MM": records.agreement_MM,
            "ridge": records.ridge,
            "seen_M": records.seen_NM[known],
            "warming_up": known < self._config.warmup,
            "hedge_P": self._squint.weights_P,
            "networked": int("network" in self.experts),
            "experts_LM": [lagged[name] for name in self.experts if name in lagged],
            "c_LM": list(self._cells.expected(known)) if "ridges" in self._config.experts else [],
            "lagged_ML": lagged_inputs(records, known),
            "signal_M": records.signal_NM[known],
            "dispersion_M": records.dispersion_NM[known],
            "agents_MA": np.array([[float(model.feature_set == tier) for tier in tiers] for model in self.models]),
            "temperature": LAST_TEMPERATURE,
            "max_active": self._config.max_active,
            "inputs": self._config.inputs,
            "outside": (OWN_CONTEXT, width),
            "outside_D": self._outside_D,
        }
        if "regimes" in self.experts and not found["warming_up"] and self._cells.ready:
            found["regimes"] = self._cells.numbers(self._decided)
        return found

    def state(self, *, history: bool = True) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything that the next era needs: arrays (for safetensors) and JSON-able values.

        Without `history` the observed outcomes, which grow with every era, are left to the caller to keep; `restore`
        wants them back as `History.arrays` gives them.
        """
        arrays = self._network.arrays() | self._cells.arrays() | (self._history.arrays() if history else {})
        for era, choice in self._pending.items():
            arrays |= {f"pending.{name}.{era}": value for name, value in vars(choice).items()}
        arrays |= {"squint.regret": self._squint.regret_P, "squint.square": self._squint.square_P}
        arrays |= {"closed": self._closed_M, "earned": self._earned_P, "out": self._out_M}
        arrays |= {"outside": self._outside_D}
        return arrays, {
            "config": asdict(self._config),
            "models": [asdict(model) for model in self.models],
            "lag": self._lag,
            "horizon": self._horizon,
            "payout": self._payout.as_dict(),
            "seed": self._seed,
            "aim": self._aim,
            "hedged": self._hedged,
            "decided": self._decided,
            "names": self._history.names(),
            "notes": self._notes,
        }

    @classmethod
    def restore(
        cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, object], *, device: str = "cpu"
    ) -> MetaLearner:
        """Rebuild the learner that `state` described; it continues byte for byte as that one would.

        Of a state of edition 1 the resolved eras are taken over: what is learnt is learnt again.

        Raises:
            LayoutError: arrays or values are others than `state` gives, with another dtype or shape.
        """
        first, models = "hedge.losses" in arrays, stored_models(values)
        config = stored_config(values, GateConfig, {"experts"} if first else ())
        facts = {name: value_of(values, name, int) for name in ("lag", "horizon", "seed")}
        aim = "corr" if first else value_of(values, "aim", str)
        if aim not in PAID_BY:
            raise LayoutError(f"does not understand 'aim': {aim!r}")
        learner = cls(config, models, **facts, device=device, aim=aim, payout=stored_rule(values, noted=not first))
        layout = Layout(arrays, M=len(models), experts=len(learner.experts))
        names = value_of(values, "names", dict)
        learner._history = History.restore(len(models), layout, names, learner._payout)
        learner._cells = learner._new_cells()
        learner._replay_records()
        learner._closed_M, learner._decided = (
            np.array(layout.take("closed", "i8", "M")),
            value_of(values, "decided", int),
        )
        if first:
            return learner
        learned = (np.array(layout.take(f"squint.{name}", "f8", "experts")) for name in ("regret", "square"))
        learner._squint = Squint(learner._squint.prior_P, learner._horizon, *learned)
        learner._hedged = value_of(values, "hedged", int)
        learner._notes = list(value_of(values, "notes", list))
        learner._earned_P = np.array(layout.take("earned", "f8", len(learner.experts) + 1))
        learner._out_M = np.array(layout.take("out", "bool", "M"))
        learner._outside_D = np.array(layout.take("outside", "f8", "outside"))
        for era in layout.numbers("pending.experts_PM."):
            parts = {
                "experts_PM": ("experts", "M"),
                "hedge_P": ("experts",),
                "answers_AM": (f"answers for {era}", "M"),
                "weights_M": ("M",),
            }
            learner._pending[era] = Choice(
                *(np.array(layout.take(f"pending.{part}.{era}", "f8", *sizes)) for part, sizes in parts.items())
            )
        learner._network.load(layout)
        learner._cells.load(layout)
        layout.end()
        return learner
