"""What leaves the machine and when it is given up: against servers on the loopback that do as bad ones do."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from eravane.core.secrets import redact
from eravane.tournament.credentials import Credentials, find_credentials
from eravane.tournament.transport import ApiError, Patience, TransientError, Transport, proxies_for
from tests.tournament.double import Double

QUICK = Patience(deadline_s=1.5, first_wait_s=0.05, longest_wait_s=0.1, connect_s=1.0, read_s=0.8)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def serving(answer: bytes, *, byte_s: float = 0.0, from_byte: int = 0) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives one answer to every connection, from some byte on a byte at a time."""
    seen: list[bytes] = []
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            seen.append(request)
            try:
                head = answer[:from_byte] if byte_s else answer
                connection.sendall(head)
                for place in range(len(head), len(answer)):
                    if ended.wait(byte_s):
                        return
                    connection.sendall(answer[place : place + 1])
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", seen
    finally:
        ended.set()
        listener.close()


def _answer(body: bytes) -> bytes:
    return HEAD % len(body) + body


def _ask(url: str, patience: Patience = QUICK) -> dict[str, object]:
    transport = Transport(patience)
    return patience.insist("asking", lambda: transport.post_json(url, {}, "asking"))


def test_an_answer_of_a_good_server_arrives() -> None:
    with serving(_answer(b'{"data": 1}')) as (url, _):
        assert _ask(url) == {"data": 1}


@pytest.mark.parametrize("from_byte", [0, 20, 90], ids=["status", "headers", "body"])
def test_a_server_that_trickles_is_given_up_by_the_deadline(from_byte: int) -> None:
    started = time.monotonic()
    server = serving(_answer(b'{"data": ' + b"1" * 900 + b"}"), byte_s=0.1, from_byte=from_byte)
    given_up = pytest.raises(ApiError, match=r"asking failed: (no whole answer in time|the answer does not end)")
    with server as (url, _), given_up:
        _ask(url)
    assert time.monotonic() - started < 5.0


def test_a_download_that_trickles_is_given_up_and_one_that_flows_is_not() -> None:
    transport = Transport(QUICK)
    slow, trickles = (
        serving(_answer(b"x" * 900), byte_s=0.05, from_byte=80),
        pytest.raises(TransientError, match="trickles"),
    )
    with slow as (url, _), transport.get(url, {}) as response, trickles:
        b"".join(transport.chunks(response))
    with serving(_answer(b"x" * 3_000_000)) as (url, _), transport.get(url, {}) as response:
        assert len(b"".join(transport.chunks(response))) == 3_000_000


def test_an_upload_whose_answer_never_comes_is_given_up() -> None:
    transport = Transport(QUICK)
    with serving(b"HTTP/1.1 200 OK\r\n", byte_s=30.0) as (url, _):
        started = time.monotonic()
        with pytest.raises(TransientError):
            transport.put(url, io.BytesIO(b"content"), {})
        assert time.monotonic() - started < 5.0


def test_a_netrc_entry_leaves_no_machine(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """requests adds an Authorization header by itself; a signed address and a public query must not get one."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password NETRC0PLANTED\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    transport = Transport(QUICK)
    with serving(_answer(b"{}")) as (url, seen):
        assert "Authorization" in requests.get(url, timeout=5).request.headers  # what is guarded against
        transport.put(url, io.BytesIO(b"x"), {})
        transport.post_json(url, {}, "asking")
        with transport.get(url, {}) as response:
            response.content  # noqa: B018
    assert len(seen) == 4
    assert not any(b"authorization" in request.lower() for request in seen[1:])


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, b'{"errors": [{"message": "current round not open"}]}', "HTTP 400, current round not open"),
        (400, b"<html>", r"HTTP 400$"),
        (401, b'{"errors": [{"message": "who are you"}]}', "HTTP 401, who are you"),
        (403, b"", r"answered HTTP 403$"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_and_blames_no_key_that_was_not_sent(
    status: int, body: bytes, words: str
) -> None:
    with serving((b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n" % (status, len(body))) + body) as (url, seen):
        with pytest.raises(ApiError, match=words) as caught:
            _ask(url)
        assert "key" not in str(caught.value)
        assert len(seen) == 1


def test_a_web_page_in_place_of_an_answer_is_named() -> None:
    named = pytest.raises(ApiError, match="the answer is a web page: is a proxy or a login page in between")
    with serving(_answer(b"<html>please log in</html>")) as (url, _), named:
        _ask(url)


@pytest.mark.parametrize("value", ["ftp://host:1", "http://host:port", "http://"])
def test_a_wrong_proxy_is_named_at_once_without_what_it_holds(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ApiError, match="HTTPS_PROXY is no address of a proxy"):
        proxies_for("https://api-tournament.numer.ai")


def test_certificates_that_are_not_there_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ApiError, match=r"SSL_CERT_FILE names /nowhere/ca\.pem, which is not there"):
        Transport(QUICK)


@pytest.mark.parametrize("secret", ["abcdef\nghijkl", "abcdef ghijkl", "abcdef\tghijkl", "abcdefé", "ab\x00cdef"])
def test_a_key_that_cannot_be_one_is_refused_unseen(secret: str) -> None:
    with pytest.raises(Exception, match="NUMERAI_SECRET_KEY in the environment has") as caught:
        find_credentials({"NUMERAI_PUBLIC_ID": "PUBLICPUBLIC", "NUMERAI_SECRET_KEY": secret}, Path("absent"))
    assert "cdef" not in str(caught.value)


def test_a_line_end_around_a_key_is_taken_off() -> None:
    found = find_credentials({"NUMERAI_PUBLIC_ID": "PUBLICPUBLIC\n", "NUMERAI_SECRET_KEY": " SECRETSECRET\r\n"})
    assert found == Credentials("PUBLICPUBLIC", "SECRETSECRET")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfNUMERAI_PUBLIC_ID=PUBLICID1\nNUMERAI_SECRET_KEY=SECRET$KEY", "SECRET$KEY"),
        (b"NUMERAI_PUBLIC_ID=PUBLICID1 # mine\r\nNUMERAI_SECRET_KEY=SECRETKEY1 # mine\r\n", "SECRETKEY1"),
        (b"export NUMERAI_PUBLIC_ID='PUBLICID1'\nexport NUMERAI_SECRET_KEY=\"SECRET#KEY\"", "SECRET#KEY"),
        (b"NUMERAI_PUBLIC_ID = PUBLICID1\nNUMERAI_SECRET_KEY='${HOME}X'", "${HOME}X"),
    ],
)
def test_env_files_of_other_editors_are_read(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(content)
    path.chmod(0o600)
    assert find_credentials({}, path) == Credentials("PUBLICID1", expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("NUMERAI_PUBLIC_ID=a\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"A=1\n# caf\xe9\n", "line 2, is not UTF-8"),
    ],
)
def test_env_files_of_other_encodings_are_named(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Exception, match=words):
        find_credentials({}, path)


def test_secrets_are_blotted_out_however_they_are_written() -> None:
    Credentials("PUBLIC9PLANTED", "SECRET9PLANTED")
    find_credentials({"NUMERAI_PUBLIC_ID": "PUBLIC9PLANTED", "NUMERAI_SECRET_KEY": "SECRET9PLANTED"})
    text = "Token PUBLIC9PLANTED$SECRET9PLANTED and 'SECRET9PLANTED'"
    assert "PLANTED" not in redact(text)
    with pytest.raises(Exception, match="NUMERAI_SECRET_KEY"):
        find_credentials({"NUMERAI_PUBLIC_ID": "PUBLIC9PLANTED", "NUMERAI_SECRET_KEY": "FIRST9HALF\nOTHER9HALF"})
    for form in ("FIRST9HALF\nOTHER9HALF", repr("FIRST9HALF\nOTHER9HALF"), "OTHER9HALF"):
        assert "9HALF" not in redact(form)
