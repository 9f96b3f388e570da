"""Neutralisation of the ensemble against numerai-tools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numerai_tools.scoring import neutralize
from scipy.stats import norm, rankdata

from eravane.core.config import parse_config
from eravane.core.errors import ConfigError
from eravane.pipeline.batch import run
from eravane.scoring.neutralization import Neutraliser
from eravane.synth import SynthConfig, synthesise
from eravane_kernels import cpu


@pytest.mark.parametrize("proportion", [0.0, 0.5, 1.0])
def test_the_explained_part_is_taken_out(proportion: float) -> None:
    rng = np.random.default_rng(1)
    x_CN = rng.integers(0, 5, (6, 400)).astype(np.int8)
    mixed_N = 0.3 * x_CN[0] - 0.2 * x_CN[3] + rng.normal(size=400)
    z = norm.ppf((rankdata(mixed_N) - 0.5) / 400)
    frame = pd.DataFrame({"p": z})
    expected = neutralize(frame, pd.DataFrame(x_CN.T - 2.0), proportion=proportion)["p"]
    found = Neutraliser(("a",) * 6, proportion, cpu).apply(mixed_N, x_CN)
    assert np.corrcoef(found, expected)[0, 1] == pytest.approx(1, abs=1e-3)
    left = [np.corrcoef(found, row)[0, 1] for row in x_CN]
    before = [np.corrcoef(z, row)[0, 1] for row in x_CN]
    if proportion == 1:
        assert np.abs(left).max() < 1e-10
    assert np.abs(left[0]) <= np.abs(before[0]) + 1e-12


def test_unknown_values_count_as_the_mean_and_a_constant_stays() -> None:
    rng = np.random.default_rng(2)
    x_CN = rng.normal(size=(2, 100)).astype(np.float32)
    holes_CN = x_CN.copy()
    holes_CN[1, ::5] = np.nan
    filled_CN = np.where(np.isnan(holes_CN), np.nanmean(holes_CN, axis=1, keepdims=True), holes_CN)
    neutral, mixed_N = Neutraliser(("a", "b"), 1.0, cpu), rng.normal(size=100)
    np.testing.assert_allclose(neutral.apply(mixed_N, holes_CN), neutral.apply(mixed_N, filled_CN), atol=1e-6)
    np.testing.assert_array_equal(neutral.apply(np.ones(100), x_CN), np.ones(100))


def test_a_run_neutralises_history_and_live_rows(tmp_path: Path) -> None:
    data = synthesise(
        tmp_path / "data",
        SynthConfig(main_target="target_ender_20", eras=40, rows=60, features=16, groups=3, seed=3, snr=0.5),
    )
    sections = {
        "data": {"feature_sets": ["small", "all"]},
        "time": {"loop_start": 30},
        "zoo": {"trees": 3, "fold_eras": 8, "folds": 2, "minimum_eras": 2, "params": {"max_depth": 2}},
        "selection": {"most": 3, "minimum_corr": -1.0},
        "gate": {"warmup": 30},
        "loop": {"update": "none"},
        "compute": {"device": "cpu"},
        "postprocess": {"neutralize": "small", "proportion": 1.0},
    }
    result = run(data, parse_config(sections), tmp_path / "run", cache=tmp_path / "cache")
    small = json.loads((data / "features.json").read_text())["feature_sets"]["small"]
    history = pd.concat([pd.read_parquet(data / f"{name}.parquet") for name in ("train", "validation")])
    predictions = pd.read_parquet(result.path / "predictions.parquet").set_index("id")
    for _, part in predictions.groupby("era"):
        exposure = history.loc[part.index, small].astype(float).corrwith(part["prediction"])
        assert exposure.abs().max() < 0.1  # ranking again leaves a little
    live = pd.read_csv(result.path / "live_predictions.csv", index_col="id")["prediction"]
    features = pd.read_parquet(data / "live.parquet").loc[live.index, small].astype(float)
    assert features.corrwith(live).abs().max() < 0.1
    wrong = {**sections, "postprocess": {"neutralize": "medium"}}
    with pytest.raises(ConfigError, match="given 'medium'"):
        run(data, parse_config(wrong), tmp_path / "wrong", cache=tmp_path / "cache")
