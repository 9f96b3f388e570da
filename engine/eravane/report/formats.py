"""Numbers as people read them: signs, durations, sizes, and the 95 % interval of a mean."""

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


def bounds(mean: HacMean) -> tuple[float, float]:
    """The 95 % confidence interval of a HAC mean."""
    return mean.mean - mean.critical * mean.se, mean.mean + mean.critical * mean.se
