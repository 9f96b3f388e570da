"""Typed answers of the tournament: model slots, rounds, submissions, hosted files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class HostedFile:
    """A model file with the tournament: the state of its validation, and the slots that it is assigned to."""

    id: str
    validation: str
    slots: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """A model slot of the account; `pickle` names the uploaded model that answers for it, if any."""

    name: str
    id: str
    pickle: str | None


@dataclass(frozen=True)
class Round:
    """A tournament round: opens, takes stakes until `stakes_until`, takes late predictions until `closes`."""

    number: int
    opens: datetime
    stakes_until: datetime
    closes: datetime | None


@dataclass(frozen=True)
class Submission:
    """A submission as the tournament lists it; `error` is what it found wrong with it."""

    id: str
    filename: str
    round: int
    inserted_at: datetime
    selected: bool
    error: str | None


def hosted_of(item: Mapping[str, Any]) -> HostedFile:
    """Read one as the API answers it; raises KeyError, TypeError or ValueError for another shape."""
    slots = tuple(map(str, item["assignedModelSlots"] or ()))
    return HostedFile(str(item["id"]), str(item["validationStatus"] or ""), slots)


def model_of(item: Mapping[str, Any]) -> Model:
    """Read one as the API answers it; raises KeyError, TypeError or ValueError for another shape."""
    pickle = item["computePickleUpload"]
    return Model(str(item["name"]), str(item["id"]), str(pickle["filename"]) if pickle else None)


def round_of(item: Mapping[str, Any]) -> Round:
    """Read one as the API answers it; raises KeyError, TypeError or ValueError for another shape."""
    closes = item["closeTime"]
    return Round(
        number=int(item["number"]),
        opens=_moment(item["openTime"]),
        stakes_until=_moment(item["closeStakingTime"]),
        closes=_moment(closes) if closes else None,
    )


def submission_of(item: Mapping[str, Any]) -> Submission:
    """Read one as the API answers it; raises KeyError, TypeError or ValueError for another shape."""
    error = item["errorInfo"]
    return Submission(
        id=str(item["id"]),
        filename=str(item["filename"]),
        round=int(item["round"]["number"]),
        inserted_at=_moment(item["insertedAt"]),
        selected=bool(item["selected"]),
        error=str(error) if error else None,
    )


def _moment(text: str) -> datetime:
    """A point in time; one without a zone is in UTC, as all times of the API are."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
