"""Numbers as people read them: signs, and the 95 % interval of a mean."""

from __future__ import annotations

import math

from eravane.scoring.metrics import HacMean

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: object, form: str = ".4f") -> str:
    """A number in a format such as `.4f` or `+.4f` with a true minus sign; a dash where it is undefined."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return DASH
    written = format(value, form)
    if not any(digit in written for digit in "123456789"):
        written = written.replace("-", "")
    return written.replace("-", MINUS)


def bounds(mean: HacMean) -> tuple[float, float]:
    """The 95 % confidence interval of a HAC mean."""
    return mean.mean - mean.critical * mean.se, mean.mean + mean.critical * mean.se
