"""A loop with its state on disk: each era is journalled and checkpointed, and resuming ends with the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from eravane.backend import Backend
from eravane.calendar.clock import KnownAt
from eravane.calendar.eras import EraFrame
from eravane.calendar.timeline import Timeline
from eravane.core.config import RunConfig
from eravane.core.errors import RunError
from eravane.core.seeds import derive_seed
from eravane.data.features import Features
from eravane.gate.context import ContextBuilder
from eravane.gate.facts import OutsideFacts
from eravane.loop.boosters import ModelFolder, StoredModel
from eravane.loop.edition import gate_of, update_constants
from eravane.loop.loop import Loop, StepReport
from eravane.loop.pool import OofOf, gate_pool
from eravane.loop.results import ResultFiles
from eravane.loop.running import RunningScores
from eravane.loop.sources import digest_of_rows, has_era, source_of
from eravane.loop.updates import Model, Updater
from eravane.runstate.checkpoint import Checkpoints
from eravane.runstate.journal import Journal
from eravane.runstate.resolved import ResolvedEras
from eravane.runstate.runfolder import RunFolder
from eravane.scoring.neutralization import Neutraliser
from eravane.scoring.payout import RULES, PayoutRule, noted_rule
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo, start_models
from eravane.zoo.training import Finished

# Eras before the present one that the loop may still read; older pages of the store are released.
READ_BEHIND = 64
ERAS, RESOLVED = "checkpoints/eras", "checkpoints/resolved"


@dataclass(frozen=True)
class Resumed:
    """Where a session continues.

    Attributes:
        era: the last finished era; None where the loop has not begun.
        notes: facts for the user.
    """

    era: int | None
    notes: tuple[str, ...]


class Session:
    """A loop with its state on disk.

    Data that grow with the eras (records, resolved eras, boosters) are written once; a checkpoint holds the rest, so
    that it costs the same at every era.

    Args:
        folder: the run folder; `checkpoints/` and `models/` are made in it.
        config: the run's configuration.
        features: the store's prepared features and labels.
        timeline: periods and lags.
        specs: the selected base models.
        zoo: trains them.
        backend: the device.
        identity: what a checkpoint must have been made with.
        neutral_columns: features that the ensemble is neutralised to; empty for none.
        known_at: labels that arrived later than the lags.
        payout: what is paid.

    Attributes:
        features, timeline, specs: as given.
        loop: the loop, fresh until `resume` or `begin`.
        journal: what has been predicted so far.
        running: scores so far.
        results: writes the run's result files.
        newest: newest era that is done; -1 for none.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        features: Features,
        timeline: Timeline,
        specs: tuple[ModelSpec, ...],
        zoo: Zoo,
        backend: Backend,
        identity: Mapping[str, Sequence[str]],
        *,
        neutral_columns: tuple[str, ...] = (),
        known_at: KnownAt = KnownAt(),  # noqa: B008
        payout: PayoutRule = RULES[-1],
    ) -> None:
        self.timeline, self.specs, self._zoo, self.features = timeline, specs, zoo, features
        target, store, ops = config.data.target, features.store, backend.kernels
        pool, cells = gate_pool(specs, store.columns)
        outside = OutsideFacts.read(Path(config.gate.facts), config.gate.facts_lag) if config.gate.facts else None
        self.loop = Loop(
            features,
            specs,
            gate=gate_of(config.gate)(
                config.gate,
                pool,
                lag=timeline.clock.score_lag,
                horizon=timeline.clock.horizon,
                seed=derive_seed(config.seed, "gate"),
                device=backend.torch_device,
                aim=config.aim,
                payout=payout,
            ),
            context=ContextBuilder(pool, cells, ops, config.gate, outside),
            updater=Updater(store.path, config, timeline, zoo, known_at, **update_constants(config.loop)),
            timeline=timeline,
            target=target,
            ops=ops,
            known_at=known_at,
            neutraliser=Neutraliser(neutral_columns, config.postprocess.proportion, ops) if neutral_columns else None,
            device=backend.torch_device,
        )
        self.journal = Journal(folder.path / ERAS)
        self.running = RunningScores(features, target, timeline.report_start, ops)
        self.results = ResultFiles(folder, features, self.model_ids, timeline, target, ops, known_at)
        self._resolved = ResolvedEras(folder.path / RESOLVED)
        self._checkpoints = Checkpoints(folder.path / "checkpoints", identity)
        self._models, self._path = ModelFolder(folder.path), folder.path
        self._columns = {spec.model_id: spec.columns for spec in specs}
        self._rolling = features.store.roll(READ_BEHIND - features.needed(0))
        self._newest_resolved = self.newest = -1

    @property
    def model_ids(self) -> tuple[str, ...]:
        """Ids of the base models, in the order of every array."""
        return tuple(spec.model_id for spec in self.specs)

    @property
    def live(self) -> EraFrame | None:
        """The live rows; None where the data have none, or where the run ends before the data's newest era."""
        live = self.features.store.live()
        return None if live is None or live.index.first != self.timeline.live_era else live

    def remaining(self, done: int | None) -> list[int]:
        """Eras of the loop after `done` (None: from its start), the live one last."""
        eras = list(self.features.store.index.select(self.timeline.loop_start, self.timeline.last_era))
        if self.live is not None:
            eras.append(self.timeline.live_era)
        return eras if done is None else [era for era in eras if era > done]

    def fit_first_models(self, on_model: Callable[[Finished], None] | None = None) -> None:
        """Fit the models that start the loop."""
        trees = start_models(self._zoo, self.specs, self.timeline.loop_start, on_model)
        self.loop.models = {model_id: Model(found) for model_id, found in trees.items()}

    def resume(self, oof_of: OofOf) -> Resumed:
        """Restore the newest complete checkpoint.

        A checkpoint after a live era counts only while the data of that era are unchanged; otherwise the era is
        predicted again.

        Args:
            oof_of: out-of-fold predictions of an era before the loop.

        Raises:
            RunError: the checkpoint belongs to another run.
        """
        notes, loop_start = list[str](), self.timeline.loop_start
        while (saved := self._checkpoints.load()) is not None:
            era, files, facts, found = saved
            notes += found
            if self._still_true(era, facts["live"]):
                break
            self._checkpoints.drop_from(era)
            notes.append(f"the rows of era {era} are not those that it was predicted from: it is done again")
        self.journal.forget_after(-1 if saved is None else saved[0])
        if saved is None:
            self._resolved.forget_after(-1)
            return Resumed(None, tuple(notes))
        stored = stored_models(facts)
        own = {spec.model_id for spec in self.specs if not spec.given}
        if not own <= stored.keys() <= self._columns.keys():
            raise RunError(
                f"{self._path} was begun with the models {', '.join(stored)}, and selection now gives "
                f"{', '.join(self._columns)}; continue with the libraries it was begun with (`versions` in its "
                "manifest.json), or start a new run"
            )

        def base_of(waiting: int) -> NDArray[np.float32]:
            return oof_of(waiting) if waiting < loop_start else self.journal.read(waiting).base_MN

        self._resolved.forget_after(facts["resolved"])
        gate = gate_facts(files)
        history = self._resolved.history(facts["resolved"], len(self._columns), gate["names"], noted_rule(gate))
        models = self._models.get(stored, self._columns)
        frozen = {n: self._models.get(stored, self._columns) for n, stored in stored_versions(facts).items()}
        self.loop.restore(models, files, facts["loop"], history, base_of, frozen)
        self.running.restore(facts["tally"])
        self._newest_resolved, self.newest = facts["resolved"], era
        return Resumed(era, tuple(notes))

    def moved(self, era: int, rows: int) -> float:
        """Largest difference between what the stored models predict of an era's first rows, and what they predicted.

        Args:
            era: the era of the checkpoint that `resume` restored; rows: how many.
        """
        own_M = np.array([not spec.given for spec in self.specs])
        now_MN = self.loop.evaluate(source_of(self.features, era), own_M)[own_M, :rows]
        then_MN = self.journal.read(era).base_MN[own_M, :rows]
        return float(np.abs(now_MN - then_MN).max(initial=0.0))

    @property
    def newest_saved(self) -> int:
        """Era of the newest checkpoint, complete or not; -1 where there is none."""
        return max(self._checkpoints.steps(), default=-1)

    def rewind(self, era: int) -> None:
        """Drop `era` and all later ones; call `resume` afterwards, on a fresh loop."""
        self._checkpoints.drop_from(era)

    def advance(self, era: int) -> StepReport:
        """Handle one era and save: afterwards a kill loses nothing."""
        source = source_of(self.features, era)
        stored = source.live is None
        record, report = self.loop.step(era, source)
        self.journal.write(record)
        for outcome in report.resolved:
            self._resolved.write(outcome)
            self._newest_resolved = outcome.era
            if outcome.era >= self.running.start:
                self.running.add(self.journal.read(outcome.era))
        files, facts = self.loop.state()
        self._checkpoints.save(
            era,
            files,
            {
                "loop": facts,
                "models": self._stored(self.loop.models),
                "versions": {n: self._stored(models) for n, models in self.loop.earlier.frozen.items()},
                "resolved": self._newest_resolved,
                "tally": self.running.state(),
                "live": "" if stored else digest_of_rows(source),
            },
        )
        saved = self._checkpoints.facts()
        kept = [models for facts in saved for models in (stored_models(facts), *stored_versions(facts).values())]
        self._models.keep_only(kept)
        self.newest = era
        if stored:
            self._rolling.advance(era)
        return report

    def _stored(self, models: Mapping[str, Model]) -> dict[str, dict[str, Any]]:
        return {name: asdict(where) for name, where in self._models.put(models).items()}

    def finish(self) -> None:
        """Name the trees in `models/index.json`."""
        self._models.write_index(self._models.put(self.loop.models), self._columns)

    def _still_true(self, era: int, digest: str) -> bool:
        """Whether the data of an era that was live are the same as then."""
        if not digest:
            return True
        if not has_era(self.features, era):
            return False
        return digest_of_rows(source_of(self.features, era)) == digest


def gate_facts(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The gate's own facts in a checkpoint's files."""
    found: dict[str, Any] = json.loads(files["gate.json"])
    return found


def stored_models(facts: Mapping[str, Any]) -> dict[str, StoredModel]:
    """Files of the models of a checkpoint, by name, from its facts."""
    return _models_of(facts["models"])


def stored_versions(facts: Mapping[str, Any]) -> dict[int, dict[str, StoredModel]]:
    """Files of earlier versions of the models of a checkpoint, by number; none where an older release wrote it."""
    return {int(number): _models_of(models) for number, models in facts.get("versions", {}).items()}


def _models_of(content: Mapping[str, Any]) -> dict[str, StoredModel]:
    return {name: StoredModel(tuple(where["blocks"]), where["margins"]) for name, where in content.items()}


def saved_state(
    folder: Path, identity: Mapping[str, Sequence[str]]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, StoredModel]]:
    """The newest complete checkpoint of a run: the gate's arrays and facts, and the models.

    Args:
        folder: the run folder.
        identity: required identity of the checkpoint.

    Raises:
        RunError: there is none, it belongs to another run or build, or a file it needs is damaged.
    """
    checkpoints = Checkpoints(folder / "checkpoints", identity)
    found, saved = checkpoints.steps(), checkpoints.load()
    if saved is None and found:
        raise RunError(f"every checkpoint in {folder / 'checkpoints'} is damaged; run it again with --resume")
    if saved is None:
        raise RunError(f"{folder} has no checkpoint; its loop has not begun")
    _, files, facts, _ = saved
    gate = gate_facts(files)
    resolved, payout = ResolvedEras(folder / RESOLVED), noted_rule(gate)
    history = resolved.history(facts["resolved"], len(gate["models"]), gate["names"], payout)
    return load(files["gate.safetensors"]) | history.arrays(), gate, stored_models(facts)
