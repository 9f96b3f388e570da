"""Compiles the CPU's kernels before they are needed: `python -m eravane.pipeline.warm`, a tiny run on made data.

Numba keeps what it compiled on disk, so that later processes load it. A run calls every kernel with the very types that
runs call it with, which a list of signatures would not.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from eravane.learners.forest import Forest
from eravane.learners.regressor import LevelsRegressor
from eravane.pipeline.batch import run
from eravane.pipeline.demo import demo_config
from eravane.synth import PRESETS, synthesise


def warm() -> float:
    """Compile what is not on disk yet; returns the seconds it took."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = synthesise(Path(folder) / "data", PRESETS["tiny"])
        run(data, demo_config("tiny"), Path(folder) / "run", cache=Path(folder) / "cache")
    fit_estimators()
    return time.perf_counter() - began


def fit_estimators() -> None:
    """The stand-alone estimator: levels in place and copied, weights, evaluation, functions as objectives."""
    level_NC = np.random.default_rng(0).integers(0, 5, (200, 9)).astype(np.int8)
    label_N = level_NC[:, 0] / np.float32(4)
    for rows in (np.asfortranarray(level_NC), level_NC / np.float32(4)):
        model = LevelsRegressor(n_estimators=2, max_depth=3, objective="reg:logistic")
        model.fit(rows, label_N, sample_weight=label_N + 1, eval_set=[(rows, label_N)]).predict(rows)
    # Trees as a run evaluates them where it has more rows than a tiny one.
    trees = Forest.of(LevelsRegressor(n_estimators=2, max_depth=3).fit(level_NC, label_N).get_booster())
    assert trees is not None
    trees.predict(np.ascontiguousarray(level_NC.T))


if __name__ == "__main__":
    print(f"kernels are compiled ({warm():.0f} s)")
