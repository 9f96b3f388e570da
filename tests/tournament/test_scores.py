"""Live scores beside the backtest, multipliers from the rounds, and the hand-over of a hosted model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eravane.core.errors import RunError, SubmitError
from eravane.tournament.client import Client
from eravane.tournament.scores import scores
from eravane.tournament.transport import ApiError, Patience
from eravane.tournament.upload import upload
from tests.tournament.double import Double

CORR = [0.01, 0.03, -0.02, 0.04, 0.015]


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
    made = double.add_model("alpha")
    for place, value in enumerate(CORR):
        number = 1300 + place
        double.scores += [
            entry(made, "canon_corr20", number, 5, 99.0, resolved=False),
            entry(made, "canon_corr20", number, 20, value, resolved=place < 3),
            entry(made, "canon_mmc20", number, 20, value / 10, resolved=place < 3),
        ]
    double.scores.append(entry(made, "canon_corr20", 1310, 1, None, resolved=False))
    payout = {"isPayout": True, "clipThreshold": 0.05, "payoutFactor": "0.25"}
    double.rounds = [
        {
            "number": 1309,
            "status": "RESOLVING",
            "roundScoreConfigs": [{**payout, "displayName": "old", "defaultMultiplier": 9.0}],
        },
        {
            "number": 1311,
            "status": "OPEN",
            "roundScoreConfigs": [{"isPayout": False, "displayName": "BMC", "defaultMultiplier": 0.0}],
        },
        {
            "number": 1310,
            "status": "RESOLVING",
            "payoutFactor": "0.5",
            "roundScoreConfigs": [
                {**payout, "displayName": "CORR20", "defaultMultiplier": 0.75},
                {**payout, "displayName": "MMC20", "defaultMultiplier": 2.25, "payoutFactor": None},
                {"isPayout": False, "displayName": "BMC", "defaultMultiplier": 0.0},
            ],
        },
    ]
    return made


def test_live_scores_and_multipliers_need_no_key(double: Double, model_id: str, patience: Patience) -> None:
    sheet = scores("alpha", client=Client(None, patience))
    corr, mmc = sheet.scores
    assert (corr.metric, corr.rounds, corr.resolved) == ("canon_corr20", 5, 3)
    assert corr.summary.corr_mean == pytest.approx(np.mean(CORR))
    assert corr.summary.sharpe == pytest.approx(np.mean(CORR) / np.std(CORR))
    assert mmc.summary.corr_mean == pytest.approx(np.mean(CORR) / 10)
    assert (corr.promised, corr.t) == (None, None)
    found = {item.metric: (item.round, item.multiplier, item.payout_factor, item.clip) for item in sheet.multipliers}
    assert found == {"CORR20": (1310, 0.75, 0.25, 0.05), "MMC20": (1310, 2.25, 0.5, 0.05)}


def test_the_backtest_stands_beside_them(
    double: Double, model_id: str, client: Client, world: tuple[Path, Path, object]
) -> None:
    run = world[0]
    promised = {"corr_mean": 0.02, "corr_std": 0.03, "sharpe": 0.66, "max_drawdown": 0.1, "n_eras": 50}
    (run / "metrics.json").write_text(json.dumps({"series": {"ensemble": promised}}))
    sheet = scores("alpha", run, client=client)
    corr, mmc = sheet.scores
    assert corr.promised is not None
    assert (corr.promised.corr_mean, corr.promised.n_eras) == (0.02, 50)
    assert mmc.promised is not None
    assert mmc.promised.n_eras == 2
    centred = np.array(CORR) - np.mean(CORR)
    lags = [(1 - lag / 21) * (centred[lag:] @ centred[: len(centred) - lag]) for lag in range(1, 5)]
    error = np.sqrt(max((centred @ centred + 2 * sum(lags)) / 5, 0.0) / 5)
    assert corr.t == pytest.approx((np.mean(CORR) - 0.02) / error)


def test_a_model_without_scores_has_an_empty_sheet(double: Double, model_id: str, client: Client) -> None:
    double.scores.clear()
    double.rounds.clear()
    sheet = scores("alpha", client=client)
    assert (sheet.scores, sheet.multipliers) == ((), ())


def test_unknown_models_and_unfinished_runs_are_named(
    double: Double, model_id: str, client: Client, tmp_path: Path
) -> None:
    with pytest.raises(ApiError, match="no model 'gamma'"):
        scores("gamma", client=client)
    with pytest.raises(RunError, match=r"has no metrics.json"):
        scores("alpha", tmp_path, client=client)


def test_a_model_is_handed_over_for_hosting(double: Double, model_id: str, client: Client, tmp_path: Path) -> None:
    pickle = tmp_path / "model.pkl"
    pickle.write_bytes(b"not opened here")
    double.fail("PUT", 500)
    done = upload(pickle, "alpha", python="3.12", client=client)
    assert (done.upload_id, done.data_version, done.image) == ("pickle-1", "v5.3", "Python 3.12")
    (sent,) = double.pickles
    assert double.storage[sent["filename"]] == b"not opened here"
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
        (tmp_path / name).write_bytes(b"x")
    given = {"model_name": "alpha", "python": "3.12", **options}
    with pytest.raises(SubmitError, match=message):
        upload(tmp_path / given.pop("pickle", "model.pkl"), given.pop("model_name"), client=client, **given)
    assert double.pickles == []
