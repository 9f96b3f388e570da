"""Rounds that open late, move, or queue a late upload: one receipt that holds what the server says, or none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eravane.cli import main
from eravane.core.errors import PartlySubmittedError, SubmitError
from eravane.scoring.payout import rule_of
from eravane.tournament.client import Client
from eravane.tournament.overview import rules
from eravane.tournament.receipts import receipts
from eravane.tournament.rules import ask_rule
from eravane.tournament.submit import await_round, submit
from eravane.tournament.transport import ApiError
from tests.tournament import made
from tests.tournament.double import Double
from tests.tournament.made import FakeTime

pytestmark = pytest.mark.usefixtures("tournament")


def test_a_round_that_opens_late_is_waited_for(
    double: Double, client: Client, run: Path, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.round = None

    def sleep(seconds: float) -> None:
        fake_time.sleeps.append(seconds)
        fake_time.now += seconds
        if fake_time.now > 40 * 60:
            double.open_round(1330)

    monkeypatch.setattr(client, "patience", type(client.patience)(sleep=sleep, clock=fake_time.clock))
    (receipt,) = submit(run, ["alpha"], wait_hours=1.0, client=client)
    assert (receipt.status, receipt.round, receipt.selected) == ("sent", 1330, True)
    assert 40 * 60 < fake_time.now < 45 * 60


def test_waiting_ends_at_its_deadline(double: Double, client: Client, run: Path, fake_time: FakeTime) -> None:
    double.round = None
    with pytest.raises(ApiError, match="waiting for a round to open failed: no round is open"):
        await_round(1 / 6, client=client)
    assert sum(fake_time.sleeps) <= 600.0
    with pytest.raises(SubmitError, match="no round is open"):
        submit(run, ["alpha"], client=client)


def test_a_round_that_opens_in_the_future_is_not_open(double: Double, client: Client) -> None:
    double.open_round(1331)
    before = datetime.now(UTC) - timedelta(hours=3)
    with pytest.raises(ApiError, match="no round is open"):
        await_round(1 / 30, client=client, now=lambda: before)
    assert await_round(1 / 30, client=client).number == 1331


def test_a_round_that_moves_before_the_upload_is_refused(double: Double, client: Client, run: Path) -> None:
    double.moves = [1330, 1331]  # the first look, then the one right before create
    with pytest.raises(SubmitError, match=r"round 1330 was open when .* now round 1331 is: nothing was sent"):
        submit(run, ["alpha"], client=client)
    assert double.submissions == []
    assert made.receipt_files(run) == []


def test_a_submission_that_lands_in_another_round_is_recorded_and_refused(
    double: Double, client: Client, run: Path
) -> None:
    double.late_rounds = 1
    with pytest.raises(SubmitError, match=r"went to round 1331, not to 1330 \(see its receipt\)"):
        submit(run, ["alpha"], client=client)
    (kept,) = receipts(run, "alpha")
    assert (kept.round, kept.submission_id) == (1331, double.submissions[0]["id"])


def test_a_late_upload_holds_the_round_of_the_server(double: Double, client: Client, run: Path) -> None:
    double.open_round(1330, closes_in=timedelta(minutes=-5))
    double.late_rounds = 1
    (receipt,) = submit(run, ["alpha"], force=True, client=client)
    assert (receipt.round, receipt.late, receipt.selected) == (1331, True, True)
    assert receipts(run, "alpha") == [receipt]


def test_every_outcome_of_several_models_is_reported(double: Double, client: Client, run: Path) -> None:
    double.add_model("hosted", pickle="model.pkl")
    with pytest.raises(PartlySubmittedError) as caught:
        submit(run, ["alpha", "hosted", "beta"], client=client)
    assert [receipt.model for receipt in caught.value.receipts] == ["alpha", "beta"]
    assert list(caught.value.failures) == ["hosted"]


def test_the_command_tells_every_outcome_and_fails(
    double: Double, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NUMERAI_PUBLIC_ID", double.public_id)
    monkeypatch.setenv("NUMERAI_SECRET_KEY", double.secret_key)
    monkeypatch.setattr("sys.argv", ["eravane", "submit", str(run), "--model", "alpha", "--model", "absent", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    outcomes = json.loads(capsys.readouterr().out)
    assert [(item["model"], item["status"]) for item in outcomes] == [("alpha", "sent"), ("absent", "failed")]
    assert "no model 'absent'" in outcomes[1]["error"]


def paying(number: int, corr: float, mmc: float, days: int, clip: float) -> dict[str, object]:
    common = {"isPayout": True, "clipThreshold": clip, "payoutFactor": "1.0"}
    return {
        "number": number,
        "status": "RESOLVING",
        "openTime": "2026-08-28T12:00:00Z",
        "roundScoreConfigs": [
            {**common, "displayName": f"corr{days}", "defaultMultiplier": corr},
            {**common, "displayName": f"mmc{days}", "defaultMultiplier": mmc},
            {"isPayout": False, "displayName": "bmc", "defaultMultiplier": 0.0},
        ],
    }


def test_the_rule_of_the_newest_paying_round_is_read(double: Double, client: Client) -> None:
    double.rounds = [paying(1342, 0.75, 2.25, 20, 0.05), paying(1343, 3.0, 15.0, 60, 1.0)]
    rule = ask_rule(client)
    assert rule is not None
    known = rule_of(1343)
    assert (rule.corr, rule.mmc, rule.horizon, rule.clip, rule.from_round) == (3.0, 15.0, 60, 1.0, 1343)
    assert (rule.since, rule.source.split(",")[0]) == (known.since, "tournament")
    double.rounds = []
    assert ask_rule(client) is None


def test_the_rules_are_listed_with_their_sources(double: Double, client: Client, tmp_path: Path) -> None:
    double.rounds = [paying(1350, 2.0, 9.0, 60, 0.5)]
    found = {rule.name: rule for rule in rules(client=client)}
    assert found["payout"].value == "2 CORR60 + 9 MMC60"
    assert found["payout"].source.startswith("tournament, 2")
    assert found["round"].value.startswith("1330, stakes until")
    assert (found["overlap"].value, found["horizon"].value) == ("64 daily rounds", "60 days, 12 eras")
    older = found["payout before 1343"]
    assert older.value == "0.75 CORR20 + 2.25 MMC20, from 1172"
    assert older.source == "built-in table; first round counted back from 1343"
    config = tmp_path / "run.toml"
    config.write_text("[selection]\ncorr_multiplier = 1.0\n")
    found = {rule.name: rule for rule in rules(config, client=client)}
    assert (found["payout"].value, found["payout"].source) == ("1 CORR60 + 9 MMC60", "configuration")
    double.fail("rounds", 400, times=9)
    found = {rule.name: rule for rule in rules(client=client)}
    assert (found["payout"].value, found["payout"].source) == ("3 CORR60 + 15 MMC60", "built-in table")
    assert found["round"].value == "unknown"
