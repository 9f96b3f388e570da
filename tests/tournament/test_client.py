"""The guarded client, against the double: every defect of numerapi that it closes, one by one."""

from __future__ import annotations

import io
import logging
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from numerapi import NumerAPI

from eravane.core.errors import SubmitError
from eravane.tournament import connect
from eravane.tournament.client import Client
from eravane.tournament.credentials import Credentials
from eravane.tournament.transport import ApiError, Patience, check_address
from tests.tournament.double import Double
from tests.tournament.made import FakeTime

IDS = [f"n{number:015x}" for number in range(30)]


def csv_text(scale: float = 1.0) -> bytes:
    rows = "".join(f"{name},{scale * (place + 0.5) / len(IDS)}\n" for place, name in enumerate(IDS))
    return f"id,prediction\n{rows}".encode()


@pytest.fixture
def model_id(double: Double) -> str:
    double.live_ids = IDS
    double.open_round()
    return double.add_model("alpha")


def submit(client: Client, model_id: str, content: bytes | None = None) -> str:
    return client.submit(lambda: io.BytesIO(csv_text() if content is None else content), model_id)


def test_real_numerapi_has_the_defects_that_are_guarded_here(
    double: Double, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("numerapi.base_api.API_TOURNAMENT_URL", double.url)
    bare = NumerAPI(double.public_id, double.secret_key)
    double.fail("PUT", 500)
    double.fail("listDatasets", 429)
    import pandas as pd

    assert bare.upload_predictions(df=pd.DataFrame({"id": IDS, "prediction": 0.1}), model_id=model_id)
    assert double.submissions[0]["errorInfo"] == "file not found"
    with pytest.raises(KeyError, match="data"):
        bare.list_datasets()


@pytest.mark.parametrize("kind", [408, 429, 500, 502, 503, "cut", "unheard", "slow", "malformed", "no data"])
def test_a_passing_failure_is_tried_again(double: Double, client: Client, fake_time: FakeTime, kind: int | str) -> None:
    double.datasets["v5.3/live.parquet"] = b"x"
    double.slow_s = 0.6
    double.fail("listDatasets", kind, times=2)
    assert client.datasets() == ["v5.3/live.parquet"]
    assert fake_time.sleeps == [1.0, 2.0]


def test_the_server_may_ask_for_patience(double: Double, client: Client, fake_time: FakeTime) -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    double.fail("listDatasets", 429, retry_after="17")
    double.fail("listDatasets", 503, retry_after=f"{later:%a, %d %b %Y %H:%M:%S} GMT")
    double.fail("listDatasets", 503, retry_after="nonsense")
    double.fail("listDatasets", 503, retry_after="\u00b2\u00b3")  # digits to str.isdigit, no number to float
    client.datasets()
    assert fake_time.sleeps[0] == 17.0
    assert 80.0 < fake_time.sleeps[1] <= 90.0
    assert fake_time.sleeps[2:] == [4.0, 8.0]


@pytest.mark.parametrize(
    ("text", "usual", "seconds"),
    [(None, None, 300.0), (None, 6.0, 6.0), ("45", None, 45.0), ("45", 6.0, 45.0), (" ", 6.0, 6.0)],
)
def test_the_deadline_is_configured(
    double: Double, monkeypatch: pytest.MonkeyPatch, text: str | None, usual: float | None, seconds: float
) -> None:
    monkeypatch.setenv("ERAVANE_DEADLINE_S", text) if text else monkeypatch.delenv("ERAVANE_DEADLINE_S", raising=False)
    assert connect(usual).patience.deadline_s == seconds


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("text", ["0", "-5", "soon", "nan", "inf", "1e8"])
def test_a_deadline_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ERAVANE_DEADLINE_S", text)
    with pytest.raises(SubmitError, match=rf"ERAVANE_DEADLINE_S is a number of seconds above 0, .*given '{text}'"):
        connect()


def test_patience_ends_at_the_deadline_with_one_clear_error(
    double: Double, client: Client, fake_time: FakeTime
) -> None:
    double.fail("listDatasets", 500, times=10_000)
    with pytest.raises(ApiError, match=r"listDatasets failed: HTTP 500; tried 10 times, try again later"):
        client.datasets()
    assert fake_time.now <= client.patience.deadline_s
    assert fake_time.sleeps == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("status", "message"), [(401, "refuses the API key"), (404, "answered HTTP 404")])
def test_a_lasting_refusal_is_not_tried_again(
    double: Double, client: Client, fake_time: FakeTime, status: int, message: str
) -> None:
    double.fail("account", status)
    with pytest.raises(ApiError, match=message):
        client.models()
    assert fake_time.sleeps == []


def test_a_wrong_key_is_named(double: Double, patience: Patience) -> None:
    with pytest.raises(ApiError, match="account: the tournament refuses the API key"):
        Client(Credentials("who", "wrong"), patience).models()


def test_what_needs_a_key_says_so_without_one(double: Double, patience: Patience) -> None:
    public = Client(None, patience)
    assert public.datasets() == []
    assert not public.authorized
    with pytest.raises(ApiError, match="needs an API key: set NUMERAI_PUBLIC_ID"):
        public.models()


def test_an_error_of_the_api_is_passed_on_without_the_key(
    double: Double, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        from tests.tournament.graphql import GraphQLError

        raise GraphQLError(f"token {double.secret_key} of\n{double.public_id} expired")

    monkeypatch.setattr(double, "answer", refuse)
    with pytest.raises(ApiError, match=r"account: the tournament says: token \*\*\* of \*\*\* expired"):
        client.models()


def test_an_answer_of_another_shape_is_an_error(
    double: Double, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double, "answer", lambda *_: None)
    with pytest.raises(ApiError, match=r"account: .* unexpected shape \(TypeError\)"):
        client.models()


def test_models_and_rounds_are_read(double: Double, client: Client) -> None:
    alpha = double.add_model("alpha")
    double.add_model("hosted", pickle="model.pkl")
    double.models["signal"] = {**double.models["alpha"], "name": "signal", "tournament": 11}
    found = client.models()
    assert set(found) == {"alpha", "hosted"}
    assert (found["alpha"].id, found["alpha"].pickle, found["hosted"].pickle) == (alpha, None, "model.pkl")
    assert client.current_round() is None
    double.open_round(1331)
    current = client.current_round()
    assert current is not None
    assert current.number == 1331
    assert current.opens < datetime.now(UTC) < current.stakes_until


@pytest.mark.parametrize("kind", [400, 403])
def test_a_storage_that_refuses_for_good_is_given_up_soon(
    double: Double, client: Client, model_id: str, kind: int
) -> None:
    double.fail("PUT", kind, times=10_000)
    with pytest.raises(ApiError, match=rf"the storage refuses the request \(HTTP {kind}\)"):
        submit(client, model_id)
    assert double.submissions == []
    assert double.count("PUT") == 3


@pytest.mark.parametrize("kind", [400, 403, 429, 500, "unheard", "slow"])
def test_a_failed_upload_is_repeated_before_anything_is_created(
    double: Double, client: Client, model_id: str, kind: int | str
) -> None:
    double.slow_s = 0.6
    double.fail("PUT", kind, times=2)
    submit(client, model_id)
    assert len(double.submissions) == len(double.valid("alpha")) == 1
    assert double.count("submission_upload_auth") == 3


def test_a_storage_that_stays_down_creates_nothing(double: Double, client: Client, model_id: str) -> None:
    double.fail("PUT", 500, times=10_000)
    with pytest.raises(ApiError, match=r"storing predictions.csv failed: the storage answered HTTP 500"):
        submit(client, model_id)
    assert double.submissions == []


@pytest.mark.parametrize("kind", ["cut", "slow", "malformed", "no data"])
def test_a_creation_whose_answer_is_lost_is_not_repeated(
    double: Double, client: Client, model_id: str, kind: str
) -> None:
    submit(client, model_id, csv_text(0.5))
    double.slow_s = 0.6
    double.fail("create_submission", kind)
    made = submit(client, model_id)
    assert [submission["id"] for submission in double.submissions][1:] == [made]


@pytest.mark.parametrize("kind", [429, 500, "unheard"])
def test_a_creation_that_did_not_happen_is_repeated(
    double: Double, client: Client, model_id: str, kind: int | str
) -> None:
    double.fail("create_submission", kind, times=3)
    made = submit(client, model_id)
    assert [submission["id"] for submission in double.submissions] == [made]


def test_the_key_goes_to_the_api_alone(double: Double, client: Client, model_id: str) -> None:
    client.submitted_file(submit(client, model_id))
    kinds = {(asked.method, asked.authorized) for asked in double.asked}
    assert kinds == {("POST", True), ("PUT", False), ("GET", False)}


def test_a_submission_reads_back_as_it_was_sent(double: Double, client: Client, model_id: str) -> None:
    made = submit(client, model_id)
    double.fail("GET", 404)
    double.fail("GET", "cut")
    assert client.submitted_file(made) == csv_text()
    listed = client.submissions(model_id)
    assert [(s.id, s.round, s.selected, s.error) for s in listed] == [(made, 1330, True, None)]


def test_certificates_are_always_verified(
    double: Double, client: Client, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    send = requests.adapters.HTTPAdapter.send

    def spy(self: Any, request: Any, **options: Any) -> Any:
        seen.append(options["verify"])
        return send(self, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", spy)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    client = Client(Credentials(double.public_id, double.secret_key))
    client.submitted_file(submit(client, model_id))
    assert len(seen) == len(double.asked)
    assert set(seen) == {True}


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://127.0.0.1.evil.org/"]
)
def test_an_address_without_tls_is_refused(url: str) -> None:
    with pytest.raises(ApiError, match="without TLS"):
        check_address(url)


def test_a_redirect_is_not_followed(double: Double, client: Client) -> None:
    double.fail("account", 302)
    with pytest.raises(ApiError, match="HTTP 302"):
        client.models()


def test_numerapi_leaves_the_logging_of_the_process_alone(double: Double) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    root.handlers[:] = []
    Client()
    after = list(root.handlers)
    root.handlers[:] = before[0]
    assert after == []
    assert root.level == before[1]


def test_numerapi_is_imported_by_the_client_alone() -> None:
    code = (
        "import sys, eravane, eravane.tournament, eravane.tournament.predictions, "
        "eravane.tournament.fetch, eravane.tournament.submit, eravane.tournament.diagnose, eravane.tournament.scores, "
        "eravane.tournament.upload; sys.exit('numerapi' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


UNREACHED = [
    ("http://127.0.0.1:9/", "127.0.0.1 cannot be reached", {}),
    ("https://nowhere.invalid/", r"the address of nowhere\.invalid cannot be found", {}),
    ("https://example.org/", "the proxy cannot be reached", {"https": "http://127.0.0.1:9"}),
]


def _no_such_name(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(("url", "words", "proxies"), UNREACHED, ids=["refused", "no such name", "no proxy"])
def test_without_a_network_it_gives_up_at_once(
    url: str,
    words: str,
    proxies: dict[str, str],
    fake_time: FakeTime,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    if proxies:
        monkeypatch.setenv("HTTPS_PROXY", proxies["https"])
    if "nowhere" in url:
        monkeypatch.setattr(socket, "getaddrinfo", _no_such_name)
    monkeypatch.setenv("ERAVANE_TOURNAMENT", url)
    with pytest.raises(ApiError, match=f"listDatasets failed: {words}; check this machine's network"):
        Client(None, patience).datasets()
    assert fake_time.sleeps == [1.0, 2.0]


def test_a_network_that_was_there_is_waited_for(
    double: Double, client: Client, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answered once is waited for until the deadline, as a restart of it deserves."""
    client.models()
    monkeypatch.setenv("ERAVANE_TOURNAMENT", "http://127.0.0.1:9/")
    with pytest.raises(ApiError, match=r"the connection broke \(ConnectionError\); tried \d+ times"):
        client.models()
    assert sum(fake_time.sleeps) > 200
