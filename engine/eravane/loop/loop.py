"""The prequential loop: predict an era, wait until older labels are known, score, learn."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from eravane.calendar.clock import KnownAt
from eravane.calendar.timeline import Timeline
from eravane.core.arrays import on_host
from eravane.data.features import Features
from eravane.gate.choice import LearnReport
from eravane.gate.context import ContextBuilder
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import EraFacts, EraOutcome
from eravane.gate.portable import agreement_of
from eravane.gate.versions import VersionScores
from eravane.learners.protocol import Model as Booster
from eravane.learners.registry import predict
from eravane.loop.decision import Measured, decide
from eravane.loop.sources import EraSource, source_of, values_of
from eravane.loop.updates import Model, Updater
from eravane.loop.versions import EarlierModels
from eravane.runstate.journal import EraRecord
from eravane.scoring.ensemble import gaussianize, one_era, standardised_target, to_prediction
from eravane.scoring.neutralization import Neutraliser
from eravane.zoo.specs import ModelSpec
from eravane_kernels.namespace import Kernels


@dataclass(frozen=True, eq=False)
class Pending:
    """A predicted era whose labels are not yet usable."""

    era: int
    base_MN: NDArray[np.float32]
    facts: EraFacts


@dataclass(frozen=True)
class StepReport:
    """Report of one step of the loop.

    Attributes:
        resolved: what the gate learnt of eras whose labels became usable.
        update: how trees were changed ("refit", "append", "leaves"; "" for not at all); updated: ids of those models.
        learnt: what the gate learnt.
        n_open: base models that ran.
        seconds: stage -> time; `shadow` is what evaluating the closed models took.
    """

    era: int
    resolved: tuple[EraOutcome, ...]
    update: str
    updated: tuple[str, ...]
    learnt: LearnReport
    n_open: int
    seconds: Mapping[str, float]

    def as_event(self) -> dict[str, object]:
        """The report as a line of events.jsonl holds it."""
        return {
            "era": self.era,
            "resolved": [outcome.era for outcome in self.resolved],
            "update": self.update,
            "updated": len(self.updated),
            "gate": self.learnt.as_event(),
            "n_open": self.n_open,
            "seconds": round(sum(self.seconds.values()), 4),
            "parts": {name: round(seconds, 4) for name, seconds in self.seconds.items()},
        }


class Loop:
    """The state of the engine between two eras, and the step from one to the next.

    Args:
        features: the store's prepared features and labels.
        specs: the selected base models; `models` must be set before the first step.
        gate: the meta-learner.
        context: measures an era for the gate.
        updater: updates the trees on schedule.
        timeline: periods and lags.
        target: the main target.
        ops: the kernels' namespace.
        known_at: labels that arrived later than the lags.
        neutraliser: what is taken out of the ensemble; None for nothing.
        device: torch device of the gate.

    Attributes:
        models: the base models as they stand, by id.
    """

    def __init__(
        self,
        features: Features,
        specs: Sequence[ModelSpec],
        *,
        gate: MetaLearner,
        context: ContextBuilder,
        updater: Updater,
        timeline: Timeline,
        target: str,
        ops: Kernels,
        known_at: KnownAt = KnownAt(),  # noqa: B008
        neutraliser: Neutraliser | None = None,
        device: str = "cpu",
    ) -> None:
        self.earlier = EarlierModels(features, specs, timeline.loop_start, ops)
        self.models: dict[str, Model] = {}
        self._features, self._specs, self._gate, self._context = features, tuple(specs), gate, context
        self._updater, self._timeline, self._target, self._ops = updater, timeline, target, ops
        self._known_at, self._neutraliser, self._device = known_at, neutraliser, device
        self._pending: list[Pending] = []
        self._boosters: dict[str, list[Booster]] = {}

    def await_labels(self, era: int, base_MN: NDArray[np.float32]) -> None:
        """Add predictions of an era (out-of-fold, or of a journal) whose labels the gate has not seen."""
        raw_CN = source_of(self._features, era).raw()
        self._pending.append(Pending(era, base_MN, self._context.facts(raw_CN, era)))

    def step(self, era: int, source: EraSource) -> tuple[EraRecord, StepReport]:
        """Handle one era: use the labels that became known, update, then predict it from its features alone."""
        clock = _StopClock()
        versions = self._gate.versions
        if versions is not None and not versions.kept:
            self.earlier.begin(versions, self.models, era)
        resolved = self._resolve(era)
        clock.lap("resolve")
        kind, updated = self._update(era)
        clock.lap("trees")
        learnt = self._gate.learn(era)
        clock.lap("gate")
        record, facts = self._predict(era, source, clock)
        self._pending.append(Pending(era, record.base_MN, facts))
        return record, StepReport(era, resolved, kind, updated, learnt, int(record.open_M.sum()), clock.seconds)

    def _predict(self, era: int, source: EraSource, clock: _StopClock) -> tuple[EraRecord, EraFacts]:
        """Decide gates, run the open models, weigh them; then evaluate the closed ones for when the era falls due."""
        facts = self._context.facts(source.raw(), era)
        decision = decide(self._gate, era, facts, lambda which_M: self.evaluate(source, which_M), self._ops, clock.lap)
        open_M, base_MN, mixed_N = decision.open_M, decision.base_MN, decision.mixed_N
        if self._neutraliser is not None:
            mixed_N = self._neutraliser.apply(mixed_N, source.cell(self._neutraliser.columns))
        prediction_N = to_prediction(mixed_N, self._ops)
        clock.lap("weigh")
        if not open_M.all():
            base_MN[~open_M] = self.evaluate(source, ~open_M)[~open_M]
        dispersion_M = Measured(self._ops).dispersion(base_MN)
        comparators = self._gate.comparators(era, dispersion_M)
        clock.lap("shadow")
        return EraRecord(era, base_MN, prediction_N, decision.weights_M, open_M, comparators), facts

    def state(self) -> tuple[dict[str, bytes], dict[str, Any]]:
        """Everything but trees and resolved eras that the next step depends on, as files and JSON-able facts."""
        arrays, gate_facts = self._gate.state(history=False)
        files = {
            "gate.safetensors": save({name: np.ascontiguousarray(array) for name, array in arrays.items()}),
            "gate.json": json.dumps(gate_facts).encode(),
        }
        return files, {"pending": [pending.era for pending in self._pending]}

    def restore(
        self,
        models: Mapping[str, Model],
        arrays: Mapping[str, NDArray[Any]],
        values: Mapping[str, object],
        pending: Sequence[int],
        base_of: Callable[[int], NDArray[np.float32]],
        frozen: Mapping[int, dict[str, Model]],
    ) -> None:
        """Restore a state.

        Args:
            models: the base models at that time.
            arrays, values: of the gate, its resolved eras among them.
            pending: eras that wait for their labels.
            base_of: base predictions [M, N] of an era that waits for its labels.
            frozen: earlier versions of the base models, by number.
        """
        self._gate = self._gate.restore(arrays, values, device=self._device)
        self.models = dict(models)
        self.earlier.frozen = dict(frozen)
        self._boosters.clear()
        self._pending.clear()
        for era in pending:
            self.await_labels(era, base_of(era))

    def _resolve(self, era: int) -> tuple[EraOutcome, ...]:
        """Pass the gate the eras whose labels are known; a missing one is skipped when a later one arrives.

        The gate learns in the order of eras, so a label that arrives after a later one no longer reaches it.
        """
        newest = self._timeline.clock.newest_score(era)
        resolved: list[EraOutcome] = []
        for pending in self._pending:
            if pending.era <= newest and not self._known_at.hidden(self._target, era, [pending.era]):
                label_N = self._features.labels(self._target, pending.era, pending.era)
                if not np.isnan(label_N).all():
                    resolved.append(self._outcome(pending, label_N))
        for outcome in resolved:
            self._gate.observe(outcome)
        if resolved:
            self._pending = [pending for pending in self._pending if pending.era > resolved[-1].era]
        return tuple(resolved)

    def _outcome(self, pending: Pending, label_N: NDArray[np.float32]) -> EraOutcome:
        """Outcome of an era, and what earlier versions of the models, out of sample by then, were paid in it."""
        meta_N, versions = self._features.meta_model(pending.era, pending.era), self._gate.versions
        outcome = outcome_of(pending, label_N, self._ops, meta_N)
        if versions is None:
            return outcome
        if numbers := versions.at(pending.era):
            # A checkpoint of a development version may lack the first one.
            earlier = [number for number in numbers[:-1] if number in self.earlier.frozen]
            paid = [self._payments(pending.era, self.earlier.predictions(number, pending.era)) for number in earlier]
            own_M = self._gate.paid(outcome.c_M, outcome.contribution_M)
            paid.append(np.where(np.nan_to_num(np.diag(outcome.C_MM)) > 0, own_M, np.nan))
            versions.score(pending.era, VersionScores((*earlier, numbers[-1]), np.stack(paid)))
        return outcome

    def _payments(self, era: int, base_MN: NDArray[np.float32]) -> NDArray[np.float64]:
        """Payments of models in an era by their predictions [M], NaN for constant ones."""
        label_N, meta_N = self._features.labels(self._target, era, era), self._features.meta_model(era, era)
        known = ~np.isnan(label_N)
        base_MN = np.ascontiguousarray(base_MN[:, known])
        meta_N = None if meta_N is None else meta_N[known]
        paid_M = self._gate.paid(
            *c_and_mmc(base_MN, gaussianize(base_MN, self._ops), label_N[known], self._ops, meta_N)
        )
        return np.where(base_MN.min(axis=1) < base_MN.max(axis=1), paid_M, np.nan)

    def _paid_before(self, refitted: Sequence[str], era: int) -> dict[int, NDArray[np.float64]]:
        """Payments [M] of models refitted for `era` in resolved eras before the windows that they were trained on.

        NaN for the others. Empty where models are trained on all eras.
        """
        scored = [
            self._updater.eras_before(spec, era) if spec.model_id in refitted else range(0) for spec in self._specs
        ]
        found = {}
        for before in self._gate.resolved:
            which_M = np.array([before in eras for eras in scored])
            if which_M.any():
                base_MN = self.evaluate(source_of(self._features, before), which_M)
                found[before] = np.full(len(which_M), np.nan)
                found[before][which_M] = self._payments(before, base_MN[which_M])
        return found

    def _update(self, era: int) -> tuple[str, tuple[str, ...]]:
        kind = self._updater.due(era)
        if not kind:
            return "", ()
        before = self.models
        awake = [spec for spec, rests in zip(self._specs, self._gate.resting_M, strict=True) if not rests]
        self.models = self._updater.update(awake, self.models, era)
        names = tuple(spec.model_id for spec in awake)
        for name in names:
            self._boosters.pop(name, None)
        if kind == "refit" and self._gate.versions is not None:
            paid, waiting = self._paid_before(names, era), [pending.era for pending in self._pending]
            self.earlier.renew(self._gate.versions, before, self.models, era, paid, waiting)
        return kind, names

    def evaluate(self, source: EraSource, which_M: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Predictions of some base models as they stand, float32 [M, N]; NaN for the others."""
        base_MN: NDArray[np.float32] | None = None
        for m in np.flatnonzero(which_M):
            spec = self._specs[m]
            if spec.model_id not in self._boosters:
                self._boosters[spec.model_id] = self.models[spec.model_id].trees.boosters()
            predicted_N = predict(self._boosters[spec.model_id], values_of(source, spec))
            if base_MN is None:
                base_MN = np.full((len(self._specs), predicted_N.size), np.nan, dtype=np.float32)
            base_MN[m] = predicted_N
        if base_MN is None:
            return np.full((len(self._specs), source.raw().shape[1]), np.nan, dtype=np.float32)
        return base_MN


def outcome_of(
    pending: Pending, label_N: NDArray[np.float32], ops: Kernels, meta_N: NDArray[np.float32] | None = None
) -> EraOutcome:
    """Outcome of a resolved era for the gate: scores and sufficient statistics over its labelled rows.

    `meta_N` is the meta model's prediction, NaN where it has none; with it the models' contributions are known.
    """
    known = ~np.isnan(label_N)
    base_MN = np.ascontiguousarray(pending.base_MN[:, known])
    z_MN = gaussianize(base_MN, ops)
    C_MM, dispersion_M = agreement_of(z_MN, base_MN, Measured(ops))
    c_M, contribution_M = c_and_mmc(base_MN, z_MN, label_N[known], ops, None if meta_N is None else meta_N[known])
    return EraOutcome(
        era=pending.era,
        scores_M=on_host(ops.numerai_corr(base_MN, label_N[known], one_era(base_MN.shape[1])))[:, 0],
        c_M=c_M,
        C_MM=C_MM,
        facts=pending.facts,
        dispersion_M=dispersion_M,
        contribution_M=contribution_M,
    )


def c_and_mmc(
    base_MN: NDArray[np.float32],
    z_MN: NDArray[np.float64],
    label_N: NDArray[np.float32],
    ops: Kernels,
    meta_N: NDArray[np.float32] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """c of every model in an era [M], and its contribution (MMC) where the meta model is known, else None.

    Args:
        base_MN, z_MN: predictions of the labelled rows, raw and gaussianized; label_N: their labels.
        ops: the kernels' namespace.
        meta_N: the meta model's predictions of them, NaN where it has none; None where it is not read.
    """
    y_N = standardised_target(label_N)
    c_M: NDArray[np.float64] = on_host(ops.mean_products(z_MN, y_N, one_era(y_N.size)))[:, 0]
    if meta_N is None or np.isnan(meta_N).all():
        return c_M, None
    return c_M, on_host(ops.contribution(base_MN, meta_N, label_N, one_era(y_N.size)))[:, 0]


class _StopClock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
