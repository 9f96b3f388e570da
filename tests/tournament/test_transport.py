"""What leaves the machine and when it is given up: against servers on the loopback that do as bad ones do."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from eravane.core.secrets import redact
from eravane.tournament.credentials import Credentials, find_credentials
from eravane.tournament.transport import ApiError, OutOfTimeError, Patience, TransientError, Transport, proxies_for
from tests.tournament.double import Double

# For servers that fail on purpose: real seconds, few of them.
QUICK = Patience(deadline_s=1.5, first_wait_s=0.05, longest_wait_s=0.1, connect_s=1.0, read_s=0.8)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def serving(answer: bytes, *, byte_s: float = 0.0, from_byte: int = 0) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives one answer to every connection, from some byte on a byte at a time."""
    seen: list[bytes] = []
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            seen.append(_whole_request(connection))
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


def _whole_request(connection: socket.socket) -> bytes:
    """A request with its body: closing with a part of it unread resets the connection, and the answer is lost."""
    with connection.makefile("rb") as stream:
        head = b"".join(iter(stream.readline, b"\r\n"))
        lengths = [line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length:")]
        return head + b"\r\n" + stream.read(int(lengths[0]) if lengths else 0)


def _answer(body: bytes) -> bytes:
    return HEAD % len(body) + body


@dataclass
class Clock:
    """Seconds that pass only while somebody sleeps."""

    now: float = 0.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def unhurried(clock: Clock) -> Patience:
    """Gives up after five waits, however slow the machine is."""
    return Patience(deadline_s=5.5, first_wait_s=1.0, longest_wait_s=1.0, sleep=clock.sleep, clock=clock.read)


def _ask(url: str, patience: Patience = QUICK) -> dict[str, object]:
    transport = Transport(patience)
    return patience.insist("asking", lambda: transport.post_json(url, {}, "asking"))


def test_an_answer_of_a_good_server_arrives() -> None:
    with serving(_answer(b'{"data": 1}')) as (url, _):
        assert _ask(url, Patience()) == {"data": 1}


@pytest.mark.parametrize("from_byte", [0, 20, 100], ids=["status", "headers", "body"])
def test_a_server_that_trickles_is_given_up_by_the_deadline(from_byte: int) -> None:
    started = time.monotonic()
    server = serving(_answer(b'{"data": ' + b"1" * 900 + b"}"), byte_s=0.1, from_byte=from_byte)
    given_up = pytest.raises(
        ApiError, match=r"asking failed: (no whole answer in time|the answer (does not end|trickles))"
    )
    with server as (url, _), given_up:
        _ask(url)
    assert time.monotonic() - started < 45.0  # the answer takes 90


def test_a_download_that_trickles_is_given_up_and_one_that_flows_is_not() -> None:
    transport = Transport(QUICK)
    slow, trickles = (
        serving(_answer(b"x" * 900), byte_s=0.05, from_byte=100),
        pytest.raises(TransientError, match="trickles"),
    )
    with slow as (url, _), transport.get(url, {}) as response, trickles:
        b"".join(transport.chunks(response))
    patient = Transport(Patience())
    with serving(_answer(b"x" * 3_000_000)) as (url, _), patient.get(url, {}) as response:
        assert len(b"".join(patient.chunks(response))) == 3_000_000


def test_an_upload_whose_answer_never_comes_is_given_up() -> None:
    transport = Transport(QUICK)
    with serving(b"HTTP/1.1 200 OK\r\n", byte_s=30.0) as (url, _):
        started = time.monotonic()
        with pytest.raises(TransientError):
            transport.put(url, io.BytesIO(b"content"), {})
        assert time.monotonic() - started < 25.0  # the next byte comes after 30


def test_a_netrc_entry_leaves_no_machine(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """requests adds an Authorization header by itself; a signed address and a public query must not get one."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password NETRC0PLANTED\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    transport = Transport(Patience())
    with serving(_answer(b"{}")) as (url, seen):
        assert "Authorization" in requests.get(url, timeout=60).request.headers  # what is guarded against
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
def test_a_refusal_has_the_servers_words_and_blames_no_key_that_was_not_sent(
    status: int, body: bytes, words: str
) -> None:
    with serving(
        (b"HTTP/1.1 %d No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(body))) + body
    ) as (url, seen):
        with pytest.raises(ApiError, match=words) as caught:
            _ask(url, Patience())
        assert "key" not in str(caught.value)
        assert len(seen) == 1


def test_a_web_page_in_place_of_an_answer_is_named() -> None:
    named = pytest.raises(ApiError, match="the answer is a web page: is a proxy or a login page in between")
    with serving(_answer(b"<html>please log in</html>")) as (url, seen), named:
        _ask(url, unhurried(Clock()))
    assert len(seen) == 6


def test_a_deadline_within_an_attempt_does_not_hide_why_the_attempts_before_failed() -> None:
    clock, asked = Clock(), 0

    def attempt() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise OutOfTimeError("no whole answer in time")
        if asked == 4:
            clock.now += 10.0
            raise OutOfTimeError("the answer does not end")
        raise TransientError("HTTP 502" if asked == 2 else "the answer is a web page")

    with pytest.raises(ApiError, match=r"^asking failed: the answer is a web page; tried 4 times"):
        unhurried(clock).insist("asking", attempt)


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
