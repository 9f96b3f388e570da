"""The way into the Numerai tournament: data, predictions, diagnostics, scores and models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eravane.tournament.client import Client


def connect() -> Client:
    """A client with the credentials of the environment or the private `.env`; without any, for what is public.

    numerapi is imported here, and not before a command needs the tournament.

    Raises:
        SubmitError: the credentials are half there, or open to other users.
    """
    from eravane.tournament.client import Client
    from eravane.tournament.credentials import find_credentials

    return Client(find_credentials())
