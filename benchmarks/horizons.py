"""Cost of a wrong purge and of a wrong Bartlett lag under 60-day labels, on worlds in which nothing persists.

Stocks stay the same and their features hardly move, so that a model that knows a stock's newest returns predicts the
part of them that a later label shares. Labels of 12 eras overlap up to a purge of 11. Every setting is tried on the
same seeds; errors are over seeds, which share nothing. Folds and refits are three eras apart, so that with a purge of 8
every predicted era shares weeks with the newest labels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsRegressor

from benchmarks.harness import Result
from eravane.calendar.horizon import Horizon
from eravane.calendar.splitters import WalkForwardSplit
from eravane.core.config import parse_config
from eravane.pipeline.batch import run
from eravane.pipeline.estimator import EraGatedRegressor
from eravane.scoring.by_era import corr_by_era
from eravane.scoring.metrics import NORMAL_T, hac_mean
from eravane.synth import SynthConfig, iter_eras, synthesise

TARGET = "target_ender_60"
NULL = SynthConfig(eras=110, rows=200, features=12, groups=2, snr=0.0, null=True, missing_share=0.0, targets=(TARGET,))
SEEDS, QUICK_SEEDS = 20, 2
STEP = 3  # eras predicted per fold, and between refits of a run
WINDOW = 24  # newest eras to train on
PARAMS = {"max_depth": 8, "eta": 0.3, "colsample_bytree": 0.5}
GATE = {"warmup": 5, "seeds": 1, "steps": 5, "inputs": ["scores"]}


@dataclass(frozen=True)
class Setting:
    """Lags of a run, purge of a splitter, and the length that the estimator takes labels for."""

    lags: dict[str, int]
    purge: dict[str, int]
    span: Horizon


SETTINGS = {
    "by default": Setting({}, {}, Horizon.of_days(60)),
    "for 20 days": Setting({"score_lag": 6, "tree_lag": 9}, {"purge": 8}, Horizon.of_days(20)),
    "leaking": Setting({"score_lag": 1, "tree_lag": 1}, {"purge": 0}, Horizon(1)),
}
DRAWS, QUICK_DRAWS = 4_000, 400
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def rows_of(config: SynthConfig) -> Rows:
    """Features [N, C], labels [N] and eras [N] of every row of a world in memory."""
    made = list(iter_eras(config))
    era_N = np.repeat([era.era for era in made], [era.targets_TN.shape[1] for era in made])
    return (
        np.concatenate([era.features_FN.T for era in made]),
        np.concatenate([era.targets_TN[0] for era in made]),
        era_N,
    )


def splitter_corr(rows: Rows, folds: int = 20, chunk: int = STEP, **purge: Any) -> np.ndarray:
    """CORR per era of a model that remembers stocks, in folds of `WalkForwardSplit`."""
    x_NC, y_N, era_N = rows
    found = []
    splitter = WalkForwardSplit(folds, chunk=chunk, window=WINDOW, **{"target": TARGET, **purge})
    for train_N, test_N in splitter.split(x_NC, y_N, groups=era_N):
        model = KNeighborsRegressor(5).fit(x_NC[train_N], y_N[train_N])
        found.append(corr_by_era(y_N[test_N], model.predict(x_NC[test_N]), era_N[test_N]))
    return np.asarray(pd.concat(found))


def estimator_corr(rows: Rows, span: Horizon, **purge: Any) -> tuple[np.ndarray, float]:
    """CORR per era of `EraGatedRegressor` in six splits, and the mean CORR of what its own selection saw.

    Args:
        rows: the world.
        span: what the estimator takes the labels' length for; it gives the purge of its own folds.
        purge: that of the outer splits, where it is not the default.
    """
    x_NC, y_N, era_N = rows
    splits = WalkForwardSplit(6, chunk=STEP, target=TARGET, **purge).split(x_NC, y_N, groups=era_N)
    found, seen = [], []
    for train_N, test_N in splits:
        model = EraGatedRegressor(
            groups=2,
            horizon_eras=span.eras,
            trees=10,
            params=PARAMS,
            half_life=6.0,
            folds=8,
            fold_eras=STEP,
            minimum_eras=5,
            selection={"minimum_corr": -1.0},
            gate=GATE,
        ).fit(x_NC[train_N], y_N[train_N], eras=era_N[train_N])
        found.append(corr_by_era(y_N[test_N], model.predict(x_NC[test_N], eras=era_N[test_N]), era_N[test_N]))
        seen += [verdict.corr.mean for verdict in model.verdicts_]
    return pd.concat(found).to_numpy(), float(np.mean(seen))


def run_corr(folder: Path, config: SynthConfig, lags: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CORR per era of a whole run: of the ensemble and of equal weight in the loop, and of the models in the folds."""
    data = folder / "data"
    if not data.exists():
        synthesise(data, config)
    sections = {
        "data": {"feature_sets": ["all"]},
        "time": {"loop_eras": 40, **lags},
        "zoo": {"trees": 10, "fold_eras": STEP, "folds": 12, "window": WINDOW, "minimum_eras": 4, "params": PARAMS},
        "selection": {"minimum_corr": -1.0},
        "loop": {"every": STEP},
        "gate": GATE,
    }
    name = "-".join(map(str, lags.values())) or "default"
    done = run(data, parse_config(sections), folder / name, cache=folder / "cache")
    scores = pd.read_parquet(done.path / "scores.parquet")
    oof = pd.read_parquet(done.path / "oof.parquet").set_index("id")
    parts = [pd.read_parquet(data / f"{part}.parquet", columns=["target"]) for part in ("train", "validation")]
    joined = oof.join(pd.concat(parts)).dropna()
    mean_N = joined.drop(columns=["era", "target"]).mean(axis=1)
    folds = corr_by_era(joined["target"].to_numpy(), mean_N.to_numpy(), joined["era"].astype(int).to_numpy())
    series = [scores[name].dropna().to_numpy() for name in ("ensemble", "equal_weight")]
    return series[0], series[1], folds.to_numpy()


def of_seed(seed: int) -> dict[str, dict[str, float]]:
    """Mean CORR of every path through one world, by setting."""
    world = replace(NULL, seed=seed)
    rows = rows_of(world)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, setting in SETTINGS.items():
            ensemble, equal, folds = run_corr(Path(folder), world, setting.lags)
            outside, inside = estimator_corr(rows, setting.span, **setting.purge)
            found[name] = {
                "run, ensemble in the loop": ensemble.mean(),
                "run, equal weight in the loop": equal.mean(),
                "run, folds": folds.mean(),
                "splitter, nearest neighbours": splitter_corr(rows, **setting.purge).mean(),
                "estimator, predictions": outside.mean(),
                "estimator, its own folds": inside,
            }
    return found


def leaks(seeds: Sequence[int]) -> list[Result]:
    """Mean CORR by path and setting, with its error over seeds."""
    found = [of_seed(seed) for seed in seeds]
    results = []
    for path in found[0]["by default"]:
        by_setting = {setting: np.array([each[setting][path] for each in found]) for setting in SETTINGS}
        default_S = by_setting["by default"]
        results.append(_mean(f"{path}, by default", default_S, True))
        results += [_mean(f"{path}, lags {name}", by_setting[name]) for name in ("for 20 days", "leaking")]
        results.append(_mean(f"{path}, lags for 20 days less default", by_setting["for 20 days"] - default_S))
    return results


def _mean(name: str, means_S: np.ndarray, zero: bool = False) -> Result:
    """|mean| in errors, with the mean and its error."""
    error = means_S.std(ddof=1) / np.sqrt(means_S.size)
    detail = f"CORR {means_S.mean():+.4f} +- {error:.4f} over {means_S.size} seeds"
    return Result(name, abs(means_S.mean()) / error, "errors", 2.0 if zero else None, "lower", detail)


def rejections(draws: int) -> list[Result]:
    """How often a null strategy is called significant at 5 %: by t as it is shown, and by mean / se above 1.96."""
    results = []
    for days, lag in ((60, 16), (60, 8), (20, 8)):
        for eras in (60, 100, 150, 300, 600, 1000):
            rng = np.random.default_rng([days, lag, eras])
            span = Horizon.of_days(days).eras
            sums = np.cumsum(rng.standard_normal((draws, eras + span)), axis=1)
            means = [hac_mean(row, lag) for row in sums[:, span:] - sums[:, :-span]]
            critical = 100 * float(np.mean([abs(found.t) > NORMAL_T for found in means]))
            plain = 100 * np.mean([abs(found.mean) > NORMAL_T * found.se for found in means])
            goal = 8.0 if lag == Horizon.of_days(days).hac_lag else None
            detail = f"mean / se alone {plain:.1f} %; critical value {means[0].critical:.2f}; {draws} draws"
            results.append(Result(f"{days} days, lag {lag}, {eras} eras", critical, "%", goal, "lower", detail))
    return results


def main(quick: bool) -> list[Result]:
    """Leaks by path and setting, and rejection rates of a null strategy."""
    return leaks(range(QUICK_SEEDS if quick else SEEDS)) + rejections(QUICK_DRAWS if quick else DRAWS)
