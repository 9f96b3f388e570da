"""A world in which nothing persists, with 60-day labels: what sees no label early scores zero, what does is caught.

Stocks stay the same and their features hardly move, so that a model that knows a stock's newest returns predicts the
part of them that a later label shares. Labels of 12 eras overlap up to a purge of 11.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.neighbors import KNeighborsRegressor

from eravane.calendar.splitters import WalkForwardSplit
from eravane.core.config import parse_config
from eravane.pipeline.batch import run
from eravane.pipeline.estimator import EraGatedRegressor
from eravane.scoring.by_era import corr_by_era
from eravane.scoring.metrics import HacMean, hac_mean
from eravane.synth import SynthConfig, iter_eras, synthesise

TARGET = "target_ender_60"
SEEDS = range(3)
NULL = SynthConfig(
    eras=110, rows=200, features=12, groups=2, snr=0.0, null=True, missing_share=0.0, targets=(TARGET,), seed=4
)
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def rows_of(config: SynthConfig) -> Rows:
    """Features, labels and eras of every row."""
    made = list(iter_eras(config))
    era_N = np.repeat([era.era for era in made], [era.targets_TN.shape[1] for era in made])
    return (
        np.concatenate([era.features_FN.T for era in made]),
        np.concatenate([era.targets_TN[0] for era in made]),
        era_N,
    )


def neighbours(rows: Rows, folds: int = 6, chunk: int = 10, **purge: object) -> np.ndarray:
    """CORR per era of a model that remembers stocks, in the splitter's folds."""
    x_NC, y_N, era_N = rows
    found = []
    for train_N, test_N in WalkForwardSplit(folds, chunk=chunk, window=24, **purge).split(x_NC, y_N, groups=era_N):
        model = KNeighborsRegressor(5).fit(x_NC[train_N], y_N[train_N])
        found.append(corr_by_era(y_N[test_N], model.predict(x_NC[test_N]), era_N[test_N]))
    return pd.concat(found).to_numpy()


def is_zero(found: HacMean) -> bool:
    """Whether a mean is zero within two of its errors, corrected for overlap and few eras."""
    return abs(found.normal_t) < 2


def null_error(eras: int) -> float:
    """Standard error of a mean CORR over some eras where labels of 12 eras are noise; 40 eras are too few for HAC."""
    return float(np.sqrt(12 / eras / NULL.rows))


@pytest.fixture(scope="module")
def worlds() -> list[Rows]:
    return [rows_of(replace(NULL, seed=seed)) for seed in SEEDS]


def test_the_splitters_default_purge_sees_nothing_early(worlds: list[Rows]) -> None:
    for rows in worlds:
        assert is_zero(hac_mean(neighbours(rows, target=TARGET), 16))
        assert is_zero(hac_mean(neighbours(rows, horizon_eras=12), 16))


def test_a_planted_leak_is_caught(worlds: list[Rows]) -> None:
    for rows in worlds:
        leaking = hac_mean(neighbours(rows, purge=0), 16)
        assert leaking.normal_t > 3
        assert leaking.mean > 0.1


def test_the_purge_of_20_day_labels_leaks(worlds: list[Rows]) -> None:
    """In chunks of three eras, all of which share weeks with labels eight eras before; paired with a purge of 16."""
    gains = [neighbours(rows, 20, 3, purge=8) - neighbours(rows, 20, 3, purge=16) for rows in worlds]
    leak = hac_mean(np.concatenate(gains), 16)
    assert leak.normal_t > 2
    assert leak.mean > 0.02


@pytest.mark.full
def test_the_estimator_scores_zero(worlds: list[Rows]) -> None:
    x_NC, y_N, era_N = (part[::2] for part in worlds[0])
    small = {"trees": 8, "folds": 2, "minimum_eras": 5, "groups": 2, "selection": {"minimum_corr": -1.0}}
    gate = {"warmup": 10, "seeds": 1, "steps": 5, "inputs": ["scores"], "experts": ["screened"]}
    past, test = era_N <= 74, era_N > 90
    model = EraGatedRegressor(target=TARGET, gate=gate, **small).fit(x_NC[past], y_N[past], eras=era_N[past])
    corr = corr_by_era(y_N[test], model.predict(x_NC[test], eras=era_N[test]), era_N[test])
    assert is_zero(hac_mean(corr.to_numpy(), 16))
    # What selection saw of the folds: no base model is worth anything.
    assert all(is_zero(verdict.corr) for verdict in model.verdicts_)


def test_a_run_scores_zero_in_folds_and_loop_by_default(tmp_path: Path) -> None:
    data = synthesise(tmp_path / "data", NULL)
    config = parse_config(
        {
            "data": {"feature_sets": ["all"]},
            "time": {"loop_eras": 40},
            "zoo": {"trees": 20, "fold_eras": 10, "folds": 4, "minimum_eras": 4, "params": {"max_depth": 4}},
            "selection": {"minimum_corr": -1.0},
            "gate": {"warmup": 5, "seeds": 1, "steps": 5, "inputs": ["scores"], "experts": ["screened"]},
        }
    )
    done = run(data, config, tmp_path / "run", cache=tmp_path / "cache")
    scores = pq.read_table(done.path / "scores.parquet").to_pandas()
    for series in ("ensemble", "equal_weight"):
        assert abs(scores[series].mean()) < 2 * null_error(int(scores[series].notna().sum()))
    oof = pq.read_table(done.path / "oof.parquet").to_pandas(ignore_metadata=True).set_index("id")
    labels = pd.concat(
        pd.read_parquet(data / f"{part}.parquet", columns=["target"]) for part in ("train", "validation")
    )
    joined = oof.join(labels).dropna()
    mean_N = joined.drop(columns=["era", "target"]).mean(axis=1)
    folds = corr_by_era(joined["target"].to_numpy(), mean_N.to_numpy(), joined["era"].astype(int).to_numpy())
    assert len(folds) >= 20
    assert abs(folds.mean()) < 2 * null_error(len(folds))
    assert any("target = target_ender_60, 60 days: lags 14 and 17, purge 16" in note for note in done.notes)
