"""Sizes and durations as people read and write them."""

from __future__ import annotations

import re

from eravane.core.errors import ConfigError

LARGEST = 10**18
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Read a size in bytes: "16GB" is 16 * 10^9, "16GiB" 16 * 2^30.

    Raises:
        ConfigError: the text is no size, or 0.
    """
    match = _SIZE.fullmatch(text)
    found = 0.0
    if match:
        number, unit, binary = match.groups()
        found = float(number) * (1024 if binary else 1000) ** _UNITS[unit.upper()]
    if not 1 <= found <= LARGEST:
        raise ConfigError(
            f"{text[:40]!r} is no size from 1 B to 1,000,000 TB; write a number with B, KB, MB, GB, TB, or KiB, MiB, "
            "GiB, TiB"
        )
    return int(found)


def format_size(size: float) -> str:
    """Bytes in decimal units: 2_340_000_000 -> "2.3 GB"."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= 0.99995 * scale:  # less is not rounded to 1000.0 of the unit below
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best: "340 ms", "12.4 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
