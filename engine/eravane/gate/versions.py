"""Cells that stay: what the present version of every model would have scored in past eras.

A refit replaces a cell's model and breaks the history of its scores. All versions are kept as their predictions of
reference rows, a few kilobytes each. In a past era s some versions were out of sample, and what they scored is known.
The score of the newest version follows from how its predictions correlate with theirs,

    c_new(s) = C_new,old (C_old + k I)^-1 c_old(s),

over all cells together. No label of the newest version's training enters but those that older versions were scored on.

The first version is scored in all later eras, so that its history is of one kind: no refit looks like a regime in it.

Where models are trained on a window that rolls, the newest version is out of sample in eras before its window, too:
there it is scored itself, once, when it is put in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Floats as FloatArray
from eravane.core.errors import LayoutError
from eravane.core.layout import Layout

# Ridge of the projection: without it noise in C^-1 costs more than the projection gains; .1 to .3 are alike.
STEADY = 0.1
# Versions that the newest one is projected from: the one in force in an era and its forerunners; one more adds next to
# nothing.
PROJECTED_FROM = 3


def scored_versions(begun: int) -> tuple[int, ...]:
    """Numbers of the versions scored in an era when `begun` have begun: the first, and the last `PROJECTED_FROM`."""
    newest = range(max(0, begun - PROJECTED_FROM), begun)
    return tuple(newest) if begun <= PROJECTED_FROM else (0, *newest)


@dataclass(frozen=True, eq=False)
class Version:
    """One version of all models.

    Attributes:
        start: first era that it was in force for.
        z: block of reference rows -> float16 [M, R], standardised predictions of them.
        past: era before the windows that it was trained on -> payments there [M], NaN for a model that is not out of
            sample there, was not trained anew, or predicts constants. Of the newest version alone.
    """

    start: int
    z: Mapping[int, NDArray[np.float16]]
    past: Mapping[int, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class VersionScores:
    """Payments in an era of the versions that were out of sample there.

    Attributes:
        versions: their numbers, the one in force last; paid_KM: float64 [K, M], NaN for a model without predictions, or
            with constant ones.
    """

    versions: tuple[int, ...]
    paid_KM: FloatArray


class Versions:
    """All versions so far, numbered from 0, the newest in force."""

    def __init__(self) -> None:
        self.kept: list[Version] = []
        self._scores: dict[int, VersionScores] = {}

    def add(self, version: Version) -> None:
        """Put a new version in force."""
        if self.kept:
            self.kept[-1] = replace(self.kept[-1], past={})
        self.kept.append(version)

    def freeze(self, z: Mapping[int, NDArray[np.float16]]) -> None:
        """The newest version as it ends: leaf values may have moved since it started."""
        self.kept[-1] = replace(self.kept[-1], z=z)

    def at(self, era: int) -> tuple[int, ...]:
        """Numbers of the versions that are scored in an era, see `scored_versions`."""
        return scored_versions(sum(version.start <= era for version in self.kept))

    def score(self, era: int, scores: VersionScores) -> None:
        """Note what versions were paid in a resolved era."""
        self._scores[era] = scores

    @property
    def agreement_MM(self) -> FloatArray | None:
        """Agreement of the newest version's predictions of reference rows [M, M]; None where there is none."""
        return _agreement(self.kept[-1]) if self.kept and self.kept[-1].z else None

    def first(self, eras: Sequence[int], paid_EM: FloatArray) -> FloatArray:
        """Payment of the first version in past eras [E, M], a history that no refit breaks.

        What was paid where that version was not scored: before it, out of fold, and where its models predicted nothing.
        """
        found_EM = paid_EM.copy()
        for e, era in enumerate(eras):
            scores = self._scores.get(era)
            if scores is not None and scores.versions[0] == 0:
                found_EM[e] = np.where(np.isfinite(scores.paid_KM[0]), scores.paid_KM[0], paid_EM[e])
        return found_EM

    @property
    def first_MM(self) -> FloatArray | None:
        """Agreement of the first version's predictions of reference rows [M, M]; None until there is another one."""
        return _agreement(self.kept[0]) if len(self.kept) > 1 and self.kept[0].z else None

    def project(self, eras: Sequence[int], paid_EM: FloatArray) -> FloatArray:
        """Payment of the newest version in past eras [E, M].

        As it was where it was in force, or where it was scored before the window of its training; else projected.
        """
        if len(self.kept) < 2:
            return paid_EM
        newest, found_EM, maps = self.kept[-1], paid_EM.copy(), {}
        for e, era in enumerate(eras):
            scores = self._scores.get(era)
            if era < newest.start and scores is not None:
                versions = scores.versions[-PROJECTED_FROM:]
                if versions not in maps:
                    maps[versions] = self._map(versions)
                if (map_MK := maps[versions]) is not None:
                    found_EM[e] = map_MK @ np.nan_to_num(scores.paid_KM[-PROJECTED_FROM:].ravel())
            if (past_M := newest.past.get(era)) is not None:
                found_EM[e] = np.where(np.isfinite(past_M), past_M, found_EM[e])
        return found_EM

    def _map(self, versions: tuple[int, ...]) -> FloatArray | None:
        """C_new,old (C_old + k I)^-1, [M, K M], over blocks that all of them predicted; None where there is none."""
        old = [self.kept[n] for n in versions]
        blocks = sorted(set.intersection(set(self.kept[-1].z), *(set(version.z) for version in old)))
        if not blocks:
            return None
        old_KR = np.concatenate([_rows(version, blocks) for version in old])
        new_MR = _rows(self.kept[-1], blocks)
        rows = old_KR.shape[1]
        C_KK = (old_KR @ old_KR.T).astype(np.float64) / rows + STEADY * np.eye(len(old_KR))
        return np.asarray(np.linalg.solve(C_KK, (old_KR @ new_MR.T).astype(np.float64) / rows).T)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All versions, and their scores in resolved eras, for safetensors."""
        found: dict[str, NDArray[Any]] = {"versions.start": np.array([v.start for v in self.kept], dtype=np.int64)}
        for n, version in enumerate(self.kept):
            found |= {f"versions.z.{n}.{block}": z_MR for block, z_MR in version.z.items()}
        for era, scores in self._scores.items():
            found[f"scores.versions.{era}"] = np.array(scores.versions, dtype=np.int64)
            found[f"scores.paid.{era}"] = scores.paid_KM
        if self.kept and self.kept[-1].past:
            past = self.kept[-1].past
            found |= {"versions.past.era": np.array(list(past), dtype=np.int64)}
            found |= {"versions.past.paid": np.stack(list(past.values()))}
        return found

    def load(self, layout: Layout) -> None:
        """Take over the state of `arrays()`.

        Raises:
            LayoutError: it is laid out in another way.
        """
        starts = layout.take("versions.start", "i8", "versions")
        if (np.diff(starts) <= 0).any():
            raise LayoutError("reads 'versions.start' as ascending eras, and they are not")
        self.kept = []
        for n, start in enumerate(starts):
            prefix = f"versions.z.{n}."
            blocks = layout.numbers(prefix)
            z = {block: layout.take(f"{prefix}{block}", "f2", "M", f"block {block}") for block in blocks}
            self.kept.append(Version(int(start), z))
        if layout.names("versions.past."):
            eras = layout.take("versions.past.era", "i8", "past eras")
            paid_EM = layout.take("versions.past.paid", "f8", "past eras", "M")
            if not self.kept:
                raise LayoutError("reads 'versions.past.era' of the newest version, and there is none")
            past = {int(era): np.array(paid_M) for era, paid_M in zip(eras, paid_EM, strict=True)}
            self.kept[-1] = replace(self.kept[-1], past=past)
        for era in layout.numbers("scores.versions."):
            numbers = layout.take(f"scores.versions.{era}", "i8", f"versions scored in {era}")
            paid_KM = layout.take(f"scores.paid.{era}", "f8", len(numbers), "M")
            if not all(0 <= n < len(starts) for n in numbers):
                raise LayoutError(f"reads {f'scores.versions.{era}'!r} as numbers of {len(starts)} versions")
            self._scores[era] = VersionScores(tuple(int(n) for n in numbers), np.array(paid_KM))


def _agreement(version: Version) -> FloatArray:
    """Agreement of a version's predictions of reference rows [M, M]."""
    z_MR = _rows(version, sorted(version.z))
    C_MM = (z_MR @ z_MR.T).astype(np.float64) / z_MR.shape[1]
    return np.asarray(C_MM + np.diag((np.diag(C_MM) <= 0).astype(np.float64)))


def _rows(version: Version, blocks: Sequence[int]) -> NDArray[np.float32]:
    return np.concatenate([version.z[block] for block in blocks], axis=1).astype(np.float32)
