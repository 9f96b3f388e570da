"""HTTP as the tournament needs it: verified TLS, time limits, and failures told apart."""

from __future__ import annotations

import email.utils
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from eravane.core.errors import SubmitError

logger = logging.getLogger("eravane")

T = TypeVar("T")
LARGEST_ANSWER = 64 << 20  # bytes; an answer of the API is a few kilobytes
# Attempts before giving up where no server was ever reached: waiting minutes mends no cable.
UNREACHED_ATTEMPTS = 3
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class ApiError(SubmitError):
    """The tournament refused a request, or did not answer it in time."""


class TransientError(Exception):
    """One attempt failed in a way that another may mend.

    Args:
        reason: what happened, free of credentials and signed addresses.
        wait_s: seconds that the server asked to wait, 0 when it did not say.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class UnreachableError(TransientError):
    """No server was reached, in this attempt and in all before it: most likely this machine has no way out."""


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

        `progress` returns a number that changes when an attempt got further; the deadline then starts anew.

        Raises:
            ApiError: when the deadline passes, or no server was ever reached; whatever else the attempt raises goes
                through.
        """
        started, wait_s, reached, attempts = self.clock(), self.first_wait_s, progress(), 0
        while True:
            attempts += 1
            try:
                return attempt()
            except UnreachableError as failure:
                if attempts == UNREACHED_ATTEMPTS:
                    mend = "check this machine's network, and HTTPS_PROXY if it needs one"
                    raise ApiError(f"{what} failed: {failure}; {mend}") from None
                reason, asked_s = str(failure), failure.wait_s
            except TransientError as failure:
                reason, asked_s = str(failure), failure.wait_s
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
        self._session = requests.Session()
        self._reached = False

    def post_json(
        self, url: str, body: Mapping[str, Any], what: str, auth: requests.auth.AuthBase | None = None
    ) -> dict[str, Any]:
        """Post a JSON body and return the JSON object that comes back.

        Raises:
            TransientError: 408, 429, 5xx, a lost or silent connection, an answer that is no JSON object.
            ApiError: any other status.
        """
        with self._send("POST", url, auth=auth, json=body) as response:
            if response.status_code in (401, 403):
                raise ApiError(
                    f"{what}: the tournament refuses the API key (HTTP {response.status_code}); "
                    "check it, and the scopes it was made with"
                )
            if response.status_code in (408, 429) or response.status_code >= 500:
                raise TransientError(f"HTTP {response.status_code}", _asked_wait(response))
            if response.status_code != 200:
                raise ApiError(f"{what}: the tournament answered HTTP {response.status_code}")
            text = self.body(response)
        try:
            answer = json.loads(text)
        except ValueError:
            raise TransientError("the answer is no JSON") from None
        if not isinstance(answer, dict):
            raise TransientError("the answer is no JSON object")
        return answer

    def put(self, url: str, content: IO[bytes], headers: Mapping[str, str]) -> None:
        """Store content at a signed address.

        Raises:
            TransientError: any status but 2xx, and a lost or silent connection.
        """
        with self._send("PUT", url, data=content, headers=headers) as response:
            if not 200 <= response.status_code < 300:
                raise TransientError(f"the storage answered HTTP {response.status_code}", _asked_wait(response))

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
        until, chunks, size = self.patience.clock() + self.patience.deadline_s, [], 0
        for chunk in response.iter_content(1 << 16):
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_ANSWER or self.patience.clock() > until:
                raise TransientError("the answer does not end")
        return b"".join(chunks)

    @contextmanager
    def _send(self, method: str, url: str, **options: Any) -> Iterator[requests.Response]:
        check_address(url)
        limits = (self.patience.connect_s, self.patience.read_s)
        try:
            with self._session.request(
                method, url, timeout=limits, stream=True, allow_redirects=False, verify=True, **options
            ) as response:
                self._reached = True
                yield response
        # The texts of these errors quote signed addresses, so only their kind is passed on.
        except requests.exceptions.SSLError:
            raise ApiError(f"{urlsplit(url).hostname} has no valid TLS certificate; nothing was sent") from None
        except requests.exceptions.RequestException as error:
            unreached = None if self._reached else _why_unreached(error, urlsplit(url).hostname)
            if unreached is not None:
                raise UnreachableError(unreached) from None
            if isinstance(error, requests.exceptions.Timeout):
                raise TransientError("no answer in time") from None
            raise TransientError(f"the connection broke ({type(error).__name__})") from None


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
        ApiError: naming the scheme and the host.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ApiError(f"the tournament named an address without TLS ({parts.scheme}://{parts.hostname})")


def _asked_wait(response: requests.Response) -> float:
    """Seconds asked for by a Retry-After header (a number or a date); 0 without one."""
    asked = response.headers.get("Retry-After", "")
    if asked.isdigit():
        return float(asked)
    try:
        moment = email.utils.parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment.tzinfo else 0.0
