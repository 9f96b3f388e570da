"""Exceptions for a user's mistakes and the machine's faults: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class EravaneError(Exception):
    """Base of every error that a user can correct; the command line prints it as one message and exits with 1."""


class ConfigError(EravaneError, ValueError):
    """A configuration file or an option is wrong; the command line exits with 2."""


class DataError(EravaneError, ValueError):
    """Input files break the dataset's contract; the message names file, column, era and id where they are known."""


class ChangedDataError(DataError):
    """An era of the store differs in the files.

    Args:
        fact: what differs, and where.
        advice: what to do about it.
    """

    def __init__(self, fact: str, advice: str = "ingest the dataset into a new store") -> None:
        super().__init__(f"{fact}; {advice}")
        self.fact = fact


class StoreError(EravaneError, RuntimeError):
    """A store on disk is unfinished, damaged or cannot be written."""


class RunError(EravaneError, RuntimeError):
    """A run cannot start, resume or continue."""


class LayoutError(RunError):
    """A stored file is laid out otherwise than this release does; the message names what "this eravane" lacks."""


class DeviceError(EravaneError, RuntimeError):
    """The requested device is missing or does not work."""


class OutOfDeviceMemoryError(DeviceError):
    """Something did not fit into the memory that the device had left."""


class SubmitError(EravaneError, RuntimeError):
    """Predictions cannot or must not be sent to the tournament."""


class PartlySubmittedError(SubmitError):
    """Some of several models have no submission.

    Attributes:
        receipts: of those that have one.
        failures: model -> why it has none.
    """

    def __init__(self, receipts: Sequence[Any], failures: Mapping[str, str]) -> None:
        self.receipts, self.failures = tuple(receipts), dict(failures)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        done = ", ".join(receipt.model for receipt in receipts) or "none"
        count = len(receipts) + len(failures)
        super().__init__(f"{len(failures)} of {count} models have no submission (done: {done}). {reasons}")


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.5, prefix: str = "") -> str:
    """The end of a message on an unknown name: "; did you mean 'eta'?", or "" where no name is as near as `cutoff`."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return f"; did you mean {prefix + near[0]!r}?" if near else ""
