"""HTTP for the tournament: verified TLS, time limits, and classified failures."""

from __future__ import annotations

import email.utils
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from eravane.core.errors import SubmitError
from eravane.core.secrets import redact

logger = logging.getLogger("eravane")

T = TypeVar("T")
LARGEST_ANSWER = 64 << 20  # bytes; an answer of the API is a few kilobytes
# Attempts before giving up where no server was ever reached: waiting does not repair a connection.
UNREACHED_ATTEMPTS = 3
# Attempts at a storage that refuses: one for an address that has aged, one to spare.
REFUSED_ATTEMPTS = 3
# A body that brings less than this many bytes per second is as good as none.
LEAST_RATE = 1024
CHUNK = 1 << 16
# Variables that name trusted certificates, the first that is set counts.
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
# When the operation under way is to end, on the clock of its patience.
_until: ContextVar[float | None] = ContextVar("until", default=None)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class ApiError(SubmitError):
    """The tournament refused a request, or did not answer it in time."""


class TransientError(Exception):
    """One attempt failed in a way that a retry may correct.

    Args:
        reason: what happened, free of credentials and signed addresses.
        wait_s: seconds that the server asked to wait, 0 when it gave none.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class UnreachableError(TransientError):
    """No server was reached, in this attempt and in all before it: most likely this machine has no way out."""


class OutOfTimeError(TransientError):
    """The deadline of the operation passed within an attempt, which is not why earlier attempts failed."""


class RefusedError(TransientError):
    """The storage refuses a signed address: it may have aged, so a new one is tried, a few times."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for the tournament, in seconds.

    Attributes:
        deadline_s: time without progress after which an operation is given up, waits included.
        first_wait_s: wait after the first failure; it doubles with every further one.
        longest_wait_s: upper bound of the wait, unless the server asks for more.
        connect_s: limit for opening a connection.
        read_s: limit for a silence within an answer.
        sleep: waits that many seconds.
        clock: seconds that never run backwards.
    """

    deadline_s: float = 300.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    connect_s: float = 10.0
    read_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def insist(self, what: str, attempt: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """Repeat an attempt until it succeeds, fails for good, or the deadline passes.

        `progress` returns a number that changes when an attempt got further; the deadline then restarts.

        Raises:
            ApiError: when the deadline passes, or no server was ever reached; other errors of the attempt pass.
                It names the last failure that the server, and not the deadline, caused.
        """
        started, wait_s, reached, attempts, reason = self.clock(), self.first_wait_s, progress(), 0, ""
        while True:
            attempts += 1
            token = _until.set(started + self.deadline_s)
            try:
                return attempt()
            except UnreachableError as failure:
                if attempts == UNREACHED_ATTEMPTS:
                    advice = "check this machine's network, and HTTPS_PROXY if it needs one"
                    raise ApiError(f"{what} failed: {failure}; {advice}") from None
                reason, asked_s = str(failure), failure.wait_s
            except RefusedError as failure:
                if attempts == REFUSED_ATTEMPTS:
                    raise ApiError(f"{what} failed: {failure}") from None
                reason, asked_s = str(failure), failure.wait_s
            except OutOfTimeError as failure:
                reason, asked_s = reason or str(failure), failure.wait_s
            except TransientError as failure:
                reason, asked_s = str(failure), failure.wait_s
            finally:
                _until.reset(token)
            if progress() != reached:
                started, wait_s, reached = self.clock(), self.first_wait_s, progress()
            pause_s = max(wait_s, asked_s)
            if self.clock() - started + pause_s > self.deadline_s:
                times = "once" if attempts == 1 else f"{attempts} times"
                raise ApiError(f"{what} failed: {reason}; tried {times}, try again later")
            logger.warning("%s: %s; again in %.0f s", what, reason, pause_s)
            self.sleep(pause_s)
            wait_s = min(2 * wait_s, self.longest_wait_s)


class Transport:
    """Sends requests, each once, and sorts what goes wrong into `TransientError` and `ApiError`."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._session = _session()
        self._verify = trusted_certificates(os.environ)
        self._reached = False

    def post_json(
        self, url: str, body: Mapping[str, object], what: str, auth: requests.auth.AuthBase | None = None
    ) -> dict[str, Any]:
        """Post a JSON body and return the JSON object that comes back.

        Raises:
            TransientError: 408, 429, 5xx, a lost or silent connection, an answer that is no JSON object.
            ApiError: any other status.
        """
        with self._send("POST", url, auth=auth, json=body) as response:
            status, text = response.status_code, self.body(response)
            if status in (408, 429) or status >= 500:
                raise TransientError(f"HTTP {status}", _asked_wait(response))
        if status in (401, 403) and auth is not None:
            raise ApiError(
                f"{what}: the tournament refuses the API key (HTTP {status}{_words(text)}); "
                "check it, and the scopes it was made with"
            )
        if status != 200:
            raise ApiError(f"{what}: the tournament answered HTTP {status}{_words(text)}")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            kind = "a web page" if text.lstrip()[:1] == b"<" else "no JSON"
            raise TransientError(f"the answer is {kind}: is a proxy or a login page in between?") from None
        if not isinstance(answer, dict):
            raise TransientError("the answer is no JSON object")
        return answer

    def put(self, url: str, content: IO[bytes], headers: Mapping[str, str]) -> None:
        """Store content at a signed address.

        Raises:
            TransientError: any status but 2xx, and a lost or silent connection.
        """
        with self._send("PUT", url, data=content, headers=headers) as response:
            check_stored(response)

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """Open a signed address for reading; the body is streamed, as sent, and the status left to the caller.

        Raises:
            TransientError: a lost or silent connection, also while the body is read.
        """
        with self._send("GET", url, headers={"Accept-Encoding": "identity", **headers}) as response:
            yield response

    def body(self, response: requests.Response) -> bytes:
        """The whole body of an answer.

        Raises:
            TransientError: when it is larger than any answer should be, or trickles past the deadline.
        """
        parts, size = [], 0
        for chunk in self.chunks(response, self._end()):
            parts.append(chunk)
            size += len(chunk)
            if size > LARGEST_ANSWER:
                raise TransientError("the answer does not end")
        return b"".join(parts)

    def chunks(self, response: requests.Response, until: float | None = None) -> Iterator[bytes]:
        """The body as it arrives.

        Args:
            response: an answer whose body was not read.
            until: when it is to have ended, on the clock of the patience; None as long as bytes come at a fair rate.

        Raises:
            TransientError: a lost or silent connection, or a body that trickles.
        """
        clock, read_s = self.patience.clock, self.patience.read_s
        since, arrived = clock(), 0
        while True:
            try:
                chunk = response.raw.read1(CHUNK, decode_content=True)
            except (HTTPError, OSError) as error:
                raise TransientError(f"the connection broke ({type(error).__name__})") from None
            if not chunk:
                return
            yield chunk
            arrived += len(chunk)
            if until is not None and clock() > until:
                raise OutOfTimeError("the answer does not end")
            if clock() - since > read_s:
                if arrived < read_s * LEAST_RATE:
                    raise TransientError(f"the answer trickles ({arrived} bytes in {read_s:.0f} s)")
                since, arrived = clock(), 0

    def _end(self) -> float:
        until = _until.get()
        return self.patience.clock() + self.patience.deadline_s if until is None else until

    @contextmanager
    def _send(self, method: str, url: str, **options: object) -> Iterator[requests.Response]:
        check_address(url)
        try:
            with self._answer(method, url, options) as response:
                self._reached = True
                yield response
        # The texts of these errors quote signed addresses, so only their kind is passed on.
        except requests.exceptions.SSLError:
            trusted = "" if self._verify is True else f" by {self._verify}"
            raise ApiError(
                f"{urlsplit(url).hostname} has no valid TLS certificate{trusted}; nothing was sent. Where a proxy "
                f"signs anew, {CERTIFICATES[0]} names the file of its certificate"
            ) from None
        except requests.exceptions.RequestException as error:
            unreached = None if self._reached else _why_unreached(error, urlsplit(url).hostname)
            if unreached is not None:
                raise UnreachableError(unreached) from None
            if isinstance(error, requests.exceptions.Timeout):
                raise TransientError("no answer in time") from None
            raise TransientError(f"the connection broke ({type(error).__name__})") from None

    def _answer(self, method: str, url: str, options: dict[str, Any]) -> requests.Response:
        """The head of the answer; a server that never ends it is left alone once the operation's time is over."""
        session, done = self._session, queue.SimpleQueue[requests.Response | BaseException]()
        limits = (self.patience.connect_s, self.patience.read_s)
        body, abandoned = options.get("data"), threading.Event()

        def send() -> None:
            try:
                response = session.request(
                    method,
                    url,
                    timeout=limits,
                    stream=True,
                    allow_redirects=False,
                    verify=self._verify,
                    proxies=proxies_for(url),
                    **options,
                )
            except BaseException as error:
                done.put(error)
                return
            done.put(response)
            if abandoned.is_set():
                response.close()

        threading.Thread(target=send, daemon=True).start()
        until, sent = self._end(), _position(body)
        while True:
            try:
                answer = done.get(timeout=0.2)
            except queue.Empty:
                if _position(body) != sent:  # an upload may take any time
                    until, sent = self.patience.clock() + self.patience.deadline_s, _position(body)
                if self.patience.clock() < until:
                    continue
                abandoned.set()
                self._session = _session()
                raise OutOfTimeError("no whole answer in time") from None
            if isinstance(answer, BaseException):
                raise answer
            return answer


def check_stored(response: requests.Response) -> None:
    """Check the status of a storage's answer.

    Raises:
        TransientError: it is not a success.
    """
    status = response.status_code
    if 200 <= status < 300:
        return
    if status in (408, 429) or status >= 500:
        raise TransientError(f"the storage answered HTTP {status}", _asked_wait(response))
    raise RefusedError(f"the storage refuses the request (HTTP {status})")


def proxies_for(url: str) -> dict[str, str]:
    """The proxies that the environment names for an address, by scheme.

    Raises:
        ApiError: a variable holds no address of a proxy.
    """
    found: dict[str, str] = requests.utils.get_environ_proxies(url, no_proxy=None)
    for scheme, proxy in found.items():
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        try:
            sound = parts.hostname is not None and parts.scheme in ("", "http", "https", "socks5", "socks5h")
            _ = parts.port
        except ValueError:
            sound = False
        if not sound:
            raise ApiError(f"{scheme.upper()}_PROXY is no address of a proxy; write http://HOST:PORT, or unset it")
    return found


def trusted_certificates(environment: Mapping[str, str]) -> bool | str:
    """The certificates that the environment names as trusted; True for those that come with requests.

    Raises:
        ApiError: a variable names a file that is not there.
    """
    for name in CERTIFICATES:
        place = environment.get(name)
        if place:
            if not Path(place).exists():
                raise ApiError(f"{name} names {place}, which is not there; name a file of certificates, or unset it")
            return place
    return True


def _session() -> requests.Session:
    """A session that takes nothing from the machine: a netrc entry would add a secret to signed addresses."""
    session = requests.Session()
    session.trust_env = False
    return session


def _position(body: Any) -> int:
    try:
        return int(body.tell())
    except (AttributeError, OSError, ValueError):
        return 0


def _words(text: bytes) -> str:
    """The text of a refusal, short and without secrets; empty where none is readable."""
    try:
        listed = json.loads(text)["errors"]
        messages = [str(item.get("message", "")) if isinstance(item, dict) else str(item) for item in listed]
    except (ValueError, KeyError, TypeError):
        return ""
    reason = " ".join("; ".join(messages).split())[:300]
    return f", {redact(reason)}" if reason else ""


def _why_unreached(error: requests.exceptions.RequestException, host: str | None) -> str | None:
    """Why no connection came about at all; None where one did."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.exceptions.ProxyError):
        host, reason = "the proxy", getattr(reason, "original_error", None)
    if isinstance(reason, NameResolutionError):
        return f"the address of {host} cannot be found"
    if isinstance(reason, NewConnectionError):
        return f"{host} cannot be reached"
    return f"{host} does not answer" if isinstance(reason, ConnectTimeoutError) else None


def check_address(url: str) -> None:
    """Refuse an address that would be reached without TLS, this machine's own excepted.

    Raises:
        ApiError: naming the scheme and the host; or it is not an address.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and (parts.hostname is None or parts.port == 0):
            raise ValueError("it has no host or port")
    except ValueError as error:
        raise ApiError(f"the address of the tournament or of a file is not valid ({error})") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ApiError(f"the tournament named an address without TLS ({parts.scheme}://{parts.hostname})")


def _asked_wait(response: requests.Response) -> float:
    """Seconds asked for by a Retry-After header (a number or a date); 0 without one."""
    asked = response.headers.get("Retry-After", "")
    if asked.isdecimal():
        return float(asked)
    try:
        moment = email.utils.parsedate_to_datetime(asked)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment.tzinfo else 0.0
