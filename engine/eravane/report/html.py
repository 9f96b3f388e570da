"""Small pieces of HTML: escaped text, numbers as people read them, sortable tables, intervals."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eravane.scoring.metrics import HacMean

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
CONFIDENCE_ERRORS = 1.96


def text(value: object) -> str:
    """Escape anything for HTML, quotes included."""
    return html.escape(str(value), quote=True)


def number(value: object, form: str = ".4f") -> str:
    """A number in a format such as `.4f` or `+.4f` with a true minus sign; a dash where it is undefined."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return DASH
    written = format(value, form)
    if not any(digit in written for digit in "123456789"):
        written = written.replace("-", "")
    return written.replace("-", MINUS)


def seconds(value: float) -> str:
    """A duration in the unit that reads best: `340 ms`, `12.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if not math.isfinite(value):
        return DASH
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(value: float) -> str:
    """Bytes in decimal units: `3.2 GB`."""
    if not math.isfinite(value):
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


@dataclass(frozen=True)
class Cell:
    """A table cell: what is shown, as HTML, and what it sorts by."""

    shown: str
    key: float | str

    @classmethod
    def of(cls, value: Any, form: str = "") -> Cell:
        """A cell from a value; numbers take `form`, everything else is escaped text."""
        if isinstance(value, int | float) and not isinstance(value, bool) and form:
            return cls(number(float(value), form), float(value))
        return cls(text(value), str(value))


def table(name: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A sortable table; columns that sort by numbers are set right, the first column stays in view."""
    numeric = [bool(rows) and all(isinstance(row[i].key, float) for row in rows) for i in range(len(heads))]
    classes = [' class="n"' if flag else "" for flag in numeric]
    head = "".join(
        f'<th scope="col" aria-sort="none"{kind}><button type="button">{text(title)}</button></th>'
        for title, kind in zip(heads, classes, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, kind) for cell, kind in zip(row, classes, strict=True)) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table id="{text(name)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell, kind: str) -> str:
    key = cell.key if isinstance(cell.key, str) else ("" if math.isnan(cell.key) else repr(cell.key))
    return f'<td{kind} data-v="{text(key)}">{cell.shown}</td>'


def pairs(facts: Sequence[tuple[str, str]]) -> str:
    """A definition list; names are escaped here, values are HTML."""
    return '<dl class="facts">' + "".join(f"<div><dt>{text(k)}</dt><dd>{v}</dd></div>" for k, v in facts) + "</dl>"


def bounds(mean: HacMean) -> tuple[float, float]:
    """The 95 % confidence interval of a HAC mean."""
    return mean.mean - CONFIDENCE_ERRORS * mean.se, mean.mean + CONFIDENCE_ERRORS * mean.se


def interval(mean: HacMean, left_edge: float, right_edge: float) -> str:
    """A 95 % interval as a line with a dot and a mark at zero, drawn between two edges that include zero."""
    if not (mean.n_eras and math.isfinite(mean.mean) and right_edge > left_edge):
        return "<i></i>"
    low, high = bounds(mean)
    scale = 96 / (right_edge - left_edge)
    left, middle, right, zero = (2 + scale * (value - left_edge) for value in (low, mean.mean, high, 0.0))
    tone = "good" if low > 0 else "bad" if high < 0 else "even"
    marks = ((zero, zero, 0, 12, "zero"), (left, right, 6, 6, ""), (middle, middle, 6, 6, "dot"))
    lines = "".join(
        f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1}" y2="{y2}"/>' for x1, x2, y1, y2, kind in marks
    )
    said = f"{number(low, '+.4f')} to {number(high, '+.4f')}"
    return (
        f'<svg class="interval {tone}" viewBox="0 0 100 12" preserveAspectRatio="none" role="img" '
        f'aria-label="{said}">{lines}</svg>'
    )
