"""The dataset, from the tournament into a folder: one version, every file verified before it takes its name."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from eravane.core.errors import DataError
from eravane.core.events import ByFile
from eravane.core.files import Place, exclusive
from eravane.core.units import format_size
from eravane.tournament import connect
from eravane.tournament.dataset import Content, Dataset, FileRecord, check_together, examine
from eravane.tournament.download import Identity, download, file_sha256

if TYPE_CHECKING:
    from eravane.tournament.client import Client

VERSION = "v5.3"
# Less room than this holds not even a week's live file; how much a file needs is known when its transfer begins.
LEAST_ROOM = 50_000_000
FILES = ("features.json", "live.parquet", "validation.parquet", "train.parquet")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VERSION = re.compile(r"v(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Fetched:
    """Result of a fetch.

    Attributes:
        dataset: the folder's record.
        fetched: files that were downloaded; the others were already the tournament's newest.
        newer: a newer version that the tournament offers, or None. It is never mixed in.
    """

    dataset: Dataset
    fetched: tuple[str, ...]
    newer: str | None


def fetch(
    out: Place,
    version: str = VERSION,
    files: Sequence[str] | None = None,
    *,
    client: Client | None = None,
    progress: ByFile | None = None,
) -> Fetched:
    """Bring a folder to the newest state of a dataset version; what is there already and unchanged is kept.

    Every file is downloaded under a temporary name, resumed only onto the same remote file, read from end to
    end, compared with `features.json` and with what was there before, and then takes its name in one step.

    Args:
        out: the folder; a new one is made, one with files of another version or origin is refused.
        version: dataset version, "v5.3".
        files: names without the version; None takes features.json, live, validation and train.
        client: the tournament's API; None connects with the credentials at hand, if any.
        progress: called with file name, bytes here, bytes in all.

    Raises:
        DataError: the version or a file is not offered, a file is damaged.
        ApiError: the tournament does not answer before the deadline.
    """
    out = Path(out)
    wanted = list(dict.fromkeys(("features.json", *(files or FILES))))
    _require_folder(out, version, wanted)
    client = client or connect()
    offered = _offered(client.datasets())
    if version not in offered:
        raise DataError(f"the tournament has no dataset {version!r}; it has {', '.join(sorted(offered, key=_age))}")
    absent = sorted(set(wanted) - set(offered[version]))
    if absent:
        raise DataError(f"{version} has no file {absent[0]!r}; it has {', '.join(sorted(offered[version]))}")
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        dataset = Dataset.read(out) or Dataset(version)
        dataset.write(out)
        current = client.current_round()
        fetched = []
        for name in wanted:
            record = _fetch_file(client, out, dataset, name, current.number if current else None, progress)
            if record is not None:
                dataset = replace(dataset, files={**dataset.files, name: record})
                dataset.write(out)
                fetched.append(name)
    check_together(dataset.files)
    newest = max(offered, key=_age)
    return Fetched(dataset, tuple(fetched), newest if _age(newest) > _age(version) else None)


def _offered(names: Sequence[str]) -> dict[str, list[str]]:
    """Version -> its files, of the listed names; one that is no plain path is left out and cannot be fetched."""
    offered: dict[str, list[str]] = {}
    for name in names:
        parts = name.split("/")
        if len(parts) == 2 and _VERSION.fullmatch(parts[0]) and _SAFE_NAME.fullmatch(parts[1]):
            offered.setdefault(parts[0], []).append(parts[1])
    return offered


def _age(version: str) -> tuple[int, int]:
    found = _VERSION.fullmatch(version)
    return (int(found.group(1)), int(found.group(2) or 0)) if found else (-1, -1)


def _require_folder(out: Path, version: str, wanted: Sequence[str]) -> None:
    """Check that the folder can take these files, before the network is asked for anything.

    Raises:
        DataError: it cannot be made or written, has no room, holds another version, or files of unknown origin.
    """
    if _age(version) < (0, 0):
        raise DataError(f"{version!r} is no dataset version; one is named like {VERSION}")
    place = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise DataError(f"{place} {'cannot be written' if place.is_dir() else 'is no folder'}; choose another folder")
    free = shutil.disk_usage(place).free
    if free < LEAST_ROOM:
        raise DataError(f"{place} has {format_size(free)} free, which holds no dataset; make room")
    dataset = Dataset.read(out)
    if dataset is None:
        foreign = [name for name in wanted if (out / name).exists()]
        if foreign:
            raise DataError(f"{out} has a {foreign[0]} that `eravane fetch` did not write; choose another folder")
    elif dataset.version != version:
        raise DataError(f"{out} holds {dataset.version}; versions are never mixed, choose another folder for {version}")


def _fetch_file(
    client: Client, out: Path, dataset: Dataset, name: str, round_number: int | None, progress: ByFile | None
) -> FileRecord | None:
    """Download one file unless the one that is there is intact and current; its new record, or None."""
    target, known = out / name, dataset.files.get(name)
    intact = known is not None and target.is_file() and file_sha256(target) == known.sha256
    have = Identity(known.etag, known.size) if known is not None and intact else None
    found = Content()

    def check(path: Path) -> None:
        nonlocal found
        found = examine(path, name, out / "features.json", known.content if known else None)

    remote = str(PurePosixPath(dataset.version) / name)
    arrival = download(client, remote, target, have=have, check=check, progress=progress)
    if arrival is None:
        return None
    return FileRecord(
        etag=arrival.identity.etag,
        size=arrival.identity.size,
        sha256=arrival.sha256,
        fetched=datetime.now(UTC).isoformat(timespec="seconds"),
        round=round_number,
        content=found,
    )
