"""Submitting against the double with real numerapi: one valid submission, or one clear error and no receipt."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from eravane.errors import SubmitError
from eravane.tournament.client import Client
from eravane.tournament.receipts import Profile, Receipt, receipts
from eravane.tournament.submit import submit
from eravane.tournament.transport import ApiError, Patience
from tests.tournament import made
from tests.tournament.double import Double

LIVE = made.live(120)
WEIGHTS = {"medium.wisdom": 0.6, "all.rain": 0.4}


def predictions(seed: int = 0, noise: float = 1.0) -> pd.DataFrame:
    """Predictions for LIVE that lean on one feature."""
    random = np.random.default_rng(seed)
    mixed = LIVE["feature_a"] + noise * 3 * random.random(len(LIVE))
    return pd.DataFrame({"id": LIVE.index, "prediction": ((mixed.rank() - 0.5) / len(LIVE)).to_numpy()})


def write_run(folder: Path, frame: pd.DataFrame, weights: dict[str, float] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "live_predictions.csv", index=False)
    (folder / "live.json").write_text(json.dumps({"era": 12, "rows": 120, "weights": weights or WEIGHTS}))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", predictions())


@pytest.fixture(autouse=True)
def tournament(double: Double) -> None:
    double.datasets = {**made.dataset(), "v5.3/live.parquet": made.parquet(LIVE)}
    double.live_ids = list(LIVE.index)
    double.open_round(1330)
    for name in ("alpha", "beta"):
        double.add_model(name)


def sent_rows(double: Double, name: str = "alpha") -> pd.DataFrame:
    """What the tournament would score for a model."""
    content = double.storage[double.valid(name)[-1]["filename"]].decode().splitlines()
    return pd.DataFrame([line.split(",") for line in content[1:]], columns=content[0].split(","))


def receipt_files(run: Path) -> list[Path]:
    return sorted((run / "submissions").glob("*.json")) if (run / "submissions").exists() else []


def test_predictions_arrive_with_their_ids_and_a_receipt(double: Double, client: Client, run: Path) -> None:
    (receipt,) = submit(run, ["alpha"], client=client)
    sent = sent_rows(double)
    assert list(sent["id"]) == list(LIVE.index)
    np.testing.assert_array_equal(sent["prediction"].astype(float), predictions()["prediction"])
    assert (receipt.status, receipt.round, receipt.model, receipt.rows, receipt.late) == (
        "sent",
        1330,
        "alpha",
        120,
        False,
    )
    assert receipt.submission_id == double.submissions[0]["id"]
    assert receipts(run, "alpha") == [receipt]
    (path,) = receipt_files(run)
    assert json.loads(path.read_text())["submission_id"] == receipt.submission_id


def test_the_profile_is_what_numpy_says(client: Client, run: Path) -> None:
    (receipt,) = submit(run, ["alpha"], client=client)
    values = predictions()["prediction"].to_numpy()
    for group, columns in made.GROUPS.items():
        expected = np.corrcoef(LIVE[columns].astype(float).mean(axis=1), values)[0, 1]
        assert receipt.profile.exposures[group] == pytest.approx(expected, abs=1e-6)
    largest = max(abs(np.corrcoef(LIVE[name].astype(float), values)[0, 1]) for name in made.FEATURES)
    assert receipt.profile.largest_exposure == pytest.approx(largest, abs=1e-6)
    assert receipt.profile.weights == WEIGHTS


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
    assert len(double.submissions) == len(receipt_files(run)) == 1


def test_the_same_predictions_are_not_sent_twice(double: Double, client: Client, run: Path) -> None:
    (first,) = submit(run, ["alpha"], client=client)
    (second,) = submit(run, ["alpha"], client=client)
    assert (second.status, second.submission_id) == ("found", first.submission_id)
    assert len(double.submissions) == len(receipt_files(run)) == 1
    (third,) = submit(run, ["alpha"], client=client, force=True)
    assert third.status == "sent"
    assert len(double.submissions) == len(receipt_files(run)) == 2


def test_other_predictions_replace_those_of_the_round(double: Double, client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    submit(write_run(run, predictions(noise=1.1)), ["alpha"], client=client)
    assert len(double.valid("alpha")) == 2
    np.testing.assert_array_equal(sent_rows(double)["prediction"].astype(float), predictions(noise=1.1)["prediction"])


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
        write_run(run, predictions(noise=1.05))
    before = len(double.valid("alpha"))
    double.fail(operation, kind)
    (receipt,) = submit(run, ["alpha"], client=client)
    assert receipt.status == "sent"
    expected = pd.read_csv(run / "live_predictions.csv")["prediction"]
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
    assert receipt_files(run) == []
    double.faults.clear()
    (receipt,) = submit(run, ["alpha"], client=client)
    assert len(double.valid("alpha")) == 1
    assert receipt.status == ("found" if operation == "GET" else "sent")
    assert len(receipt_files(run)) == 1


@pytest.mark.parametrize("kind", ["lost", "corrupt"])
def test_a_storage_that_spoils_every_upload_is_reported(double: Double, client: Client, run: Path, kind: str) -> None:
    double.fail("PUT", kind, times=100)
    with pytest.raises(SubmitError, match=r"submission .* to 'alpha' failed: the tournament"):
        submit(run, ["alpha"], client=client)
    assert receipt_files(run) == []
    double.faults.clear()
    assert submit(run, ["alpha"], client=client, force=True)[0].status == "sent"
    np.testing.assert_array_equal(sent_rows(double)["prediction"].astype(float), predictions()["prediction"])


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
        for file in receipt_files(run):
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
    assert receipt_files(run) == []
    (receipt,) = submit(run, ["alpha"], client=client)
    assert (receipt.status, len(double.submissions)) == ("found", 1)
    assert receipts(run, "alpha") == [receipt]


@pytest.mark.parametrize(
    ("hours_to_stakes_end", "message"),
    [(-1, "a submission now would be scored, but not staked on"), (-30, "would be queued for the next round")],
)
def test_a_late_submission_is_held_back(
    double: Double, client: Client, run: Path, hours_to_stakes_end: int, message: str
) -> None:
    double.open_round(1330, closes_in=timedelta(hours=hours_to_stakes_end))
    with pytest.raises(SubmitError, match=message):
        submit(run, ["alpha"], client=client)
    assert double.submissions == []
    (receipt,) = submit(run, ["alpha"], client=client, force=True)
    assert receipt.late


def test_a_round_that_is_not_open_takes_nothing(double: Double, client: Client, run: Path) -> None:
    early = datetime.now(UTC) - timedelta(hours=2)
    with pytest.raises(SubmitError, match="round 1330 opens at"):
        submit(run, ["alpha"], client=client, now=lambda: early)
    double.round = None
    with pytest.raises(SubmitError, match="no round is open; rounds open from Tuesday"):
        submit(run, ["alpha"], client=client, force=True)
    assert double.submissions == []


def test_a_round_that_closes_on_the_way_is_an_error(double: Double, client: Client, run: Path) -> None:
    def close() -> None:
        double.round = None

    double.fail("submission_upload_auth", "no op", after=close)
    with pytest.raises(ApiError, match="create_submission: the tournament says: Current round not open"):
        submit(run, ["alpha"], client=client)
    assert receipt_files(run) == []


def test_a_round_that_changes_on_the_way_is_an_error(double: Double, client: Client, run: Path) -> None:
    double.fail("submission_upload_auth", "no op", times=5, after=lambda: double.open_round(1331))
    with pytest.raises(SubmitError, match="it went to round 1331, not to 1330"):
        submit(run, ["alpha"], client=client)
    assert receipt_files(run) == []


def test_predictions_for_another_live_file_are_refused(double: Double, client: Client, run: Path) -> None:
    double.datasets["v5.3/live.parquet"] = made.parquet(made.live(120, seed=8))
    with pytest.raises(SubmitError, match="120 of 120 live ids have no prediction"):
        submit(run, ["alpha"], client=client, force=True)
    double.datasets["v5.3/live.parquet"] = made.parquet(made.live(119))
    with pytest.raises(SubmitError, match="1 ids are not in the live file"):
        submit(run, ["alpha"], client=client)
    assert double.submissions == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.iloc[:-1], "1 of 120 live ids have no prediction"),
        (lambda frame: frame.assign(prediction=0.5), "a constant cannot be scored"),
        (lambda frame: frame.assign(prediction=frame["prediction"].where(frame.index != 3)), "is not a CSV"),
        (lambda frame: frame.assign(prediction=frame["prediction"] * 1.1), "strictly between 0 and 1"),
        (lambda frame: frame[["prediction"]], "is not a CSV|columns must be id, prediction"),
    ],
)
def test_bad_predictions_are_refused_even_by_force(
    double: Double, client: Client, run: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(SubmitError, match=message):
        submit(write_run(run, spoil(predictions())), ["alpha"], client=client, force=True)
    assert double.submissions == []


def last_receipt(run: Path, **changes: Any) -> None:
    """Put a receipt of the round before into a run folder, as if its profile had been different."""
    (path,) = receipt_files(run)
    noted = json.loads(path.read_text())
    noted["profile"] |= changes
    path.write_text(json.dumps(noted))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exposures": {"wisdom": -0.9, "rain": 0.0}}, r"the exposure to wisdom jumped from -0.900 to \+0"),
        ({"largest_exposure": 0.01}, "the largest exposure to one feature rose from 0.010 to 0"),
        ({"weights": {"medium.wisdom": 0.01, "small.agility": 0.99}}, "99% of the weight moved"),
        ({"exposures": {"quantum": 0.0}}, "feature groups are missing in the live file: quantum"),
    ],
)
def test_a_jump_against_the_last_submission_is_held_back(
    double: Double, client: Client, run: Path, changes: dict[str, Any], message: str
) -> None:
    submit(run, ["alpha"], client=client)
    last_receipt(run, **changes)
    double.open_round(1331)
    with pytest.raises(SubmitError, match=f"held back: {message}"):
        submit(run, ["alpha"], client=client)
    with pytest.raises(SubmitError, match="held back"):
        submit(run, ["alpha"], client=client, dry_run=True)
    assert len(double.submissions) == 1
    (receipt,) = submit(run, ["alpha"], client=client, force=True)
    assert receipt.status == "sent"
    assert len(receipt.overridden) == 1


def test_a_group_that_went_missing_is_held_back(double: Double, client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    double.open_round(1331)
    without = LIVE.assign(**{name: np.int8(2) for name in made.GROUPS["rain"]})
    double.datasets["v5.3/live.parquet"] = made.parquet(without)
    with pytest.raises(SubmitError, match="held back: feature groups are missing in the live file: rain"):
        submit(run, ["alpha"], client=client)


def test_predictions_turned_around_are_held_back(double: Double, client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    turned = predictions().assign(prediction=1 - predictions()["prediction"])
    with pytest.raises(SubmitError, match=r"rank correlation with this round's standing submission is -1.00"):
        submit(write_run(run, turned), ["alpha"], client=client)
    double.open_round(1331)
    with pytest.raises(SubmitError, match=r"rank correlation with round 1330's submission is -1.00"):
        submit(run, ["alpha"], client=client)
    assert len(double.submissions) == 1


def test_a_steady_model_is_not_held_back(double: Double, client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    double.open_round(1331)
    write_run(run, predictions(noise=1.05), {"medium.wisdom": 0.5, "all.rain": 0.5})
    assert submit(run, ["alpha"], client=client)[0].status == "sent"


def test_a_standing_submission_of_another_form_is_replaced(double: Double, client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    name = double.submissions[0]["filename"]
    double.storage[name] = double.storage[name].replace(b"id,prediction", b"id,probability")
    assert submit(run, ["alpha"], client=client)[0].status == "sent"


def test_a_damaged_receipt_is_named(client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    (path,) = receipt_files(run)
    path.write_text('{"status": "sent"')
    with pytest.raises(SubmitError, match=f"the receipt {path} is damaged"):
        submit(write_run(run, predictions(3)), ["alpha"], client=client)


def test_a_receipt_cannot_lead_out_of_the_folder(client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    (path,) = receipt_files(run)
    noted = json.loads(path.read_text())
    path.write_text(json.dumps(noted | {"sha256": "../../../../etc/passwd" + "0" * 42}))
    with pytest.raises(SubmitError, match="is damaged"):
        receipts(run, "alpha")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "a b", "x" * 65, "a.json"])
def test_a_model_name_that_is_none_is_refused(client: Client, run: Path, name: str) -> None:
    with pytest.raises(SubmitError, match="is no model name"):
        submit(run, [name], client=client)


def test_what_is_not_a_run_is_said(client: Client, tmp_path: Path) -> None:
    with pytest.raises(SubmitError, match="is no folder; give the run folder"):
        submit(tmp_path / "absent", ["alpha"], client=client)
    with pytest.raises(SubmitError, match=r"live_predictions.csv does not exist; `eravane run` writes it"):
        submit(tmp_path, ["alpha"], client=client)


def test_receipts_of_names_that_begin_alike_are_kept_apart(client: Client, double: Double, run: Path) -> None:
    double.add_model("alpha-2")
    submit(run, ["alpha", "alpha-2"], client=client)
    assert [receipt.model for receipt in receipts(run, "alpha")] == ["alpha"]
    assert [receipt.model for receipt in receipts(run, "alpha-2")] == ["alpha-2"]


def test_a_receipt_knows_its_types(client: Client, run: Path) -> None:
    (receipt,) = submit(run, ["alpha"], client=client)
    assert isinstance(receipt, Receipt)
    assert isinstance(receipts(run, "alpha")[0].profile, Profile)
    assert datetime.fromisoformat(receipt.time).tzinfo is not None
