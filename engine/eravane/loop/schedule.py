"""The labels that a run has seen, and since when; weekly steps and a replay must agree on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eravane.calendar.clock import KnownAt
from eravane.core.errors import RunError
from eravane.core.files import write_atomically
from eravane.data.store.store import EraStore
from eravane.runstate.runfolder import RunFolder

FILE_NAME = "known_at.json"

Digests = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Schedule:
    """Content of `known_at.json`.

    Attributes:
        known_at: labels that arrived after the run, and the first era that could use them.
        labels: target -> era -> digest of the labels when last seen; eras without a label are not listed.
        done: newest finished era when they were seen.
    """

    known_at: KnownAt = field(default_factory=KnownAt)
    labels: Digests = field(default_factory=dict)
    done: int = 0

    def seen(self, labels: Digests, done: int) -> Schedule:
        """The same with labels as they are now."""
        return Schedule(self.known_at, labels, done)

    def arrived(self, labels: Digests, done: int) -> Schedule:
        """The same with labels as they are now; new ones are known from the era after `done` on."""
        known_at = self.known_at
        for target, found in labels.items():
            before = self.labels.get(target, {})
            known_at = known_at.with_arrivals(target, [era for era in found if era not in before], done + 1)
        return Schedule(known_at, labels, done)

    def changed(self, labels: Digests) -> dict[str, tuple[int, ...]]:
        """Eras per target whose labels were seen and have changed or disappeared."""
        found: dict[str, tuple[int, ...]] = {}
        for target, before in self.labels.items():
            now = labels.get(target, {})
            eras = tuple(era for era, digest in before.items() if now.get(era) != digest)
            if eras:
                found[target] = eras
        return found

    def write(self, folder: RunFolder) -> None:
        """Write the file atomically."""
        labels = {target: {str(era): digest for era, digest in found.items()} for target, found in self.labels.items()}
        content = {"known_at": self.known_at.as_dict(), "done": self.done, "labels": labels}
        write_atomically(folder.path / FILE_NAME, (json.dumps(content) + "\n").encode())

    @classmethod
    def read(cls, folder: RunFolder) -> Schedule:
        """Read the file.

        Raises:
            RunError: it is missing or damaged.
        """
        content = folder.read_json(FILE_NAME)
        try:
            labels = {
                target: {int(era): digest for era, digest in found.items()}
                for target, found in content["labels"].items()
            }
            return cls(KnownAt.from_dict(content["known_at"]), labels, content["done"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{folder.path / FILE_NAME} is damaged ({error}); start a new run") from error


def label_digests(store: EraStore, targets: Sequence[str]) -> dict[str, dict[int, str]]:
    """Digests of the labels of every era that has some, by target."""
    found: dict[str, dict[int, str]] = {target: {} for target in targets}
    for segment in store.segments:
        for target, eras in found.items():
            row = store.targets.index(target)
            for position, era in enumerate(segment.index):
                if not np.isnan(segment.labels.values[row, segment.index.rows_of(era)]).all():
                    eras[era] = f"{int(segment.labels.digests[position, row]):016x}"
    return found
