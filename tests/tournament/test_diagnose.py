"""Diagnostics against the double: complete eras go out, the verdict comes back beside our own numbers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numerai_tools.scoring import numerai_corr

from eravane.core.errors import RunError, SubmitError
from eravane.tournament.client import Client
from eravane.tournament.diagnose import complete_eras, diagnose
from eravane.tournament.transport import ApiError
from tests.tournament import made
from tests.tournament.double import Double
from tests.tournament.made import FakeTime

VALIDATION = made.rows(7, 11, 50).assign(data_type="validation")
VALIDATION.loc[VALIDATION["era"] == "0011", "data_type"] = "test"
NUMERAI = {7: 0.03, 8: -0.01, 9: 0.02, 12: 0.5}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Predictions of eras 8..11, one row of era 8 missing."""
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    run.mkdir()
    VALIDATION.to_parquet(data / "validation.parquet")
    predicted = VALIDATION[VALIDATION["era"] >= "0008"].reset_index()[["id", "era"]]
    predicted["prediction"] = np.random.default_rng(5).random(len(predicted))
    predicted.drop(index=3).to_parquet(run / "predictions.parquet", index=False)
    noted = {"data": {"path": str(data), "store": "absent"}, "target": "target"}
    (run / "manifest.json").write_text(json.dumps(noted))
    return run


@pytest.fixture(autouse=True)
def tournament(double: Double) -> None:
    double.add_model("alpha")
    eras = [{"era": str(era), "validationCorr": value, "validationMmc": value / 2} for era, value in NUMERAI.items()]
    double.diagnostics = {"message": "fine", "perEraDiagnostics": eras}
    double.diagnostics_wait = 3


def uploaded(double: Double) -> pd.DataFrame:
    content = double.storage[double.diagnostics["filename"]]
    return pd.read_csv(io.BytesIO(content), converters={"prediction": float})


def test_complete_validation_eras_are_sent_and_compared(double: Double, client: Client, run: Path) -> None:
    found = diagnose(run, "alpha", client=client)
    predictions = pd.read_parquet(run / "predictions.parquet").set_index("id")
    sent = uploaded(double).set_index("id")["prediction"]
    whole = VALIDATION[VALIDATION["era"].isin(["0009", "0010"])]
    assert list(sent.index) == list(whole.index)
    np.testing.assert_allclose(sent, predictions.loc[whole.index, "prediction"], rtol=0, atol=0)
    assert (found.eras, found.rows, found.message) == (2, 100, "fine")
    assert double.count("diagnostics") == 4
    numbers = {comparison.metric: comparison for comparison in found.comparisons}
    shared = predictions.join(VALIDATION["target"])
    ours = [
        float(numerai_corr(group[["prediction"]], group["target"]).iloc[0])
        for _, group in shared[shared["era"].isin(["0008", "0009"])].groupby("era")
    ]
    corr = numbers["CORR mean"]
    assert (corr.eras, corr.numerai) == (2, pytest.approx(0.005))
    assert corr.ours == pytest.approx(np.mean(ours), abs=1e-9)
    assert numbers["CORR Sharpe"].numerai == pytest.approx(0.005 / 0.015)
    assert numbers["CORR max drawdown"].numerai == pytest.approx(0.0)
    mmc = numbers["MMC mean"]
    assert (mmc.numerai, mmc.ours, mmc.eras) == (pytest.approx(np.mean(list(NUMERAI.values())) / 2), None, 0)
    assert (numbers["FNC mean"].numerai, numbers["FNC mean"].ours) == (None, None)


@pytest.mark.parametrize("operation", ["diagnosticsUploadAuth", "PUT", "createDiagnostics", "diagnostics"])
@pytest.mark.parametrize("kind", [429, 500, "unheard"])
def test_passing_faults_are_survived(
    double: Double, client: Client, run: Path, operation: str, kind: int | str
) -> None:
    double.fail(operation, kind, times=2)
    assert diagnose(run, "alpha", client=client).eras == 2
    assert len(uploaded(double)) == 100


def test_a_failed_diagnosis_says_why(double: Double, client: Client, run: Path) -> None:
    double.diagnostics |= {"status": "failed", "message": "invalid_submission_eras: Incomplete eras uploaded"}
    with pytest.raises(SubmitError, match="could not diagnose the predictions: invalid_submission_eras"):
        diagnose(run, "alpha", client=client)


def test_a_diagnosis_without_end_is_given_up(double: Double, client: Client, run: Path, fake_time: FakeTime) -> None:
    double.diagnostics_wait = 10_000
    with pytest.raises(ApiError, match="diagnostics failed: status 'pending'; tried"):
        diagnose(run, "alpha", wait_minutes=15.0, client=client)
    assert sum(fake_time.sleeps) <= 900.0


def test_an_unknown_model_and_an_unfinished_run_are_named(client: Client, run: Path, tmp_path: Path) -> None:
    with pytest.raises(SubmitError, match="no model 'gamma'; it has alpha"):
        diagnose(run, "gamma", client=client)
    with pytest.raises(RunError, match=r"manifest.json is missing or damaged"):
        diagnose(tmp_path, "alpha", client=client)


def test_no_complete_era_is_an_error(run: Path, tmp_path: Path) -> None:
    predictions = pd.read_parquet(run / "predictions.parquet")
    predictions[predictions["era"] == "0008"].to_parquet(run / "predictions.parquet", index=False)
    with pytest.raises(SubmitError, match="predicts no validation era completely"):
        complete_eras(run, tmp_path / "data")
