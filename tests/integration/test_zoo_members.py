"""The zoo inside a whole run: members from outside, both learners, a Dask cluster of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane.core.config import RunConfig, parse_config
from eravane.pipeline.batch import RunResult, run
from eravane.report import load_run
from tests.support.micro import MICRO


def _with(**changes: dict[str, object]) -> RunConfig:
    sections = dict.fromkeys([*MICRO, *changes])
    return parse_config({name: MICRO.get(name, {}) | changes.get(name, {}) for name in sections})


@pytest.fixture(scope="module")
def predictions(micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions made elsewhere: the target with much noise, and noise alone for the live rows."""
    parts = [pd.read_parquet(micro_data / f"{name}.parquet") for name in ("train", "validation", "live")]
    whole = pd.concat(parts)
    noise = np.random.default_rng(0).normal(size=len(whole))
    frame = whole[["era"]].assign(prediction=whole["target"].fillna(0.5) + 0.5 * noise)
    path = tmp_path_factory.mktemp("outside") / "mine.parquet"
    frame.to_parquet(path)
    return path


@pytest.fixture(scope="module")
def mixed(micro_data: Path, predictions: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("mixed")
    config = _with(zoo={"members": {"mine": str(predictions)}})
    return run(micro_data, config, folder / "run", cache=folder / "cache")


def test_a_member_is_gated_like_any_other_model(mixed: RunResult, predictions: Path) -> None:
    name = "given.mine.target.0"
    zoo = pd.read_parquet(mixed.path / "zoo.parquet").set_index("model_id")
    assert bool(zoo.loc[name, "selected"])
    assert tuple(zoo.loc[name, ["learner", "n_features", "n_trees"]]) == ("given", 0, 0)
    given = pd.read_parquet(predictions)["prediction"].astype(np.float32)
    for file in ("oof", "base_predictions"):
        found = pd.read_parquet(mixed.path / f"{file}.parquet").set_index("id")[name]
        np.testing.assert_array_equal(found, given.reindex(found.index))
    weights = pd.read_parquet(mixed.path / "weights.parquet")[name]
    assert weights.max() > 0  # its CORR of about .2 is above every tree's
    assert len(pd.read_csv(mixed.path / "live_predictions.csv")) > 0


def test_lightgbm_runs_the_whole_batch_and_dask_changes_nothing(micro_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightgbm", reason="needs LightGBM")
    zoo = {"learner": "lightgbm", "params": {"max_depth": 2, "min_data_in_leaf": 10}}
    results = {}
    for cluster in ("", "local"):
        config = _with(zoo=zoo, loop={"update": "refit"}, compute={"scheduler": cluster, "workers": 2})
        results[cluster] = run(micro_data, config, tmp_path / f"run-{cluster}", cache=tmp_path / f"cache-{cluster}")
    threads, dask = results[""].path, results["local"].path
    for name in ("oof", "predictions", "weights", "scores"):
        assert (threads / f"{name}.parquet").read_bytes() == (dask / f"{name}.parquet").read_bytes()
    models = []
    for path in (threads, dask):
        trained = [event for event in load_run(path).events if event["event"] == "trained"]
        models.append(sorted((event["model"], event["train_last"], event["trained_on"]) for event in trained))
    assert models[0] == models[1]
    assert {device for _, _, device in models[0]} == {"cpu"}
    assert set(pd.read_parquet(threads / "zoo.parquet")["learner"]) == {"lightgbm"}
