"""A planted API key appears nowhere: not in files, logs, output, errors, nor in tracebacks with local variables."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eravane.core.errors import EravaneError
from eravane.tournament import connect
from eravane.tournament.client import Client
from eravane.tournament.fetch import fetch
from eravane.tournament.scores import scores
from eravane.tournament.submit import submit
from eravane.tournament.transport import ApiError, Patience
from eravane.tournament.upload import upload
from tests.tournament import made
from tests.tournament.double import SIGNATURE, Double
from tests.tournament.made import PUBLIC_ID, SECRET_KEY, FakeTime

pytestmark = pytest.mark.usefixtures("tournament")

PLANTED = (SECRET_KEY, PUBLIC_ID, SIGNATURE)
OPERATIONS = (
    "listDatasets", "rounds", "account", "dataset", "submissions", "submission_upload_auth", "create_submission",
    "PUT", "GET", "GET v5.3/live.parquet", "computePickleUploadAuth",
)  # fmt: skip
KINDS: tuple[int | str, ...] = (401, 500, "cut", "slow", "malformed")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, fake_time: FakeTime) -> Client:
    """A client whose key comes from the environment, as on a user's machine."""
    monkeypatch.setenv("NUMERAI_PUBLIC_ID", PUBLIC_ID)
    monkeypatch.setenv("NUMERAI_SECRET_KEY", SECRET_KEY)
    quick = Patience(deadline_s=5.0, read_s=0.2, sleep=fake_time.sleep, clock=fake_time.clock)
    monkeypatch.setattr("eravane.tournament.client.Patience", lambda: quick)
    return connect()


def commands(client: Client, folder: Path) -> list[Callable[[], object]]:
    folder.mkdir()
    run = made.write_run(folder / "run", made.predictions())
    (folder / "model.pkl").write_bytes(b"x")
    return [
        lambda: fetch(folder / "data", client=client),
        lambda: submit(run, ["alpha"], client=client),
        lambda: scores("alpha", client=client),
        lambda: upload(folder / "model.pkl", "alpha", python="3.12", client=client),
    ]


def test_a_storage_out_of_reach_does_not_give_its_signature_away(
    double: Double, planted: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double, "signed", lambda kind, name: f"http://127.0.0.1:9/{name}?X-Signature={SIGNATURE}")
    with pytest.raises(ApiError, match="the connection broke") as caught:
        fetch(tmp_path, client=planted)
    assert SIGNATURE not in str(caught.value)


def frames(error: EravaneError) -> Iterator[str]:
    """The traceback as a debugger prints it, with the local variables of every frame but the test's own."""
    assert error.__traceback__ is not None
    below = error.__traceback__.tb_next
    return traceback.TracebackException(type(error), error, below, capture_locals=True).format()


@pytest.mark.parametrize("operation", [None, *OPERATIONS])
def test_a_planted_key_appears_nowhere(
    double: Double,
    planted: Client,
    tmp_path: Path,
    operation: str | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    double.slow_s = 0.3
    seen: list[str] = []
    failures = 0
    # urllib3 logs addresses at this level by its own doing; a user who asks for that gets it.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    with caplog.at_level(logging.DEBUG):
        for kind in KINDS if operation else ("none",):
            double.faults.clear()
            if operation:
                double.fail(operation, kind, times=1000)
            for command in commands(planted, tmp_path / str(kind)):
                try:
                    seen.append(repr(command()))
                except EravaneError as error:
                    failures += 1
                    seen += [str(error), repr(error)]
                    seen += frames(error)
    assert failures >= (len(KINDS) // 2 if operation else 0)
    output = capfd.readouterr()
    seen += [output.out, output.err, caplog.text, repr(planted)]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in PLANTED:
        assert not [text for text in seen if secret in text]
        assert not [content for content in files if secret.encode() in content]
