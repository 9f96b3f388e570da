"""One file from the tournament, whole and unmixed: resumed only onto the same file, moved into place at the end."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eravane.core.errors import DataError
from eravane.core.events import ByFile
from eravane.core.units import format_size
from eravane.tournament.transport import LEAST_RATE, TransientError, check_stored

if TYPE_CHECKING:
    import requests

    from eravane.tournament.client import Client

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Identity:
    """Identity of a state of a remote file.

    Attributes:
        etag: the server's strong entity tag; None when it gives none, and then nothing is ever resumed or kept.
        size: bytes; None when the server does not send it.
    """

    etag: str | None
    size: int | None

    def same(self, other: Identity) -> bool:
        """Whether both are certainly the same state."""
        return self.etag is not None and (self.etag, self.size) == (other.etag, other.size)


@dataclass(frozen=True)
class Arrival:
    """A file that arrived: its remote identity and the SHA-256 of its bytes."""

    identity: Identity
    sha256: str


def download(
    client: Client,
    name: str,
    target: Path,
    *,
    have: Identity | None = None,
    check: Callable[[Path], None] = lambda path: None,
    progress: ByFile | None = None,
) -> Arrival | None:
    """Fetch a file of the current round to `target`; None when the remote file is still the one in `have`.

    The bytes gather in `.<target>.part`, beside a note of which remote file they belong to. A part is continued
    only when the server confirms that it is still that file; otherwise the file is fetched from its beginning.
    `check` sees the whole file before it takes its name; when it raises, the part is removed and `target` stays.

    Raises:
        ApiError: when no progress was made until the deadline.
        DataError: when the disk is too small; and errors of `check`.
    """
    part = _Part(target)

    def attempt() -> Identity | None:
        with client.read(client.dataset_address(name), part.request_headers(have)) as response:
            identity = part.begin(response, have)
            if identity is not None:
                part.receive(client.chunks(response), identity, progress)
        return identity

    # A server that trickles makes no progress: the deadline restarts only for bytes that came at a fair rate.
    further = max(1, int(client.patience.read_s * LEAST_RATE))
    try:
        identity = client.patience.insist(f"fetching {name}", attempt, lambda: part.reached // further)
    except OSError as error:
        raise DataError(f"{part.path} cannot be written: {error.strerror}") from None
    if identity is None:
        part.discard()
        return None
    try:
        check(part.path)
    except Exception:
        part.discard()
        raise
    digest = file_sha256(part.path)
    part.path.replace(target)
    part.discard()
    return Arrival(identity, digest)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Part:
    """The unfinished file, and the identity of the remote file that it is a part of."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self.reached = self.size()  # the most bytes there ever were: only more than that is progress

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def request_headers(self, have: Identity | None) -> dict[str, str]:
        known = self._identity()
        if known is not None and known.etag is not None and self.size():
            if self.size() == known.size:
                return {"If-None-Match": known.etag}
            return {"Range": f"bytes={self.size()}-", "If-Range": known.etag}
        return {"If-None-Match": have.etag} if have is not None and have.etag else {}

    def begin(self, response: requests.Response, have: Identity | None) -> Identity | None:
        """Get ready for the body that this answer brings; None when it need not be read."""
        if response.status_code == 304:
            return self._identity() if self.size() else None
        if response.status_code == 206:
            return self._continue(response)
        if response.status_code != 200:
            if response.status_code == 416:
                self.discard()
                raise TransientError("the storage answered HTTP 416")
            check_stored(response)
            raise TransientError(f"the storage answered HTTP {response.status_code}")
        identity = Identity(_strong_etag(response), _length(response))
        self.discard()
        if have is not None and identity.same(have):
            return None
        self._note.write_text(json.dumps(asdict(identity)), encoding="utf-8")
        self.path.touch()
        return identity

    def _continue(self, response: requests.Response) -> Identity:
        """Accept a partial answer only if it continues exactly where the part ends, in the same remote file."""
        known = self._identity()
        stated = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if known is not None and stated is not None:
            start, last, size = map(int, stated.groups())
            offered = Identity(_strong_etag(response), size)
            if offered.same(known) and start == self.size() and last == size - 1:
                return known
        self.discard()
        raise TransientError("the server offered a part of another file; starting again")

    def receive(self, chunks: Iterable[bytes], identity: Identity, progress: ByFile | None) -> None:
        """Append the body; the bytes that arrived stay when it breaks off."""
        name = self.path.name.removeprefix(".").removesuffix(".part")
        self._check_room(identity)
        with self.path.open("ab") as file:
            arrived = file.tell()
            for chunk in chunks:
                file.write(chunk)
                arrived += len(chunk)
                self.reached = max(self.reached, arrived)
                if progress is not None:
                    progress(name, arrived, identity.size or arrived)
            file.flush()
            os.fsync(file.fileno())
        if identity.size is not None and arrived != identity.size:
            self.discard()
            raise TransientError(f"{arrived} bytes arrived where {identity.size} were announced")

    def _check_room(self, identity: Identity) -> None:
        missing = (identity.size or 0) - self.size()
        free = shutil.disk_usage(self.path.parent).free
        if missing > free:
            raise DataError(
                f"{self.path.parent} has {format_size(free)} free, {format_size(missing)} are still to come; make room"
            )

    def _identity(self) -> Identity | None:
        """The note beside the part; None when there is none that can be trusted."""
        try:
            noted: Any = json.loads(self._note.read_text(encoding="utf-8"))
            return Identity(noted["etag"], noted["size"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _strong_etag(response: requests.Response) -> str | None:
    etag = response.headers.get("ETag")
    return None if etag is None or etag.startswith("W/") else etag


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    # A compressed transfer announces another length than the file has.
    return int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None
