"""The script of docs/levels.md, ported by its import alone: CPU time of `fit` with three libraries' estimators."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMRegressor
from xgboost import XGBRegressor

from benchmarks.harness import Job, Result, described, seconds
from eravane import LevelsRegressor

ROWS, FEATURES, TREES, ROUNDS = 60_000, 400, 200, 3
QUICK = 2_000, 20, 5, 1
LEAST = 3.5


def main(quick: bool) -> list[Result]:
    """Both peers' times over ours, one thread."""
    rows, features, trees, rounds = QUICK if quick else (ROWS, FEATURES, TREES, ROUNDS)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 5, (rows, features)).astype(np.int8)).add_prefix("feature_")
    signal_N = frame.iloc[:, :20].to_numpy(dtype=np.float64) @ rng.normal(size=20) + 20 * rng.normal(size=rows)
    target = pd.Series(np.searchsorted(np.quantile(signal_N, [0.05, 0.25, 0.75, 0.95]), signal_N) / 4)
    given: dict[str, Any] = {"n_estimators": trees, "learning_rate": 0.01, "max_depth": 5, "colsample_bytree": 0.1}
    of_lightgbm = {"num_leaves": 31, "verbose": -1}
    made = {
        "LevelsRegressor": partial(LevelsRegressor, num_leaves=31),
        "LGBMRegressor": partial(LGBMRegressor, **of_lightgbm),
        "XGBRegressor": XGBRegressor,
    }
    jobs = [Job(name, partial(_fit, partial(kind, n_jobs=1, **given), frame, target)) for name, kind in made.items()]
    ours, *peers = seconds(jobs, rounds)
    how = f"{rows:,} rows x {features}, {trees} trees: {described(dict(zip(jobs, [ours, *peers], strict=True)))}"
    return [
        Result(f"script_vs_{job.name}", peer / ours, "x", LEAST, "higher", how)
        for job, peer in zip(jobs[1:], peers, strict=True)
    ]


def _fit(make: Any, frame: pd.DataFrame, target: pd.Series) -> None:
    make().fit(frame, target)
