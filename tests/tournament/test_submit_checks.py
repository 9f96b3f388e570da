"""What is not sent: late, foreign, bad or unusual predictions, and what a person may override."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eravane.core.errors import SubmitError
from eravane.tournament.client import Client
from eravane.tournament.receipts import Profile, Receipt, receipts
from eravane.tournament.submit import submit
from eravane.tournament.transport import ApiError
from tests.tournament import made
from tests.tournament.double import Double

pytestmark = pytest.mark.usefixtures("tournament")


def test_a_late_submission_is_held_back(double: Double, client: Client, run: Path) -> None:
    double.open_round(1330, closes_in=timedelta(hours=-1))
    with pytest.raises(SubmitError, match="a submission now would be scored, but not staked on"):
        submit(run, ["alpha"], client=client)
    assert double.submissions == []
    (receipt,) = submit(run, ["alpha"], client=client, force=True)
    assert receipt.late


def test_a_round_that_has_closed_takes_nothing_even_by_force(double: Double, client: Client, run: Path) -> None:
    double.open_round(1330, closes_in=timedelta(hours=-30))
    with pytest.raises(SubmitError, match=r"round 1330 closed at .* would be queued for the next round"):
        submit(run, ["alpha"], client=client, force=True)
    assert double.submissions == []


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
    assert made.receipt_files(run) == []


def test_a_round_that_changes_on_the_way_is_an_error(double: Double, client: Client, run: Path) -> None:
    double.fail("submission_upload_auth", "no op", times=5, after=lambda: double.open_round(1331))
    with pytest.raises(SubmitError, match="went to round 1331, not to 1330"):
        submit(run, ["alpha"], client=client)
    assert len(double.submissions) == 1
    (kept,) = made.receipt_files(run)
    assert json.loads(kept.read_text())["round"] == 1331


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
        (lambda frame: frame.assign(prediction=frame["prediction"].where(frame.index != 3)), "is no plain decimal"),
        (lambda frame: frame.assign(prediction=frame["prediction"] * 1.1), "strictly between 0 and 1"),
        (lambda frame: frame[["prediction"]], "is no CSV of id, prediction"),
    ],
)
def test_bad_predictions_are_refused_even_by_force(
    double: Double, client: Client, run: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(SubmitError, match=message):
        submit(made.write_run(run, spoil(made.predictions())), ["alpha"], client=client, force=True)
    assert double.submissions == []


def last_receipt(run: Path, **changes: Any) -> None:
    """Put a receipt of the round before into a run folder, as if its profile had been different."""
    (path,) = made.receipt_files(run)
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
    without = made.LIVE.assign(**{name: np.int8(2) for name in made.GROUPS["rain"]})
    double.datasets["v5.3/live.parquet"] = made.parquet(without)
    with pytest.raises(SubmitError, match="held back: feature groups are missing in the live file: rain"):
        submit(run, ["alpha"], client=client)


def test_predictions_turned_around_are_held_back(double: Double, client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    turned = made.predictions().assign(prediction=1 - made.predictions()["prediction"])
    with pytest.raises(SubmitError, match=r"rank correlation with this round's standing submission is -1.00"):
        submit(made.write_run(run, turned), ["alpha"], client=client)
    double.open_round(1331)
    with pytest.raises(SubmitError, match=r"rank correlation with round 1330's submission is -1.00"):
        submit(run, ["alpha"], client=client)
    assert len(double.submissions) == 1


def test_a_steady_model_is_not_held_back(double: Double, client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    double.open_round(1331)
    made.write_run(run, made.predictions(noise=1.05), {"medium.wisdom": 0.5, "all.rain": 0.5})
    assert submit(run, ["alpha"], client=client)[0].status == "sent"


def test_a_standing_submission_of_another_form_is_replaced(double: Double, client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    name = double.submissions[0]["filename"]
    double.storage[name] = double.storage[name].replace(b"id,prediction", b"id,probability")
    assert submit(run, ["alpha"], client=client)[0].status == "sent"


def test_a_damaged_receipt_is_named(client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    (path,) = made.receipt_files(run)
    path.write_text('{"status": "sent"')
    with pytest.raises(SubmitError, match=f"the receipt {path} is damaged"):
        submit(made.write_run(run, made.predictions(3)), ["alpha"], client=client)


def test_a_receipt_cannot_lead_out_of_the_folder(client: Client, run: Path) -> None:
    submit(run, ["alpha"], client=client)
    (path,) = made.receipt_files(run)
    noted = json.loads(path.read_text())
    path.write_text(json.dumps(noted | {"sha256": "../../../../etc/passwd" + "0" * 42}))
    with pytest.raises(SubmitError, match="is damaged"):
        receipts(run, "alpha")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "a b", "x" * 65, "a.json"])
def test_a_model_name_that_is_none_is_refused(client: Client, run: Path, name: str) -> None:
    with pytest.raises(SubmitError, match="is no model name"):
        submit(run, [name], client=client)


def test_what_is_not_a_run_is_refused(client: Client, tmp_path: Path) -> None:
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
