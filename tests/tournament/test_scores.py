"""Live scores: each beside the backtest of its own horizon, resolved by its last day, kept, and paid by its round."""

from __future__ import annotations

import json
import pickle as pickling
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eravane.core.errors import RunError, SubmitError
from eravane.scoring.metrics import hac_mean
from eravane.tournament.client import Client
from eravane.tournament.references import tournament_benchmark
from eravane.tournament.scores import ScoreSheet, scores
from eravane.tournament.transport import ApiError, Patience
from eravane.tournament.upload import upload
from tests.tournament.double import Double

CONTENT = pickling.dumps([1, 2])
CORR = [0.01, 0.03, -0.02, 0.04, 0.015]
FIRST = 1341  # two rounds under the rule of January 2026, three under the one after it


def entry(
    model_id: str, metric: str, number: int, day: int, value: float | None, *, resolved: bool
) -> dict[str, object]:
    return {
        "modelId": model_id,
        "displayName": metric,
        "roundNumber": number,
        "day": day,
        "value": value,
        "resolved": resolved,
    }


@pytest.fixture
def model_id(double: Double) -> str:
    """Rounds 1341 to 1345 with 20-day and 60-day scores side by side; three have had their last day."""
    made = double.add_model("alpha")
    for place, value in enumerate(CORR):
        number, over = FIRST + place, place < 3
        double.scores += [
            entry(made, "v2_corr20", number, 5, 99.0, resolved=False),
            entry(made, "v2_corr20", number, 20, 2 * value, resolved=over),
            entry(made, "canon_mmc20", number, 20, value / 5, resolved=over),
            entry(made, "corr60", number, 31, value, resolved=over),
            entry(made, "mmc60", number, 31, value / 10, resolved=over),
        ]
    double.scores.append(entry(made, "corr60", 1350, 1, None, resolved=False))
    paid = {"isPayout": True, "clipThreshold": 0.05, "payoutFactor": "0.25", "totalScoreDays": 60}
    double.rounds = [
        {"number": 1346, "status": "OPEN", "roundScoreConfigs": [{"isPayout": False, "displayName": "bmc60"}]},
        {
            "number": 1345,
            "status": "RESOLVING",
            "roundScoreConfigs": [
                {**paid, "displayName": "corr60", "defaultMultiplier": 2.0},
                {**paid, "displayName": "mmc60", "defaultMultiplier": 7.0},
            ],
        },
    ]
    return made


def by_metric(sheet: ScoreSheet) -> dict[str, Any]:
    return {score.metric: score for score in sheet.scores}


def test_live_scores_need_no_key(double: Double, model_id: str, patience: Patience) -> None:
    sheet = scores("alpha", client=Client(None, patience))
    found = by_metric(sheet)
    assert {name: score.days for name, score in found.items()} == {
        "canon_mmc20": 20,
        "corr60": 60,
        "mmc60": 60,
        "v2_corr20": 20,
    }
    corr = found["v2_corr20"]
    assert (corr.rounds, corr.resolved) == (5, 3)
    assert corr.summary.corr_mean == pytest.approx(2 * np.mean(CORR))
    assert corr.summary.sharpe == pytest.approx(np.mean(CORR) / np.std(CORR))
    assert (corr.promised, corr.t, corr.against) == (None, None, "")
    assert sheet.rule is not None
    assert (sheet.rule.from_round, sheet.rule.corr, sheet.rule.mmc, sheet.rule.clip) == (1345, 2.0, 7.0, 0.05)


def test_a_round_is_resolved_when_its_last_day_is(double: Double, model_id: str, client: Client) -> None:
    double.scores = [
        entry(model_id, "corr60", 1350, 30, 0.01, resolved=True),
        entry(model_id, "corr60", 1350, 31, 0.02, resolved=False),
        entry(model_id, "corr60", 1351, 30, 0.01, resolved=False),
        entry(model_id, "corr60", 1351, 31, None, resolved=True),
    ]
    (corr,) = scores("alpha", client=client).scores
    assert (corr.rounds, corr.resolved) == (2, 1)
    assert corr.summary.corr_mean == pytest.approx(0.015)


def test_a_stake_earns_under_the_rule_of_each_round(double: Double, model_id: str, client: Client) -> None:
    earned = scores("alpha", client=client).earned
    # .75 CORR20 + 2.25 MMC20 of at most 5 % up to 1342; then 3 CORR60 + 15 MMC60; 1345 as its round states it.
    mixes = [0.75 * 2 * CORR[0] + 2.25 * CORR[0] / 5, 0.75 * 2 * CORR[1] + 2.25 * CORR[1] / 5]
    expected = [np.clip(mix, -0.05, 0.05) for mix in mixes]
    expected += [3 * CORR[place] + 15 * CORR[place] / 10 for place in (2, 3)]
    expected.append(np.clip(0.25 * (2 * CORR[4] + 7 * CORR[4] / 10), -0.05, 0.05))
    assert [number for number, *_ in earned.rounds] == [1341, 1342, 1343, 1344, 1345]
    np.testing.assert_allclose([share for _, share, _, _ in earned.rounds], expected)
    assert earned.rounds[1][1] == 0.05
    assert [final for _, _, final, _ in earned.rounds] == [True, True, True, False, False]
    assert earned.total == pytest.approx(sum(expected))
    assert earned.resolved == pytest.approx(sum(expected[:3]))


@pytest.fixture
def backtest(world: tuple[Path, Path, object]) -> Path:
    """A run of 60-day labels with metrics."""
    run = world[0]
    shutil.rmtree(run / "live_scores", ignore_errors=True)
    promised = {"corr_mean": 0.02, "corr_std": 0.03, "sharpe": 0.66, "max_drawdown": 0.1, "n_eras": 50}
    (run / "metrics.json").write_text(json.dumps({"series": {"ensemble": promised}}))
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "lags": {"minimum_score": 14}}))
    return run


def test_each_metric_is_compared_within_its_horizon(
    double: Double, model_id: str, client: Client, backtest: Path
) -> None:
    found = by_metric(scores("alpha", backtest, client=client))
    corr = found["corr60"]
    assert corr.promised is not None
    assert (corr.promised.corr_mean, corr.promised.n_eras, corr.against) == (0.02, 50, "CORR")
    found_mean = hac_mean(CORR, 64)  # rounds of 60 days share returns with 64 others
    assert corr.t == pytest.approx((np.mean(CORR) - 0.02) / found_mean.se * 1.96 / found_mean.critical)
    assert found["mmc60"].against == "MMC"
    assert found["mmc60"].promised is not None
    for name in ("v2_corr20", "canon_mmc20"):
        assert (found[name].promised, found[name].t) == (None, None)
        assert found[name].against == "not compared: the backtest is on 60-day labels"


def test_a_metric_without_a_horizon_is_not_compared(
    double: Double, model_id: str, client: Client, backtest: Path
) -> None:
    double.scores = [entry(model_id, name, 1350, 31, 0.01, resolved=True) for name in ("mmc", "bmc60", "season")]
    found = by_metric(scores("alpha", backtest, client=client))
    assert found["mmc"].against == "not compared: its horizon is not stated"
    assert found["bmc60"].against == "BMC v53_lgbm_ender20"  # the only benchmark of that dataset, named
    double.rounds[1]["roundScoreConfigs"].append({"isPayout": False, "displayName": "mmc", "totalScoreDays": 60})
    assert by_metric(scores("alpha", backtest, client=client))["mmc"].against == "MMC"


def test_the_benchmark_of_the_horizon_is_chosen() -> None:
    metrics = ["CORR", "BMC v53_lgbm_ender20", "BMC v53_lgbm_ender60"]
    assert tournament_benchmark(metrics, 60) == "BMC v53_lgbm_ender60"
    assert tournament_benchmark(metrics, 20) == tournament_benchmark(metrics, None) == "BMC v53_lgbm_ender20"
    assert tournament_benchmark(["CORR"], 60) is None


def test_resolved_rounds_stay_as_they_were(double: Double, model_id: str, client: Client, backtest: Path) -> None:
    first = scores("alpha", backtest, client=client)
    for item in double.scores:
        if item["value"] is not None:
            item["value"] = float(item["value"]) + 0.001
    double.scores = [item for item in double.scores if item["roundNumber"] != FIRST]  # no longer listed
    double.rounds[1]["roundScoreConfigs"][0]["defaultMultiplier"] = 1.0
    again = scores("alpha", backtest, client=client)
    assert by_metric(again)["corr60"].rounds == 5
    assert [share for _, share, final, _ in again.earned.rounds if final] == [
        share for _, share, final, _ in first.earned.rounds if final
    ]
    assert again.earned.rounds[-1] != first.earned.rounds[-1]
    note = "round 1342 resolved with canon_mmc20 0.006, the tournament now states 0.007; the first is kept"
    assert note in again.notes
    kept = json.loads((backtest / "live_scores" / "alpha.json").read_text())
    assert {score["round"] for score in kept["scores"]} == set(range(FIRST, FIRST + 5))


def test_what_arrived_is_kept_when_another_query_fails(
    double: Double, model_id: str, client: Client, backtest: Path
) -> None:
    double.fail("rounds", 400, times=9)
    sheet = scores("alpha", client=client)
    assert len(sheet.scores) == 4
    assert sheet.rule is None
    assert len(sheet.failures) == 1
    assert sheet.failures[0].startswith("rounds: ")
    double.faults.clear()
    scores("alpha", backtest, client=client)
    double.fail("submissionScores", 400, times=9)
    sheet = scores("alpha", backtest, client=client)
    assert len(sheet.scores) == 4  # those that the run folder keeps
    assert sheet.failures[0].startswith("live scores: ")
    double.fail("rounds", 400, times=9)
    with pytest.raises(ApiError, match="live scores"):
        scores("alpha", client=client)


def test_undefined_numbers_are_null_in_json(double: Double, model_id: str, client: Client) -> None:
    double.scores = [entry(model_id, "corr60", 1350, 31, 0.01, resolved=True)]
    content = scores("alpha", client=client).as_dict()
    assert json.loads(json.dumps(content, allow_nan=False))["scores"][0]["summary"]["sharpe"] is None


def test_a_model_without_scores_has_an_empty_sheet(double: Double, model_id: str, client: Client) -> None:
    double.scores.clear()
    double.rounds.clear()
    sheet = scores("alpha", client=client)
    assert (sheet.scores, sheet.rule, sheet.earned.rounds, sheet.failures) == ((), None, (), ())


def test_unknown_models_and_unfinished_runs_are_named(
    double: Double, model_id: str, client: Client, tmp_path: Path
) -> None:
    double.rounds.clear()
    double.fail("rounds", 400, times=9)
    with pytest.raises(ApiError, match="no model 'gamma'"):
        scores("gamma", client=client)
    with pytest.raises(RunError, match=r"has no metrics.json"):
        scores("alpha", tmp_path, client=client)


def test_a_model_is_handed_over_for_hosting(double: Double, model_id: str, client: Client, tmp_path: Path) -> None:
    pickle = tmp_path / "model.pkl"
    pickle.write_bytes(CONTENT)
    double.fail("PUT", 500)
    done = upload(pickle, "alpha", python="3.12", client=client)
    assert (done.upload_id, done.data_version, done.image) == ("pickle-1", "v5.3", "Python 3.12")
    (sent,) = double.pickles
    assert double.storage[sent["filename"]] == CONTENT
    assert (sent["modelId"], sent["dataVersionId"], sent["dockerImageId"]) == (model_id, "data-v5.3", "image-3.12")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": "gamma"}, "no model 'gamma'; it has alpha"),
        ({"data_version": "v4"}, r"cannot ask for dataset 'v4'; they can for v5.2, v5.3"),
        ({"python": "3.1"}, r"no container for Python 3.1; it has Python 3.10"),
        ({"pickle": "model.txt"}, "is no model file"),
        ({"pickle": "absent.pkl"}, "is no model file"),
    ],
)
def test_a_hand_over_that_cannot_be_is_refused(
    double: Double, model_id: str, client: Client, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    for name in ("model.pkl", "model.txt"):
        (tmp_path / name).write_bytes(CONTENT)
    given = {"model_name": "alpha", "python": "3.12", **options}
    with pytest.raises(SubmitError, match=message):
        upload(tmp_path / given.pop("pickle", "model.pkl"), given.pop("model_name"), client=client, **given)
    assert double.pickles == []
