"""The pieces that report sections are made of: tables, cards, intervals. They hold text, never HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from eravane.report.formats import bounds, number
from eravane.scoring.metrics import HacMean

Style = Literal["", "tag on", "tag off", "share"]


@dataclass(frozen=True)
class Cell:
    """A table cell: the text shown, the value it sorts by, and how it is drawn (plain, as a tag, with a bar)."""

    shown: str
    key: float | str
    style: Style = ""

    @classmethod
    def of(cls, value: object, form: str = "") -> Cell:
        """A cell from a value; numbers take `form`, everything else is shown as text."""
        if isinstance(value, int | float) and not isinstance(value, bool) and form:
            return cls(number(float(value), form), float(value))
        return cls(str(value), str(value))

    @property
    def sort_key(self) -> str:
        """The sort key as an attribute holds it; "" for a number that is not defined."""
        if isinstance(self.key, str):
            return self.key
        return "" if math.isnan(self.key) else repr(self.key)


@dataclass(frozen=True)
class Table:
    """A sortable table; the first column stays in view."""

    name: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @cached_property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers alone; such columns are aligned to the right."""
        count = range(len(self.heads))
        return [bool(self.rows) and all(isinstance(row[i].key, float) for row in self.rows) for i in count]


@dataclass(frozen=True)
class Card:
    """A titled box of a section.

    Attributes:
        note: a sentence below the title.
        table: a table.
        items: lines of a list.
        facts: name -> value pairs; a value is text or again a mapping of names to values.
        folded: text shown once the reader opens the card.
    """

    title: str
    note: str = ""
    table: Table | None = None
    items: Sequence[str] = ()
    facts: dict[str, object] | None = None
    folded: str = ""


@dataclass(frozen=True)
class Tile:
    """A main number of the headline: its label, the number, and a line below."""

    label: str
    value: str
    below: str


@dataclass(frozen=True)
class Line:
    """A line of an interval's drawing, in units of its 100 x 12 box."""

    kind: str
    x1: float
    x2: float
    y1: int
    y2: int


@dataclass(frozen=True)
class Interval:
    """A 95 % interval drawn as a line with a dot, and a mark at zero."""

    tone: str
    label: str
    lines: tuple[Line, ...]


def interval(mean: HacMean, left_edge: float, right_edge: float) -> Interval | None:
    """Draw a 95 % interval between two edges that include zero; None where the mean is not defined."""
    if not (mean.n_eras and math.isfinite(mean.mean) and right_edge > left_edge):
        return None
    low, high = bounds(mean)
    scale = 96 / (right_edge - left_edge)
    left, middle, right, zero = (2 + scale * (value - left_edge) for value in (low, mean.mean, high, 0.0))
    tone = "good" if low > 0 else "bad" if high < 0 else "even"
    lines = (Line("zero", zero, zero, 0, 12), Line("", left, right, 6, 6), Line("dot", middle, middle, 6, 6))
    return Interval(tone, f"{number(low, '+.4f')} to {number(high, '+.4f')}", lines)
