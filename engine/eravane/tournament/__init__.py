"""Numerai's API: data, predictions, diagnostics, scores and models."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from eravane.core.errors import SubmitError
from eravane.tournament.credentials import ADDRESS_VARIABLE, OFF, find_credentials, switched_off

if TYPE_CHECKING:
    from eravane.tournament.client import Client


DEADLINE_VARIABLE = "ERAVANE_DEADLINE_S"
LONGEST_S = 2_592_000


def connect(usual_s: float | None = None) -> Client:
    """A client with the credentials of the environment or the private `.env`; without any, for what is public.

    $ERAVANE_TOURNAMENT names another address than the tournament's own, for staging and tests. numerapi is imported
    here, and not before a command needs the tournament.

    Args:
        usual_s: seconds without progress after which an operation is given up where $ERAVANE_DEADLINE_S is not set;
            None: 300.

    Raises:
        SubmitError: the credentials are half there or open to other users, a variable is no number, or the tournament
            is switched off by ERAVANE_TOURNAMENT=off.
    """
    if switched_off():
        raise SubmitError(f"the tournament is switched off by {ADDRESS_VARIABLE}={OFF}; unset it")
    from eravane.tournament.client import Client
    from eravane.tournament.transport import Patience

    seconds = _deadline() or usual_s
    return Client(find_credentials(), None if seconds is None else Patience(deadline_s=seconds))


def _deadline() -> float | None:
    text = os.environ.get(DEADLINE_VARIABLE, "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= LONGEST_S:
        raise SubmitError(
            f"{DEADLINE_VARIABLE} is a number of seconds above 0, at most {LONGEST_S:,} (30 days), given {text!r:.40}"
        )
    return seconds
