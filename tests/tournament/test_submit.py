"""Submitting against the double with real numerapi: one valid submission, or one clear error and no receipt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from eravane.core.errors import SubmitError
from eravane.tournament.client import Client
from eravane.tournament.receipts import receipts
from eravane.tournament.submit import submit
from eravane.tournament.transport import Patience
from tests.tournament import made
from tests.tournament.double import Double

pytestmark = pytest.mark.usefixtures("tournament")


def sent_rows(double: Double, name: str = "alpha") -> pd.DataFrame:
    """What the tournament would score for a model."""
    content = double.storage[double.valid(name)[-1]["filename"]].decode().splitlines()
    return pd.DataFrame([line.split(",") for line in content[1:]], columns=content[0].split(","))


def test_predictions_arrive_with_their_ids_and_a_receipt(double: Double, client: Client, run: Path) -> None:
    (receipt,) = submit(run, ["alpha"], client=client)
    sent = sent_rows(double)
    assert list(sent["id"]) == list(made.LIVE.index)
    np.testing.assert_array_equal(sent["prediction"].astype(float), made.predictions()["prediction"])
    assert (receipt.status, receipt.round, receipt.model, receipt.rows, receipt.late) == (
        "sent",
        1330,
        "alpha",
        120,
        False,
    )
    assert receipt.submission_id == double.submissions[0]["id"]
    assert receipts(run, "alpha") == [receipt]
    (path,) = made.receipt_files(run)
    assert json.loads(path.read_text())["submission_id"] == receipt.submission_id


def test_the_profile_is_what_numpy_says(client: Client, run: Path) -> None:
    (receipt,) = submit(run, ["alpha"], client=client)
    values = made.predictions()["prediction"].to_numpy()
    for group, columns in made.GROUPS.items():
        expected = np.corrcoef(made.LIVE[columns].astype(float).mean(axis=1), values)[0, 1]
        assert receipt.profile.exposures[group] == pytest.approx(expected, abs=1e-6)
    largest = max(abs(np.corrcoef(made.LIVE[name].astype(float), values)[0, 1]) for name in made.FEATURES)
    assert receipt.profile.largest_exposure == pytest.approx(largest, abs=1e-6)
    assert receipt.profile.weights == made.WEIGHTS


def test_several_models_in_one_call(double: Double, client: Client, run: Path) -> None:
    made_receipts = submit(run, ["alpha", "beta"], client=client)
    assert [receipt.model for receipt in made_receipts] == ["alpha", "beta"]
    assert len(double.valid("alpha")) == len(double.valid("beta")) == 1
    assert double.count("GET v5.3/live.parquet") == 1


def test_one_bad_model_does_not_stop_the_others(double: Double, client: Client, run: Path) -> None:
    double.add_model("hosted", pickle="model.pkl")
    with pytest.raises(SubmitError, match=r"2 of 3 models have no submission \(done: beta\)") as caught:
        submit(run, ["hosted", "absent", "beta"], client=client)
    assert "answers with its uploaded pickle 'model.pkl'" in str(caught.value)
    assert "no model 'absent'; it has alpha, beta, hosted" in str(caught.value)
    assert len(double.submissions) == len(made.receipt_files(run)) == 1


def test_the_same_predictions_are_not_sent_twice(double: Double, client: Client, run: Path) -> None:
    (first,) = submit(run, ["alpha"], client=client)
    (second,) = submit(run, ["alpha"], client=client)
    assert (second.status, second.submission_id) == ("found", first.submission_id)
    assert len(double.submissions) == len(made.receipt_files(run)) == 1
    (third,) = submit(run, ["alpha"], client=client, force=True)
    assert third.status == "sent"
    assert len(double.submissions) == len(made.receipt_files(run)) == 2


def test_other_predictions_replace_those_of_the_round(double: Double, client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    submit(made.write_run(run, made.predictions(noise=1.1)), ["alpha"], client=client)
    assert len(double.valid("alpha")) == 2
    np.testing.assert_array_equal(
        sent_rows(double)["prediction"].astype(float), made.predictions(noise=1.1)["prediction"]
    )


def test_a_dry_run_sends_and_writes_nothing(double: Double, client: Client, run: Path, patience: Patience) -> None:
    (receipt,) = submit(run, ["alpha"], client=client, dry_run=True)
    assert (receipt.status, receipt.submission_id, receipt.round) == ("dry run", "", 1330)
    (anonymous,) = submit(run, ["alpha"], client=Client(None, patience), dry_run=True)
    assert anonymous.status == "dry run"
    assert double.submissions == []
    assert not (run / "submissions").exists()


def test_without_a_key_nothing_is_sent(run: Path, patience: Patience) -> None:
    with pytest.raises(SubmitError, match="submitting needs an API key: set NUMERAI_PUBLIC_ID"):
        submit(run, ["alpha"], client=Client(None, patience))


FAULTS: list[tuple[str, int | str]] = [
    (operation, kind)
    for operation in ("rounds", "account", "submissions", "dataset", "submission_upload_auth", "create_submission")
    for kind in (429, "cut", "malformed")
] + [
    ("GET v5.3/live.parquet", 500),
    ("GET v5.3/live.parquet", "cut"),
    ("PUT", 403),
    ("PUT", 429),
    ("PUT", 500),
    ("PUT", "unheard"),
    ("PUT", "lost"),
    ("PUT", "corrupt"),
    ("submissionDownloadAuth", 500),
    ("GET", 404),
    ("GET", 500),
    ("GET", "cut"),
    ("GET", "short"),
]


@pytest.mark.parametrize(
    ("operation", "kind", "standing"),
    [(*fault, False) for fault in FAULTS]
    + [(*fault, True) for fault in FAULTS if fault[0] in ("submissions", "create_submission", "PUT", "GET")],
)
def test_every_passing_fault_ends_in_one_valid_submission(
    double: Double, client: Client, run: Path, operation: str, kind: int | str, standing: bool
) -> None:
    if standing:
        submit(run, ["alpha"], client=client)
        made.write_run(run, made.predictions(noise=1.05))
    before = len(double.valid("alpha"))
    double.fail(operation, kind)
    (receipt,) = submit(run, ["alpha"], client=client)
    assert receipt.status == "sent"
    expected = pd.read_csv(run / "live_predictions.csv", converters={"prediction": float})["prediction"]
    np.testing.assert_array_equal(sent_rows(double)["prediction"].astype(float), expected)
    assert receipt.submission_id == double.valid("alpha")[-1]["id"]
    again = (
        1
        if (operation, kind) in (("PUT", "corrupt"), ("GET", "short")) and not (standing and operation == "GET")
        else 0
    )
    assert len(double.valid("alpha")) == before + 1 + again


@pytest.mark.parametrize("operation", ["rounds", "account", "submissions", "PUT", "create_submission", "GET"])
@pytest.mark.parametrize("kind", [401, 500])
def test_every_lasting_fault_is_one_clear_error_and_no_receipt(
    double: Double, client: Client, run: Path, operation: str, kind: int
) -> None:
    double.fail(operation, kind, times=100_000)
    with pytest.raises(SubmitError):
        submit(run, ["alpha"], client=client)
    assert made.receipt_files(run) == []
    double.faults.clear()
    (receipt,) = submit(run, ["alpha"], client=client)
    assert len(double.valid("alpha")) == 1
    assert receipt.status == ("found" if operation == "GET" else "sent")
    assert len(made.receipt_files(run)) == 1


@pytest.mark.parametrize("kind", ["lost", "corrupt"])
def test_a_storage_that_spoils_every_upload_is_reported(double: Double, client: Client, run: Path, kind: str) -> None:
    double.fail("PUT", kind, times=100)
    with pytest.raises(SubmitError, match=r"submission .* to 'alpha' failed: the tournament"):
        submit(run, ["alpha"], client=client)
    assert made.receipt_files(run) == []
    double.faults.clear()
    assert submit(run, ["alpha"], client=client, force=True)[0].status == "sent"
    np.testing.assert_array_equal(sent_rows(double)["prediction"].astype(float), made.predictions()["prediction"])


def killing(monkeypatch: pytest.MonkeyPatch, request_number: int, *, after: bool) -> None:
    """Interrupt the process at its n-th request, before it leaves or after it was answered."""
    send, count = requests.adapters.HTTPAdapter.send, [0]

    def interrupted(self: Any, request: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == request_number and not after:
            raise KeyboardInterrupt
        response = send(self, request, **options)
        if count[0] == request_number:
            raise KeyboardInterrupt
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", interrupted)


@pytest.mark.parametrize("after", [False, True])
def test_a_submission_killed_anywhere_and_repeated_is_there_once(
    double: Double, client: Client, run: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    submit(run, ["alpha", "beta"], client=client)
    total = len(double.asked)
    for number in range(1, total + 1):
        for file in made.receipt_files(run):
            file.unlink()
        double.submissions.clear()
        with monkeypatch.context() as patch:
            killing(patch, number, after=after)
            with pytest.raises(KeyboardInterrupt):
                submit(run, ["alpha", "beta"], client=client)
        submit(run, ["alpha", "beta"], client=client)
        for name in ("alpha", "beta"):
            assert len(double.valid(name)) == 1, f"request {number}"
            assert [receipt.submission_id for receipt in receipts(run, name)] == [double.valid(name)[0]["id"]]


def test_a_kill_before_the_receipt_is_made_good(
    double: Double, client: Client, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("eravane.tournament.submit.keep_receipt", interrupt)
        with pytest.raises(KeyboardInterrupt):
            submit(run, ["alpha"], client=client)
    assert made.receipt_files(run) == []
    (receipt,) = submit(run, ["alpha"], client=client)
    assert (receipt.status, len(double.submissions)) == ("found", 1)
    assert receipts(run, "alpha") == [receipt]
