"""Address and credentials of the tournament, from the environment; credentials from a private `.env`, too."""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from eravane.core.errors import SubmitError
from eravane.core.files import read_file
from eravane.core.secrets import keep_secret

PUBLIC_ID = "NUMERAI_PUBLIC_ID"
SECRET_KEY = "NUMERAI_SECRET_KEY"
ADDRESS_VARIABLE, OFF = "ERAVANE_TOURNAMENT", "off"
HOW_TO = f"set {PUBLIC_ID} and {SECRET_KEY} in the environment, or in a file .env with mode 600"


def tournament_address(usual: str) -> str:
    """Address of the tournament: $ERAVANE_TOURNAMENT, else the usual one."""
    return usual if switched_off() else os.environ.get(ADDRESS_VARIABLE, "").strip() or usual


def switched_off() -> bool:
    """Whether $ERAVANE_TOURNAMENT is `off`: the tournament is not queried then."""
    return os.environ.get(ADDRESS_VARIABLE, "").strip().lower() == OFF


@dataclass(frozen=True)
class Credentials:
    """An API key of the tournament; neither half shows in its text form."""

    public_id: str = field(repr=False)
    secret_key: str = field(repr=False)

    def __post_init__(self) -> None:
        """Keep the key out of everything that is printed."""
        keep_secret(self.public_id, self.secret_key)

    def redact(self, text: str) -> str:
        """The text with both halves of the key removed."""
        return text.replace(self.secret_key, "***").replace(self.public_id, "***")


def find_credentials(environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> Credentials | None:
    """Look for the API key in the environment (default: the process's), then in `env_file`; None when in neither.

    Raises:
        SubmitError: when only one half is set, or when the file that holds the key is open to other users.
    """
    found = _pair(os.environ if environment is None else environment, "the environment")
    if found is None and env_file.is_file():
        found = _pair(_parse(env_file), str(env_file))
        if found is not None:
            _check_private(env_file)
    return found


def _pair(values: Mapping[str, str | None], place: str) -> Credentials | None:
    public_id, secret_key = _key(values, PUBLIC_ID, place), _key(values, SECRET_KEY, place)
    if public_id and secret_key:
        return Credentials(public_id, secret_key)
    if public_id or secret_key:
        given, lacking = (PUBLIC_ID, SECRET_KEY) if public_id else (SECRET_KEY, PUBLIC_ID)
        raise SubmitError(f"{place} has {given} but not {lacking}; set both")
    return None


def _key(values: Mapping[str, str | None], name: str, place: str) -> str:
    """Half of the key without the blanks and line ends around it; refused unseen where it cannot be one.

    Raises:
        SubmitError: there is something in it that no key has.
    """
    value = values.get(name) or ""
    keep_secret(value)
    value = value.strip()
    unfit = next((character for character in value if not "!" <= character <= "~"), None)
    if unfit is not None:
        what = "a blank or line end" if unfit.isspace() else "a character that is not plain ASCII"
        raise SubmitError(f"{name} in {place} has {what} in its middle; copy the key again, by itself")
    return value


def _check_private(path: Path) -> None:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise SubmitError(f"{path} holds an API key and has mode {mode:o}; run `chmod 600 {path}`")
    if status.st_uid != os.geteuid():
        raise SubmitError(f"{path} holds an API key but belongs to another user; make it your own")


def _parse(path: Path) -> dict[str, str | None]:
    """The file's variables by the rules of python-dotenv, with nothing put in for dollar signs.

    Raises:
        SubmitError: the file cannot be read, or is not UTF-8.
    """
    try:
        content = read_file(path)
    except OSError as error:
        raise SubmitError(
            f"{path} cannot be read ({error.strerror}); correct its permissions or move it away"
        ) from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SubmitError(f"{path} is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SubmitError(f"{path}, line {line}, is not UTF-8; save the file as UTF-8") from None
    return dotenv_values(stream=io.StringIO(text), interpolate=False)
