"""A loop that survives being killed: each era is journalled and checkpointed, and resuming ends in the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eravane.checkpoint import Checkpoints
from eravane.loop.boosters import ModelFolder
from eravane.loop.journal import Journal
from eravane.loop.loop import Loop, StepReport


class Session:
    """A loop with its state on disk.

    Args:
        folder: the run folder; `checkpoints/` and `models/` are made in it.
        loop: the loop, fresh.
        columns: model id -> features of the model.
        identity: what a checkpoint must have been made with.

    Attributes:
        journal: what has been predicted so far.
    """

    def __init__(
        self, folder: Path, loop: Loop, columns: Mapping[str, tuple[str, ...]], identity: Mapping[str, str]
    ) -> None:
        self.journal = Journal(folder / "checkpoints" / "eras")
        self._checkpoints = Checkpoints(folder / "checkpoints", identity)
        self._models = ModelFolder(folder / "models")
        self._loop, self._columns = loop, columns

    def resume(self, oof_of: Callable[[int], NDArray[np.float32]], loop_start: int) -> tuple[int, list[str]] | None:
        """Restore the newest whole checkpoint.

        Args:
            oof_of: out-of-fold predictions [M, N] of an era before the loop.
            loop_start: first era of the loop.

        Returns:
            The era it was saved after and notes for the user; None where there is no checkpoint.

        Raises:
            RunError: the checkpoint belongs to another run.
        """
        saved = self._checkpoints.load()
        self.journal.forget_after(-1 if saved is None else saved[0])
        if saved is None:
            return None
        era, files, facts, notes = saved

        def base_of(waiting: int) -> NDArray[np.float32]:
            return oof_of(waiting) if waiting < loop_start else self.journal.read(waiting).base_MN

        self._loop.restore(self._models.get(facts["blocks"], self._columns), files, facts["loop"], base_of)
        return era, notes

    def advance(self, era: int) -> StepReport:
        """Do one era and save: afterwards a kill loses nothing."""
        record, report = self._loop.step(era)
        self.journal.write(record)
        files, facts = self._loop.state()
        self._checkpoints.save(era, files, {"loop": facts, "blocks": self._models.put(self._loop.models)})
        return report

    def finish(self) -> None:
        """Name the final trees in `models/index.json` and drop the ones they have replaced.

        The checkpoints keep those that they refer to.
        """
        names = self._models.put(self._loop.models)
        self._models.write_index(names, self._columns)
        self._models.keep_only(name for blocks in (names, *self._saved_blocks()) for name in _flat(blocks))

    def _saved_blocks(self) -> list[Mapping[str, list[str]]]:
        return [facts["blocks"] for facts in self._checkpoints.facts()]


def _flat(blocks: Mapping[str, list[str]]) -> list[str]:
    return [name for parts in blocks.values() for name in parts]
