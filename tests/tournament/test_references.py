"""Scores against references equal numerai-tools, and say over which eras they were taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from numerai_tools.scoring import (
    correlation_contribution,
    feature_neutral_corr,
    numerai_corr,
    tie_kept_rank__gaussianize__pow_1_5,
)

from eravane.core.errors import DataError, RunError
from eravane.tournament.references import era_scores, reference_scores
from tests.tournament import made


def official(rows: pd.DataFrame, first: str, last: str, score: Callable[[pd.DataFrame], float]) -> pd.Series:
    chosen = rows[(rows["era"] >= first) & (rows["era"] <= last)]
    found = {int(era): score(group) for era, group in chosen.groupby("era")}
    return pd.Series(found)


def cwmm(group: pd.DataFrame) -> float:
    powered = tie_kept_rank__gaussianize__pow_1_5(group[["prediction"]])["prediction"]
    return float(powered.corr(group["numerai_meta_model"]))


def test_every_score_equals_numerai_tools(world: tuple[Path, Path, pd.DataFrame]) -> None:
    run, _, rows = world
    found = era_scores(run)
    expected = {
        "CORR": official(rows, "0004", "0009", lambda g: numerai_corr(g[["prediction"]], g["target"]).iloc[0]),
        "MMC": official(
            rows,
            "0008",
            "0009",
            lambda g: correlation_contribution(g[["prediction"]], g["numerai_meta_model"], g["target"]).iloc[0],
        ),
        "CWMM": official(rows, "0008", "0010", cwmm),
        "BMC v53_lgbm_ender20": official(
            rows,
            "0005",
            "0009",
            lambda g: correlation_contribution(g[["prediction"]], g["v53_lgbm_ender20"], g["target"]).iloc[0],
        ),
        "FNC": official(
            rows,
            "0004",
            "0009",
            lambda g: feature_neutral_corr(
                g[["prediction"]].sort_index(), g[made.NEUTRAL].astype(float).sort_index(), g["target"].sort_index()
            ).iloc[0],
        ),
    }
    assert set(found) == set(expected)
    for metric, series in expected.items():
        pd.testing.assert_series_equal(
            found[metric], series, check_names=False, check_index_type=False, atol=1e-9, rtol=0, obj=metric
        )


def test_the_overlap_stands_beside_every_number(world: tuple[Path, Path, pd.DataFrame]) -> None:
    run, data, _ = world
    found = {score.metric: score for score in reference_scores(run, data)}
    assert {name: score.summary.n_eras for name, score in found.items()} == {
        "CORR": 6,
        "MMC": 2,
        "CWMM": 3,
        "BMC v53_lgbm_ender20": 5,
        "FNC": 6,
    }
    assert (found["MMC"].first_era, found["MMC"].last_era) == ("0008", "0009")
    series = era_scores(run)["BMC v53_lgbm_ender20"].to_numpy()
    assert found["BMC v53_lgbm_ender20"].summary.corr_mean == pytest.approx(series.mean())
    assert found["BMC v53_lgbm_ender20"].summary.sharpe == pytest.approx(series.mean() / series.std())


def test_without_references_there_is_corr_alone(world: tuple[Path, Path, pd.DataFrame], tmp_path: Path) -> None:
    run, data, _ = world
    for name in ("train.parquet", "validation.parquet"):
        (tmp_path / name).symlink_to(data / name)
    assert set(era_scores(run, tmp_path)) == {"CORR"}


def test_references_that_are_gone_since_the_run_are_named(
    world: tuple[Path, Path, pd.DataFrame], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, data, _ = world
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(run, tmp_path / "run")
    noted = json.loads((run / "manifest.json").read_text())
    benchmarks = ("train_benchmark_models.parquet", "validation_benchmark_models.parquet")
    lost = {("meta_model.parquet",): {"MMC", "CWMM"}, benchmarks: {"BMC v53_lgbm_ender20"}}
    noted["data"] |= {"path": str(tmp_path / "data"), "references": [file for files in lost for file in files]}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(noted))
    whole = era_scores(tmp_path / "run")
    assert not caplog.records
    for files, metrics in lost.items():
        for file in files:
            (tmp_path / "data" / file).rename(tmp_path / file)
        caplog.clear()
        found = era_scores(tmp_path / "run")
        why = f"it is not in {tmp_path / 'data'}, and the run's dataset had it; `eravane fetch` gets it again"
        assert [record.getMessage() for record in caplog.records] == [f"no score against {f}: {why}" for f in files]
        assert set(whole) - set(found) == metrics
        for name, series in found.items():
            pd.testing.assert_series_equal(series, whole[name])
        for file in files:
            (tmp_path / file).rename(tmp_path / "data" / file)


def test_what_is_missing_is_named(world: tuple[Path, Path, pd.DataFrame], tmp_path: Path) -> None:
    run, _, _ = world
    with pytest.raises(DataError, match="has no labels 'target' for the eras of"):
        era_scores(run, tmp_path)
    with pytest.raises(RunError, match=r"manifest.json is missing or damaged"):
        era_scores(tmp_path)
    (tmp_path / "manifest.json").write_text((run / "manifest.json").read_text())
    with pytest.raises(RunError, match=r"has no predictions.parquet"):
        era_scores(tmp_path)
