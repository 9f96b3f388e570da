"""Removes known secrets from all text that leaves this process."""

from __future__ import annotations

import logging

# Shorter texts occur by chance; no key of the tournament is as short.
SHORTEST = 6
BLOT = "***"
_known: set[str] = set()


def keep_secret(*values: str) -> None:
    """Remember secrets, as they are, as `repr` writes them, and the parts of those that hold blanks or line ends."""
    for value in values:
        forms = {value, value.strip(), repr(value)[1:-1], ascii(value)[1:-1], *value.split()}
        _known.update(form for form in forms if len(form) >= SHORTEST)


def redact(text: str) -> str:
    """The text without any secret that is known."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, BLOT)
    return text


class RedactingFormatter(logging.Formatter):
    """Formats log records without secrets, in their tracebacks, too."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return redact(super().format(record))
