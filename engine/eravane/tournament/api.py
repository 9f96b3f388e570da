"""numerapi with the request at its core replaced: status codes are seen, waits end, nothing is swallowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import requests
from numerapi import NumerAPI, base_api

from eravane.tournament.credentials import HOW_TO, Credentials, tournament_address
from eravane.tournament.transport import ApiError, TransientError, Transport

CLASSIC = 8  # the tournament's number
_ROOT_FIELD = re.compile(r"\{\s*(\w+)")


class GuardedApi(NumerAPI):  # type: ignore[misc]  # numerapi is not typed
    """numerapi, whose queries go through `Transport`.

    numerapi's own request knows no time limit, retries 5xx alone, and turns every other failure into an
    empty dictionary. All its queries call `raw_query`, so replacing that one corrects them all. Its uploads and
    downloads bypass it and are not used.

    Args:
        credentials: the API key, or None for public queries.
        transport: how requests are sent.
    """

    def __init__(self, credentials: Credentials | None, transport: Transport) -> None:
        # numerapi's own constructor would configure the process's root logger, read a `.env` whatever its mode, and
        # hold the key.
        self._credentials, self._transport = credentials, transport
        self.tournament_id = CLASSIC

    def raw_query(
        self,
        query: str,
        variables: Mapping[str, object] | None = None,
        authorization: bool = False,
        **_: object,
    ) -> dict[str, Any]:
        """Send a query, again after passing failures, and return the whole answer.

        Raises:
            ApiError: when the API refuses, reports errors, or does not answer before the deadline.
        """
        return self._transport.patience.insist(
            _operation(query), lambda: self.ask_once(query, variables, authorization=authorization)
        )

    def ask_once(
        self, query: str, variables: Mapping[str, object] | None = None, *, authorization: bool = False
    ) -> dict[str, Any]:
        """Send a query once.

        Raises:
            TransientError: when sending it again may help.
            ApiError: when it would not.
        """
        what = _operation(query)
        auth = _TokenAuth(self._known_credentials()) if authorization else None
        body = {"query": query, "variables": variables}
        answer = self._transport.post_json(tournament_address(base_api.API_TOURNAMENT_URL), body, what, auth)
        if answer.get("errors"):
            raise ApiError(f"{what}: the tournament says: {self._messages(answer['errors'])}")
        if not isinstance(answer.get("data"), dict):
            raise TransientError("the answer has no data")
        return answer

    def _known_credentials(self) -> Credentials:
        if self._credentials is None:
            raise ApiError(f"this needs an API key: {HOW_TO}")
        return self._credentials

    def _messages(self, errors: object) -> str:
        """The messages of a GraphQL error list, on one line, short, and without the key."""
        listed = errors if isinstance(errors, list) else [errors]
        messages = [item.get("message", "no message") if isinstance(item, dict) else item for item in listed]
        text = " ".join("; ".join(map(str, messages)).split())[:300]
        return text if self._credentials is None else self._credentials.redact(text)


class _TokenAuth(requests.auth.AuthBase):
    """Sets the authorization header at the last moment, so that no variable on the way holds it."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        key = self._credentials
        request.headers["Authorization"] = f"Token {key.public_id}${key.secret_key}"
        return request


def _operation(query: str) -> str:
    found = _ROOT_FIELD.search(query)
    return found.group(1) if found else "query"
