"""Facts from the target columns: which are equal, their horizon, and their scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.calendar.eras import era_label
from eravane.calendar.horizon import Horizon, TargetHorizon
from eravane.core.config import RunConfig
from eravane.core.errors import ChangedDataError, ConfigError, DataError

# Two columns with more than a twentieth of unlike labels are different targets (Numerai's differ in a quarter or more);
# with a hundredth or less one is taken for a damaged copy of the other, which is reported cell by cell.
UNLIKE_SHARE, DAMAGED_SHARE = 0.05, 0.01
_ROWS_BEFORE_DROPPING = 1000
# A stale file lacks up to three more eras than a fresh one.
STALE_ERAS = 3


@dataclass(frozen=True, eq=False)
class LabelBlock:
    """Some rows of all target columns: float32 [T, N] with NaN where unknown, eras [N], and the id of a row."""

    values_TN: NDArray[np.float32]
    era_N: NDArray[np.int64]
    id_of: Callable[[int], str]


@dataclass(frozen=True)
class Difference:
    """First difference of a column from one that it otherwise equals, and the number of labelled rows that differ."""

    column: str
    rows: int
    era: int
    id: str
    value: float
    other: float | None

    def sentence(self, target: str) -> str:
        """Names the row and both values."""
        other = "no label" if self.other is None else f"{self.other:g}"
        return (
            f"{target!r} differs from {self.column!r} in {self.rows} of its rows, first in era {era_label(self.era)}, "
            f"id {self.id!r}: {self.value:g} against {other}"
        )


@dataclass(frozen=True)
class TargetFacts:
    """Facts of a target column.

    Attributes:
        labelled: rows with a label.
        newest: newest era with a label; 0 where there is none.
        empty_eras: newest eras of the data without one.
        low, high: smallest and largest label; NaN-free, 0 where there is none.
        twins: other target columns that have the same value in every labelled row.
        near: the column that it equals but for a few rows, where it equals none.
    """

    labelled: int
    newest: int
    empty_eras: int
    low: float
    high: float
    twins: tuple[str, ...] = ()
    near: Difference | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TargetFacts:
        """Read what `dataclasses.asdict` gave."""
        near = content["near"]
        found = Difference(**near) if near is not None else None
        return cls(**{**content, "twins": tuple(content["twins"]), "near": found})


def survey(columns: Sequence[str], eras: Iterable[int], blocks: Iterable[LabelBlock]) -> dict[str, TargetFacts]:
    """Read every label once.

    A column is compared with every other whose suffix states a horizon unlike its own, value by value, until they are
    seen to differ.

    Args:
        columns: the T target columns.
        eras: every historical era of the data.
        blocks: all labelled and unlabelled rows, in any order.
    """
    named = {name: Horizon.named(name) for name in columns}
    pairs = {
        (a, b): _Pair(a, b)
        for a, b in product(range(len(columns)), repeat=2)
        if a != b and named[columns[b]] is not None and named[columns[a]] != named[columns[b]]
    }
    extents = [_Extent() for _ in columns]
    for block in blocks:
        known_TN = ~np.isnan(block.values_TN)
        for extent, values_N, known_N in zip(extents, block.values_TN, known_TN, strict=True):
            extent.add(values_N[known_N], block.era_N[known_N])
        for key in list(pairs):
            pairs[key].add(block, known_TN)
            if pairs[key].unlike:
                del pairs[key]
    order = sorted(set(eras))
    facts = {name: extent.facts(order) for name, extent in zip(columns, extents, strict=True)}
    for (a, _), pair in pairs.items():
        facts[columns[a]] = pair.completed(facts[columns[a]], columns)
    return facts


class _Extent:
    """Extent of one column's labels."""

    def __init__(self) -> None:
        self._count, self._newest, self._low, self._high = 0, 0, np.inf, -np.inf

    def add(self, values_N: NDArray[np.float32], era_N: NDArray[np.int64]) -> None:
        if values_N.size:
            self._count += values_N.size
            self._newest = max(self._newest, int(era_N.max()))
            self._low, self._high = min(self._low, float(values_N.min())), max(self._high, float(values_N.max()))

    def facts(self, eras: Sequence[int]) -> TargetFacts:
        empty = sum(era > self._newest for era in eras)
        low, high = (self._low, self._high) if self._count else (0.0, 0.0)
        return TargetFacts(self._count, self._newest, empty, low, high)


class _Pair:
    """Whether column a has the value of column b in each of its labelled rows."""

    def __init__(self, a: int, b: int) -> None:
        self._a, self._b, self._compared, self._differing = a, b, 0, 0
        self._first: tuple[int, str, float, float] | None = None

    def add(self, block: LabelBlock, known_TN: NDArray[np.bool_]) -> None:
        a_N, b_N = block.values_TN[self._a], block.values_TN[self._b]
        differ = np.flatnonzero(known_TN[self._a] & (a_N != b_N))
        self._compared += int(known_TN[self._a].sum())
        self._differing += differ.size
        if differ.size and self._first is None:
            row = int(differ[0])
            self._first = int(block.era_N[row]), block.id_of(row), float(a_N[row]), float(b_N[row])

    @property
    def unlike(self) -> bool:
        """Whether these are different targets."""
        return self._compared >= _ROWS_BEFORE_DROPPING and self._differing > UNLIKE_SHARE * self._compared

    def completed(self, facts: TargetFacts, columns: Sequence[str]) -> TargetFacts:
        """The facts of column a with what was found."""
        other = columns[self._b]
        if not self._compared or self._differing > max(1, DAMAGED_SHARE * self._compared):
            return facts
        if self._first is None:
            return replace(facts, twins=(*facts.twins, other))
        era, row_id, value, others = self._first
        near = Difference(other, self._differing, era, row_id, value, None if np.isnan(others) else others)
        if facts.near is not None and facts.near.rows <= near.rows:
            return facts
        return replace(facts, near=near)


def horizon_of(target: str, facts: Mapping[str, TargetFacts], horizon_eras: int = 0) -> TargetHorizon:
    """How long the labels of a target are: by its suffix, its twin, the configuration, or its newest, empty eras.

    Args:
        target: the column.
        facts: of all target columns of the data.
        horizon_eras: `data.horizon_eras`; it decides where the name does not, and may not be below what the data show.

    Raises:
        ConfigError: the target is not in the data, or its horizon is unknown.
        DataError: it has no label at all.
    """
    if target not in facts:
        raise ConfigError(f"target {target!r} is not in the data; it has {', '.join(facts)}")
    own = facts[target]
    if not own.labelled:
        raise DataError(f"target {target!r} is missing in every row; choose another data.target")
    named = Horizon.named(target)
    if named is not None:
        return TargetHorizon(target, named, "name", notes=tuple(_contradictions(target, named, facts)))
    twin = _twin(target, own, horizon_eras)
    if twin is not None:
        return twin
    notes = () if own.near is None else (own.near.sentence(target),)
    if horizon_eras:
        return TargetHorizon(target, Horizon(horizon_eras), "configuration", notes=notes)
    found = _by_empty_eras(facts, own.empty_eras)
    if found is None:
        because = f"; {notes[0]}" if notes else ""
        raise ConfigError(
            f"the data do not show how long the labels of {target!r} are: the name has no suffix such as _20 or _60, "
            f"it equals no other target column, and {own.empty_eras} newest eras without a label fit no single horizon"
            f"{because}; set data.horizon_eras (4 for 20 days, 12 for 60)"
        )
    return TargetHorizon(target, found, "empty eras", notes=notes)


def _twin(target: str, own: TargetFacts, horizon_eras: int) -> TargetHorizon | None:
    """The horizon of the columns that a target equals; None where there are none.

    Raises:
        ConfigError: they differ in their horizons, or the configuration states a shorter one.
    """
    spans = {name: Horizon.named(name) for name in own.twins}
    lengths = {span for span in spans.values() if span is not None}
    if not lengths:
        return None
    listed = " and ".join(own.twins)
    if len(lengths) > 1 and not horizon_eras:
        raise ConfigError(
            f"target {target!r} equals {listed} in every labelled row, which differ in their horizons; set "
            "data.horizon_eras to the longest that may hold (12 for 60 days)"
        )
    if len(lengths) > 1:
        return TargetHorizon(target, Horizon(horizon_eras), "configuration", notes=(f"{target!r} equals {listed}",))
    (span,) = lengths
    if horizon_eras and horizon_eras < span.eras:
        raise ConfigError(
            f"data.horizon_eras is {horizon_eras}, but target {target!r} equals {listed}, whose labels span "
            f"{span.eras} eras; take data.horizon_eras out, or set it to {span.eras} or more"
        )
    notes = (f"{target!r} equals {listed}, all of {span}",) if len(spans) > 1 else ()
    if horizon_eras > span.eras:
        return TargetHorizon(target, Horizon(horizon_eras), "configuration", own.twins[0], notes)
    return TargetHorizon(target, span, "twin", own.twins[0], notes)


def _contradictions(target: str, named: Horizon, facts: Mapping[str, TargetFacts]) -> Iterator[str]:
    """Contradictions between the file and a suffix; a file that is old as a whole is not one."""
    own = facts[target]
    # How many eras the file is behind, by the votes of all targets and one for a fresh file.
    votes = [0, *(fact.empty_eras - span.empty_eras for name, fact in facts.items() if (span := Horizon.named(name)))]
    behind = max(set(votes), key=lambda off: (votes.count(off), -abs(off)))
    for twin in own.twins:
        yield f"{target!r} is named after {named}, but equals {twin!r} in every labelled row"
    off = own.empty_eras - named.empty_eras - behind
    if own.empty_eras and abs(off) > STALE_ERAS:
        yield (
            f"{target!r} is named after {named}, but its newest {own.empty_eras} eras have no label, where labels of "
            f"that length lack {named.empty_eras}; compare it with the other targets"
        )


def _by_empty_eras(facts: Mapping[str, TargetFacts], empty: int) -> Horizon | None:
    """The one horizon whose labels lack as many of the newest eras; None where none does.

    How many eras the file is behind is read from the targets whose names state a horizon; where these disagree the
    pattern is not usable.
    """
    named = [(span, fact.empty_eras) for name, fact in facts.items() if fact.labelled and (span := Horizon.named(name))]
    behind = {lacking - span.empty_eras for span, lacking in named} or {0}
    spans = {span for span, _ in named} | {Horizon(4), Horizon(12)}
    fitting = [span for span in spans if len(behind) == 1 and span.empty_eras + min(behind) == empty]
    return fitting[0] if empty and len(fitting) == 1 else None


def target_horizons(config: RunConfig, facts: Mapping[str, TargetFacts]) -> dict[str, TargetHorizon]:
    """How long the labels of every target in use are, the main one's first.

    Raises:
        ConfigError: a target is not in the data, or its horizon is unknown.
        DataError: a target has no label, or labels off the scale 0 to 1.
    """
    found = {}
    for target in dict.fromkeys((config.data.target, *config.targets)):
        if target not in facts:
            key = "data.target" if target == config.data.target else "zoo.targets:"
            raise ConfigError(f"{key} {target!r} is not in the data; it has {', '.join(facts)}")
        found[target] = horizon_of(target, facts, config.data.horizon_eras)
        require_scale(target, facts[target])
    return found


def require_same_twin(target: str, before: TargetFacts, now: TargetFacts) -> None:
    """Check that a target still equals the column that it equalled before, but for damaged cells.

    Raises:
        ChangedDataError: it equals another column, or none.
    """
    if Horizon.named(target) is not None or not before.twins or set(before.twins) & set(now.twins):
        return
    if not now.twins and now.near is not None and now.near.column in before.twins:
        return
    present = repr(now.twins[0]) if now.twins else "no other target"
    raise ChangedDataError(
        f"target {target!r} equalled {before.twins[0]!r} and now equals {present}: its labels, and with them horizon "
        "and lags, are those of another target"
    )


def require_scale(target: str, facts: TargetFacts) -> None:
    """Check that the labels lie on the scale 0 to 1, which the trees' intercept, contribution and payout assume.

    Raises:
        DataError: they do not; the message holds their range.
    """
    if facts.labelled and not (0.0 <= facts.low <= facts.high <= 1.0):
        raise DataError(
            f"target {target!r} lies between {facts.low:g} and {facts.high:g}; targets lie between 0 and 1 (Numerai's "
            "are 0, .25, .5, .75 and 1): rescale the column"
        )
