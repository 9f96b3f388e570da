"""The exceptions that eravane raises on purpose: each says what was given, what is allowed and what to do."""

from __future__ import annotations


class EravaneError(Exception):
    """Base of every error a user can mend; the command line prints it as one message and exits with 1."""


class ConfigError(EravaneError, ValueError):
    """A configuration file or an option is wrong; the command line exits with 2."""


class DataError(EravaneError, ValueError):
    """Input files break the dataset's contract; the message names file, column, era and id where it can."""


class ChangedDataError(DataError):
    """An era that a store holds is another one in the files now.

    Args:
        fact: what differs, and where.
        mend: what to do about it.
    """

    def __init__(self, fact: str, mend: str = "ingest the dataset into a new store") -> None:
        super().__init__(f"{fact}; {mend}")
        self.fact = fact


class StoreError(EravaneError, RuntimeError):
    """A store on disk is unfinished, damaged or cannot be written."""


class RunError(EravaneError, RuntimeError):
    """A run cannot start, resume or go on."""


class DeviceError(EravaneError, RuntimeError):
    """The device that was asked for is not there or does not work."""


class SubmitError(EravaneError, RuntimeError):
    """Predictions cannot or must not be sent to the tournament."""
