"""Where the tournament is: its own address, or the one that the environment names."""

from __future__ import annotations

import os

ADDRESS_VARIABLE, OFF = "ERAVANE_TOURNAMENT", "off"


def address(usual: str) -> str:
    """Where the tournament is: $ERAVANE_TOURNAMENT, else the usual address."""
    return usual if switched_off() else os.environ.get(ADDRESS_VARIABLE, "").strip() or usual


def switched_off() -> bool:
    """Whether $ERAVANE_TOURNAMENT is `off`: the tournament is not queried then."""
    return os.environ.get(ADDRESS_VARIABLE, "").strip().lower() == OFF
