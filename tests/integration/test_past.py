"""Refitted models scored in eras before the window that they are trained on, against XGBoost, pandas and SciPy."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from scipy.stats import norm, rankdata

from eravane.core.config import RunConfig
from eravane.gate.versions import Versions, VersionScores
from eravane.loop.versions import EarlierModels
from eravane.pipeline.batch import run
from tests.support.micro import ERAS, LOOP_START

TARGET, PURGE, TREE_LAG, SCORE_LAG = "target_ender_20", 8, 9, 6


def c_of(predicted: np.ndarray, label: np.ndarray) -> float:
    """Mean product of the prediction's normal quantiles and the target as CORR transforms it."""
    centred = label - label.mean()
    powered = np.sign(centred) * np.abs(centred) ** 1.5
    return float(
        np.mean(norm.ppf((rankdata(predicted) - 0.5) / len(label)) * (powered - powered.mean()) / powered.std())
    )


def blanked(source: Path, target: Path) -> Path:
    """The dataset with the same value in all rows and features of two older eras."""
    shutil.copytree(source, target)
    for name in ("train.parquet", "validation.parquet"):
        frame = pd.read_parquet(target / name)
        columns = [column for column in frame if column.startswith("feature_")]
        frame.loc[frame["era"].astype(int).isin([21, 22]), columns] = 2
        frame.to_parquet(target / name)
    return target


@pytest.mark.parametrize(
    ("window", "every", "blank"),
    [(0, 4, False), (2, 4, False), (6, 4, False), (4, 2, False), (3, 1, False), (2, 4, True)],
)
def test_refitted_models_are_scored_before_their_window_alone(
    window: int,
    every: int,
    blank: bool,
    micro_data: Path,
    micro_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(
        micro_config,
        zoo=dataclasses.replace(micro_config.zoo, window=window),
        loop=dataclasses.replace(micro_config.loop, update="refit", every=every),
    )
    scored: dict[int, tuple[int, ...]] = {}
    score = Versions.score

    def note(self: Versions, era: int, scores: VersionScores) -> None:
        scored[era] = scores.versions
        score(self, era, scores)

    monkeypatch.setattr(Versions, "score", note)
    put: list[tuple[int, dict[str, Any], dict[str, Any], dict[int, np.ndarray]]] = []
    honest = EarlierModels.renew

    def renew(self: EarlierModels, versions: Any, before: Any, after: Any, era: int, past: Any, *waiting: Any) -> None:
        put.append((era, before, dict(after), dict(past)))
        honest(self, versions, before, after, era, past, *waiting)

    monkeypatch.setattr(EarlierModels, "renew", renew)
    data = blanked(micro_data, tmp_path / "data") if blank else micro_data
    run(data, config, tmp_path / "run", cache=tmp_path / "cache")

    constant = 0
    frame = pd.concat([pd.read_parquet(data / name) for name in ("train.parquet", "validation.parquet")])
    by_era = {int(era): rows for era, rows in frame.groupby("era")}
    assert [era for era, *_ in put] == [LOOP_START + n for n in range(every, ERAS - LOOP_START + 2, every)]
    begun = [LOOP_START, *(era for era, *_ in put)]
    assert scored == {
        one: (0,) * (one >= begun[3]) + tuple(n for n, start in enumerate(begun) if start <= one)[-3:]
        for one in range(LOOP_START, ERAS + 1 - SCORE_LAG + 1)  # those that the live era's step resolves are the last
    }
    oldest = pd.read_parquet(tmp_path / "run" / "oof.parquet", columns=["era"])["era"].astype(int).min()
    for era, before, after, past in put:
        newest = era - TREE_LAG - window - PURGE
        wanted = [e for e in range(oldest, era - SCORE_LAG + 1) if newest - 4 * window < e <= newest]
        assert sorted(past) == (wanted if window else [])
        for one, paid_M in past.items():
            rows = by_era[one]
            for paid, (name, model) in zip(paid_M, after.items(), strict=True):
                if model is before[name]:  # it rests
                    assert np.isnan(paid)
                    continue
                booster = xgb.Booster(model_file=bytearray(model.trees.blocks[0]))
                predicted = booster.inplace_predict(rows[list(model.trees.columns)].to_numpy(np.float32))
                if np.ptp(predicted) == 0:
                    constant += 1
                    assert np.isnan(paid)
                    continue
                assert paid == pytest.approx(c_of(predicted, rows[TARGET].to_numpy()), abs=1e-6)
    assert any(past for *_, past in put) == bool(window)
    assert bool(constant) == blank
