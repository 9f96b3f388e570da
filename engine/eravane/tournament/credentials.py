"""The tournament credentials: from the environment or a private `.env`, and from nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eravane.core.errors import SubmitError

PUBLIC_ID = "NUMERAI_PUBLIC_ID"
SECRET_KEY = "NUMERAI_SECRET_KEY"
HOW_TO = f"set {PUBLIC_ID} and {SECRET_KEY} in the environment, or in a file .env with mode 600"


@dataclass(frozen=True)
class Credentials:
    """An API key of the tournament; neither half shows in its text form."""

    public_id: str = field(repr=False)
    secret_key: str = field(repr=False)

    def redact(self, text: str) -> str:
        """The text with both halves of the key blotted out."""
        return text.replace(self.secret_key, "***").replace(self.public_id, "***")


def find_credentials(environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> Credentials | None:
    """Look for the API key in the environment (default: the process's), then in `env_file`; None when in neither.

    Raises:
        SubmitError: when only one half is set, or when the file that holds the key is open to other users.
    """
    found = _pair(os.environ if environment is None else environment, "the environment")
    if found is None and env_file.is_file():
        found = _pair(_parse(env_file.read_text(encoding="utf-8")), str(env_file))
        if found is not None:
            _check_private(env_file)
    return found


def _pair(values: Mapping[str, str], place: str) -> Credentials | None:
    public_id, secret_key = values.get(PUBLIC_ID, "").strip(), values.get(SECRET_KEY, "").strip()
    if public_id and secret_key:
        return Credentials(public_id, secret_key)
    if public_id or secret_key:
        given, lacking = (PUBLIC_ID, SECRET_KEY) if public_id else (SECRET_KEY, PUBLIC_ID)
        raise SubmitError(f"{place} has {given} but not {lacking}; set both")
    return None


def _check_private(path: Path) -> None:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise SubmitError(f"{path} holds an API key and has mode {mode:o}; run `chmod 600 {path}`")
    if status.st_uid != os.geteuid():
        raise SubmitError(f"{path} holds an API key but belongs to another user; make it your own")


def _parse(text: str) -> dict[str, str]:
    """Lines `KEY=value`, optionally with `export` and one pair of quotes; everything else is passed over."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not key.startswith("#"):
            value = value.strip()
            quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
            values[key.strip()] = value[1:-1] if quoted else value
    return values
