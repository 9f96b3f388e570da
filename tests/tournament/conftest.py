"""A running double of the tournament, and a client for it whose waits cost no time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane.data.ingest import ingest
from eravane.tournament.client import Client
from eravane.tournament.credentials import Credentials
from eravane.tournament.transport import Patience
from tests.tournament import made
from tests.tournament.double import Double
from tests.tournament.made import PUBLIC_ID, SECRET_KEY, FakeTime


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    with Double(public_id=PUBLIC_ID, secret_key=SECRET_KEY) as running:
        monkeypatch.setenv("ERAVANE_TOURNAMENT", running.url)
        yield running


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def patience(fake_time: FakeTime) -> Patience:
    return Patience(read_s=0.3, sleep=fake_time.sleep, clock=fake_time.clock)


@pytest.fixture
def client(double: Double, patience: Patience) -> Client:
    return Client(Credentials(PUBLIC_ID, SECRET_KEY), patience)


@pytest.fixture
def tournament(double: Double) -> None:
    """An open round with two models and the made live file."""
    double.datasets = {**made.dataset(), "v5.3/live.parquet": made.parquet(made.LIVE)}
    double.live_ids = list(made.LIVE.index)
    double.open_round(1330)
    for name in ("alpha", "beta"):
        double.add_model(name)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with live predictions."""
    return made.write_run(tmp_path / "run", made.predictions())


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, pd.DataFrame]:
    """A dataset of eras 1..10 with references for some of them, a run that predicts 4..10, and all of it in a frame."""
    folder = tmp_path_factory.mktemp("world")
    data, run = folder / "data", folder / "run"
    data.mkdir()
    run.mkdir()
    rows = pd.concat([made.rows(1, 6, 60), made.rows(7, 10, 60, seed=1)])
    rows.loc[rows["era"] == "0010", "target"] = np.nan
    sets = {"all": list(made.FEATURES), "small": ["feature_a"], "medium": ["feature_a"], "fncv3_features": made.NEUTRAL}
    (data / "features.json").write_text(json.dumps({"feature_sets": sets, "targets": ["target"]}))
    validation = rows["era"] > "0006"
    rows[~validation].to_parquet(data / "train.parquet")
    rows[validation].assign(data_type="validation").to_parquet(data / "validation.parquet")
    random = np.random.default_rng(3)
    rows["prediction"] = random.random(len(rows))
    rows["numerai_meta_model"] = random.random(len(rows)).round(2)
    rows["v53_lgbm_ender20"] = random.random(len(rows)).astype(np.float32)
    meta = rows[rows["era"] >= "0008"]
    meta[["era", "numerai_meta_model"]].to_parquet(data / "meta_model.parquet")
    benchmark = rows[rows["era"] >= "0005"]
    for name, part in (("train", benchmark["era"] <= "0006"), ("validation", benchmark["era"] > "0006")):
        benchmark.loc[part, ["era", "v53_lgbm_ender20"]].to_parquet(data / f"{name}_benchmark_models.parquet")
    predicted = rows[rows["era"] >= "0004"].reset_index()
    predicted[["id", "era", "prediction"]].to_parquet(run / "predictions.parquet", index=False)
    ingest(data, folder / "store")
    noted = {"data": {"path": str(data), "store": str(folder / "store")}, "target": "target"}
    (run / "manifest.json").write_text(json.dumps(noted))
    return run, data, rows
