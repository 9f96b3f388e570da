"""Credentials: where they may come from, and that they do not show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eravane.core.errors import SubmitError
from eravane.tournament.credentials import Credentials, find_credentials

BOTH = {"NUMERAI_PUBLIC_ID": "abc", "NUMERAI_SECRET_KEY": "xyz"}


def env_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / ".env"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_environment_comes_first(tmp_path: Path) -> None:
    other = env_file(tmp_path, "NUMERAI_PUBLIC_ID=file\nNUMERAI_SECRET_KEY=file\n", 0o644)
    assert find_credentials(BOTH, other) == Credentials("abc", "xyz")


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    text = "# a key\nexport NUMERAI_PUBLIC_ID='abc'\nOTHER=1\nNUMERAI_SECRET_KEY=\"x=y-z\"\n"
    assert find_credentials({}, env_file(tmp_path, text, mode)) == Credentials("abc", "x=y-z")


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o640])
def test_a_file_that_others_can_open_is_refused_without_quoting_it(tmp_path: Path, mode: int) -> None:
    path = env_file(tmp_path, "NUMERAI_PUBLIC_ID=abc\nNUMERAI_SECRET_KEY=topsecret\n", mode)
    with pytest.raises(SubmitError, match=f"mode {mode:o}; run `chmod 600") as caught:
        find_credentials({}, path)
    assert "topsecret" not in str(caught.value)


def test_a_file_of_another_project_may_be_open(tmp_path: Path) -> None:
    assert find_credentials({}, env_file(tmp_path, "DATABASE=local\n", 0o644)) is None
    assert find_credentials({}, tmp_path / "absent") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = env_file(tmp_path, "NUMERAI_PUBLIC_ID=a\nNUMERAI_SECRET_KEY=b\n")
    os.chown(path, 12345, 12345)
    with pytest.raises(SubmitError, match="belongs to another user"):
        find_credentials({}, path)


@pytest.mark.parametrize("given", list(BOTH))
def test_half_a_key_is_an_error(given: str) -> None:
    lacking = next(name for name in BOTH if name != given)
    with pytest.raises(SubmitError, match=f"has {given} but not {lacking}"):
        find_credentials({given: "topsecret", lacking: " "}, Path("absent"))


def test_the_key_does_not_show() -> None:
    credentials = Credentials("abc", "xyz")
    assert "abc" not in repr(credentials)
    assert "xyz" not in f"{credentials}"
    assert credentials.redact("with abc$xyz inside") == "with ***$*** inside"
