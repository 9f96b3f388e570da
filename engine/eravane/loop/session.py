"""A loop that survives being killed: each era is journalled and checkpointed, and resuming ends in the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from eravane.core.errors import RunError
from eravane.data.features import Features
from eravane.loop.boosters import ModelFolder, StoredModel
from eravane.loop.loop import Loop, StepReport
from eravane.loop.sources import StoredEra, digest_of_rows, has_era, source_of
from eravane.loop.tally import Tally
from eravane.runstate.checkpoint import Checkpoints
from eravane.runstate.journal import Journal
from eravane.runstate.resolved import ResolvedEras

# Eras behind the present one that the loop itself may still read; older pages of the store are given back.
READ_BEHIND = 64
ERAS, RESOLVED = "checkpoints/eras", "checkpoints/resolved"


@dataclass(frozen=True)
class Resumed:
    """Where a session goes on.

    Attributes:
        era: the era that is done; None where the loop has to be begun.
        notes: what the user should know.
    """

    era: int | None
    notes: tuple[str, ...]


class Session:
    """A loop with its state on disk.

    What grows with the eras (records, resolved eras, boosters) is written once; a checkpoint holds the rest, so that it
    costs the same at every era.

    Args:
        folder: the run folder; `checkpoints/` and `models/` are made in it.
        loop: the loop, fresh.
        features: the store's features, as the loop reads them.
        columns: model id -> features of the model.
        identity: what a checkpoint must have been made with.
        tally: sums up scores as labels come in.

    Attributes:
        journal: what has been predicted so far.
        tally: scores so far.
        newest: newest era that is done; -1 for none.
    """

    def __init__(
        self,
        folder: Path,
        loop: Loop,
        features: Features,
        columns: Mapping[str, tuple[str, ...]],
        identity: Mapping[str, Sequence[str]],
        tally: Tally,
    ) -> None:
        self.journal, self.tally = Journal(folder / ERAS), tally
        self._resolved = ResolvedEras(folder / RESOLVED)
        self._checkpoints = Checkpoints(folder / "checkpoints", identity)
        self._models = ModelFolder(folder)
        self._loop, self._features, self._columns = loop, features, columns
        self._rolling = features.store.roll(READ_BEHIND - features.needed(0))
        self._newest_resolved = self.newest = -1

    def resume(self, oof_of: Callable[[int], NDArray[np.float32]], loop_start: int) -> Resumed:
        """Restore the newest whole checkpoint.

        A checkpoint after a live era counts only while the data still say of that era what they said then; else the era
        is done again.

        Args:
            oof_of: out-of-fold predictions [M, N] of an era before the loop.
            loop_start: first era of the loop.

        Raises:
            RunError: the checkpoint belongs to another run.
        """
        notes: list[str] = []
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

        def base_of(waiting: int) -> NDArray[np.float32]:
            return oof_of(waiting) if waiting < loop_start else self.journal.read(waiting).base_MN

        self._resolved.forget_after(facts["resolved"])
        history = self._resolved.history(facts["resolved"], len(self._columns), gate_facts(files)["names"])
        models = self._models.get(stored_models(facts), self._columns)
        self._loop.restore(models, files, facts["loop"], history, base_of)
        self.tally.restore(facts["tally"])
        self._newest_resolved, self.newest = facts["resolved"], era
        return Resumed(era, tuple(notes))

    @property
    def newest_saved(self) -> int:
        """Era of the newest checkpoint, whole or not; -1 where there is none."""
        return max(self._checkpoints.steps(), default=-1)

    def rewind(self, era: int) -> None:
        """Forget `era` and all later ones; call `resume` afterwards, on a fresh loop."""
        self._checkpoints.drop_from(era)

    def advance(self, era: int) -> StepReport:
        """Do one era and save: afterwards a kill loses nothing."""
        source = source_of(self._features, era)
        stored = isinstance(source, StoredEra)
        record, report = self._loop.step(era, source)
        self.journal.write(record)
        for outcome in report.resolved:
            self._resolved.write(outcome)
            self._newest_resolved = outcome.era
            if outcome.era >= self.tally.start:
                self.tally.add(self.journal.read(outcome.era))
        files, facts = self._loop.state()
        self._checkpoints.save(
            era,
            files,
            {
                "loop": facts,
                "models": {name: asdict(where) for name, where in self._models.put(self._loop.models).items()},
                "resolved": self._newest_resolved,
                "tally": self.tally.state(),
                "live": "" if stored else digest_of_rows(source),
            },
        )
        saved = self._checkpoints.facts()
        self._models.keep_only([stored_models(facts) for facts in saved])
        self.newest = era
        if stored:
            self._rolling.advance(era)
        return report

    def finish(self) -> None:
        """Name the trees in `models/index.json`."""
        self._models.write_index(self._models.put(self._loop.models), self._columns)

    def _still_true(self, era: int, digest: str) -> bool:
        """Whether the data say of an era that was live what they said then."""
        if not digest:
            return True
        if not has_era(self._features, era):
            return False
        return digest_of_rows(source_of(self._features, era)) == digest


def gate_facts(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The gate's own facts in a checkpoint's files."""
    found: dict[str, Any] = json.loads(files["gate.json"])
    return found


def stored_models(facts: Mapping[str, Any]) -> dict[str, StoredModel]:
    """Where the models of a checkpoint lie, by name, from its facts."""
    return {name: StoredModel(tuple(where["blocks"]), where["margins"]) for name, where in facts["models"].items()}


def saved_state(
    folder: Path, identity: Mapping[str, Sequence[str]]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, StoredModel]]:
    """The newest whole checkpoint of a run, for those who read it: the gate's arrays and facts, and the models.

    Args:
        folder: the run folder.
        identity: what the checkpoint must have been made with.

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
    history = ResolvedEras(folder / RESOLVED).history(facts["resolved"], len(gate["models"]), gate["names"])
    return load(files["gate.safetensors"]) | history.arrays(), gate, stored_models(facts)
