"""A loop with its state on disk: each era is journalled and checkpointed, and resuming ends with the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from eravane.backend import Backend
from eravane.calendar.clock import KnownAt
from eravane.calendar.eras import EraFrame
from eravane.calendar.timeline import Timeline
from eravane.core.arrays import Named
from eravane.core.config import RunConfig
from eravane.core.errors import LayoutError, RunError
from eravane.core.layout import value_of
from eravane.core.seeds import derive_seed
from eravane.data.features import Features
from eravane.data.store.window import RollingWindow
from eravane.gate.context import ContextBuilder
from eravane.gate.facts import OutsideFacts
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import History
from eravane.gate.stored import stored_models, stored_rule
from eravane.loop.boosters import ModelFolder, StoredModel
from eravane.loop.edition import gate_of, update_constants
from eravane.loop.loop import Loop, StepReport
from eravane.loop.pool import OofOf, gate_pool
from eravane.loop.results import ResultFiles, RunningScores
from eravane.loop.sources import digest_of_rows, has_era, source_of
from eravane.loop.updates import Model, Updater
from eravane.runstate.checkpoint import Checkpoints
from eravane.runstate.journal import Journal
from eravane.runstate.resolved import ResolvedEras
from eravane.runstate.runfolder import RunFolder
from eravane.scoring.neutralization import Neutraliser
from eravane.scoring.payout import RULES, PayoutRule
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo, start_models
from eravane.zoo.training import Finished

# Eras before the present one that every step may read. Older pages of the store are released, again after refits, which
# read them.
READ_BEHIND = 64
ERAS, RESOLVED = "checkpoints/eras", "checkpoints/resolved"


@dataclass(frozen=True)
class Resumed:
    """The point at which a session continues.

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
                horizon=timeline.clock.span.eras,
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
        self._rolling = self._roll()
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
        notes = list[str]()
        while (saved := self._checkpoints.load()) is not None:
            era, files, facts, found = saved
            notes += found
            with self._checkpoints.laid_out(era):
                digest = value_of(facts, "live", str)
            if self._still_true(era, digest):
                break
            self._checkpoints.drop_from(era)
            notes.append(f"the rows of era {era} are not those that it was predicted from: it is done again")
        self.journal.forget_after(-1 if saved is None else saved[0])
        if saved is None:
            self._resolved.forget_after(-1)
            return Resumed(None, tuple(notes))
        with self._checkpoints.laid_out(era):
            return self._restore(era, files, facts, oof_of, tuple(notes))

    def _restore(
        self, era: int, files: Mapping[str, bytes], facts: Mapping[str, object], oof_of: OofOf, notes: tuple[str, ...]
    ) -> Resumed:
        loop_start, kept = self.timeline.loop_start, Facts.of(facts)
        stored = kept.models
        own = {spec.model_id for spec in self.specs if not spec.outside}
        if not own <= stored.keys() <= self._columns.keys():
            raise RunError(
                f"{self._path} was begun with the models {', '.join(stored)}, and selection now gives "
                f"{', '.join(self._columns)}; continue with the libraries it was begun with (`versions` in its "
                "manifest.json), or start a new run"
            )

        def base_of(waiting: int) -> NDArray[np.float32]:
            return oof_of(waiting) if waiting < loop_start else self.journal.read(waiting).base_MN

        self._resolved.forget_after(kept.resolved)
        arrays, gate = read_gate(files)
        history = read_history(self._resolved, kept.resolved, gate)
        models = self._models.get(stored, self._columns)
        frozen = {n: self._models.get(stored, self._columns) for n, stored in kept.versions.items()}
        self.loop.restore(models, arrays | history.arrays(), gate, kept.pending, base_of, frozen)
        self.running.restore(kept.running)
        self._newest_resolved, self.newest = kept.resolved, era
        return Resumed(era, notes)

    def moved(self, era: int, rows: int) -> float:
        """Largest difference between what the stored models predict of an era's first rows, and what they predicted.

        Args:
            era: the era of the checkpoint that `resume` restored; rows: how many.
        """
        own_M = np.array([not spec.outside for spec in self.specs])
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
        kept = [Facts.of(facts) for facts in saved]
        self._models.keep_only([models for facts in kept for models in (facts.models, *facts.versions.values())])
        self.newest = era
        if report.update == "refit":
            self._rolling = self._roll()
        if stored:
            self._rolling.advance(era)
        return report

    def _roll(self) -> RollingWindow:
        """A window of the store that has released nothing."""
        return self.features.store.roll(READ_BEHIND - self.features.needed(0))

    def _stored(self, models: Mapping[str, Model]) -> dict[str, dict[str, object]]:
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


@dataclass(frozen=True)
class Facts:
    """Content of a checkpoint beside the gate.

    Attributes:
        pending: eras that wait for their labels.
        models: files of the models; versions: of earlier versions, by number.
        resolved: newest resolved era; running: state of `RunningScores`.
    """

    pending: tuple[int, ...]
    models: Mapping[str, StoredModel]
    versions: Mapping[int, Mapping[str, StoredModel]]
    resolved: int
    running: Mapping[str, object]

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> Facts:
        """Read a checkpoint's facts; the first release wrote no versions.

        Raises:
            LayoutError: some are missing, or of another type.
        """
        versions = value_of(facts, "versions", dict) if "versions" in facts else {}
        pending = value_of(value_of(facts, "loop", dict), "pending", list)
        odd = [entry for entry in (*pending, *versions) if not str(entry).isdecimal()]
        if odd:
            raise LayoutError(f"does not understand {odd[0]!r} in the place of a number")
        return cls(
            tuple(int(era) for era in pending),
            _models_of(value_of(facts, "models", dict)),
            {int(number): _models_of(value_of(versions, number, dict)) for number in versions},
            value_of(facts, "resolved", int),
            value_of(facts, "tally", dict),
        )


def _models_of(content: Mapping[str, object]) -> dict[str, StoredModel]:
    found = {}
    for name in content:
        where = value_of(content, name, dict)
        blocks = tuple(str(block) for block in value_of(where, "blocks", list))
        found[name] = StoredModel(blocks, value_of(where, "margins", str))
    return found


def read_gate(files: Mapping[str, bytes]) -> tuple[Named, dict[str, Any]]:
    """The gate's arrays without its history, and its values, from a checkpoint's files.

    Raises:
        LayoutError: a file is missing, or of another format.
    """
    try:
        values, arrays = json.loads(files["gate.json"]), load(files["gate.safetensors"])
    except (KeyError, ValueError, SafetensorError) as error:
        raise LayoutError(f"cannot read its gate ({error})") from None
    if not isinstance(values, dict):
        raise LayoutError("does not understand gate.json: it holds no table of keys")
    return arrays, values


def read_history(resolved: ResolvedEras, newest: int, gate: Mapping[str, object]) -> History:
    """The resolved eras of a gate with these values.

    Raises:
        LayoutError: values are missing; RunError: a file is damaged.
    """
    names, rule = value_of(gate, "names", dict), stored_rule(gate, noted=False)
    return resolved.history(newest, len(stored_models(gate)), names, rule)


def saved_state(
    folder: Path, identity: Mapping[str, Sequence[str]], gate: type[MetaLearner]
) -> tuple[Named, MetaLearner, dict[str, StoredModel]]:
    """The newest complete checkpoint of a run: arrays of the gate, the gate itself, and files of the models.

    Args:
        folder: the run folder.
        identity: required identity of the checkpoint.
        gate: the class of the gate.

    Raises:
        RunError: there is none, it belongs to another run or build, or a file it needs is damaged.
    """
    checkpoints = Checkpoints(folder / "checkpoints", identity)
    found, saved = checkpoints.steps(), checkpoints.load()
    if saved is None and found:
        raise RunError(f"every checkpoint in {folder / 'checkpoints'} is damaged; run it again with --resume")
    if saved is None:
        raise RunError(f"{folder} has no checkpoint; its loop has not begun")
    era, files, facts, _ = saved
    with checkpoints.laid_out(era):
        (arrays, values), kept = read_gate(files), Facts.of(facts)
        history = read_history(ResolvedEras(folder / RESOLVED), kept.resolved, values)
        arrays |= history.arrays()
        return arrays, gate.restore(arrays, values), dict(kept.models)
