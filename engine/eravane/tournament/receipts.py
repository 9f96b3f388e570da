"""Receipts of submissions, with their statistics, as JSON in `RUN/submissions`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eravane.core.errors import SubmitError
from eravane.core.files import read_file, write_atomically

FOLDER = "submissions"
SENT, FOUND, DRY_RUN = "sent", "found", "dry run"
_MODEL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Profile:
    """Statistics of a submission, with which the next one is compared.

    Attributes:
        exposures: feature group -> correlation of the predictions with the group's mean feature.
        largest_exposure: largest absolute correlation with a single feature.
        missing: groups whose features were all constant in the live file.
        weights: base model -> weight in the live era.
    """

    exposures: Mapping[str, float]
    largest_exposure: float
    missing: tuple[str, ...]
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Receipt:
    """One submission that is known to be with the tournament, or that a dry run would have sent.

    Attributes:
        status: `sent`, `found` (the same predictions were there already), or `dry run` (nothing was sent).
        round: number of the round, as the tournament states it for what was sent.
        model, model_id: the model slot.
        submission_id: the tournament's id; empty after a dry run.
        sha256: of the predictions file, byte for byte as it was sent.
        rows: predictions in it.
        time: when the receipt was made, UTC, ISO 8601.
        late: whether the round took no more stakes by then.
        overridden: the objections that were overridden by force.
        profile: what the predictions looked like.
        selected: whether the tournament counts it as the model's selected one, on which the stake rests; None where
            nothing was sent, or an older version noted nothing.
    """

    status: str
    round: int
    model: str
    model_id: str
    submission_id: str
    sha256: str
    rows: int
    time: str
    late: bool
    overridden: tuple[str, ...]
    profile: Profile
    selected: bool | None = None


def check_model_name(name: str) -> None:
    """Refuse what is no name of a model slot, since receipts are named after it.

    Raises:
        SubmitError: naming it.
    """
    if not _MODEL_NAME.fullmatch(name):
        raise SubmitError(f"{name!r} is no model name; letters, digits, - and _ are allowed")


def keep_receipt(run: Path, receipt: Receipt, content: bytes) -> Path:
    """Write a receipt, and the predictions it is for, into the run folder; returns the receipt's path."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    write_atomically(predictions_of(run, receipt), content)
    moment = re.sub(r"[^0-9T]", "", receipt.time.split("+")[0])
    path = folder / f"{receipt.round:05d}-{receipt.model}-{moment}.json"
    write_atomically(path, (json.dumps(asdict(receipt), indent=2) + "\n").encode())
    return path


def predictions_of(run: Path, receipt: Receipt) -> Path:
    """Path of the predictions of a receipt; equal ones are stored once."""
    return run / FOLDER / f"{receipt.sha256[:16]}.csv"


def receipts(run: Path, model: str) -> list[Receipt]:
    """The receipts of a model in a run folder, oldest first.

    Raises:
        SubmitError: a receipt is damaged.
    """
    read = [_read(path) for path in sorted((run / FOLDER).glob(f"*-{model}-*.json"))]
    return sorted((receipt for receipt in read if receipt.model == model), key=lambda receipt: receipt.time)


def _read(path: Path) -> Receipt:
    try:
        noted: dict[str, Any] = json.loads(read_file(path))
        profile = noted["profile"]
        found = Receipt(
            **{
                **noted,
                "overridden": tuple(noted["overridden"]),
                "profile": Profile(**{**profile, "missing": tuple(profile["missing"])}),
            }
        )
        if re.fullmatch(r"[0-9a-f]{64}", found.sha256):
            return found
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise SubmitError(f"the receipt {path} is damaged; move it away and submit again")
