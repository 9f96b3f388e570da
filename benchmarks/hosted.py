"""An exported model at full size inside the tournament's limits: one core, 4 GB, 10 minutes.

The model is made: 12 base models of 2,000 trees, half of them on 780 and half on all of 3,555 features, with a gate of
random weights. `ERAVANE_HOSTED_PYTHON` names the interpreter that runs it, best one with the container's xgboost 3.0.2,
numpy 2.1 and pandas 2.3; without it the present one does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb

from benchmarks.harness import Result, say
from eravane.gate.context import QUANTILES, thinned
from eravane.gate.scorer import LAST_TEMPERATURE
from eravane.learners.registry import Trees
from eravane.learners.xgboost import DEFAULT_PARAMS
from eravane.pipeline.export import hosted_model, portable_blocks

RUN = """
import json, resource, sys, time
import numpy, pandas, xgboost
live = pandas.read_parquet(sys.argv[2])
begin = time.process_time()
found = pandas.read_pickle(sys.argv[1])(live)
assert found["prediction"].between(0, 1, inclusive="neither").all() and len(found) == len(live)
taken, peak = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([taken, peak, xgboost.__version__, numpy.__version__, pandas.__version__]))
"""
LAGGED, STATISTICS, MARGINALS, REDUCED, AGREEMENT = 7, 7, 7, 5, 4


@dataclass(frozen=True)
class Size:
    """The live file and the ensemble."""

    rows: int
    features: int
    narrow: int
    models: int
    trees: int


FULL = Size(rows=7_200, features=3_555, narrow=780, models=12, trees=2_000)
QUICK = Size(rows=2_000, features=400, narrow=100, models=4, trees=100)


def main(quick: bool) -> list[Result]:
    """CPU seconds and peak memory of one prediction, the loading of the pickle included."""
    size = QUICK if quick else FULL
    python = os.environ.get("ERAVANE_HOSTED_PYTHON", sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        model, live = Path(folder) / "model.pkl", Path(folder) / "live.parquet"
        made_live(size).to_parquet(live)
        model.write_bytes(hosted_model(made_payload(size)))
        say(f"hosted: a model of {model.stat().st_size / 1e6:.0f} MB")
        command = [python, "-I", "-c", RUN, str(model), str(live)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, peak, *versions = json.loads(done.stdout.splitlines()[-1])
    detail = (
        f"{size.rows:,} rows x {size.features:,} features, {size.models} models of {size.trees:,} trees, "
        f"xgboost {versions[0]}, numpy {versions[1]}, pandas {versions[2]}"
    )
    return [
        Result("hosted_prediction", taken, "s", 180, "lower", detail),
        Result("hosted_peak_memory", peak / 1e9, "GB", 4, "lower", detail),
    ]


def made_live(size: Size) -> pd.DataFrame:
    """Levels without structure."""
    values = np.random.default_rng(0).integers(0, 5, (size.rows, size.features), dtype=np.int8)
    frame = pd.DataFrame(values, columns=[f"feature_{number:04d}" for number in range(size.features)])
    return frame.set_index(pd.Index([f"n{row:015x}" for row in range(size.rows)], name="id"))


def made_payload(size: Size) -> dict[str, Any]:
    """What `eravane.pipeline.export` puts into a model, with random knowledge."""
    random = np.random.default_rng(1)
    wide = np.arange(size.features)
    cells = [np.sort(random.permutation(size.features)[: size.narrow]) if m % 2 else wide for m in range(size.models)]
    blocks = {len(columns): made_blocks(len(columns), size.trees) for columns in cells}
    return {
        "made": time.time(),
        "newest_era": 1,
        "note": "made",
        "columns": [f"feature_{number:04d}" for number in range(size.features)],
        "models": [
            {"id": str(m), "given": None, "columns": columns, "cell": m, "blocks": blocks[len(columns)]}
            for m, columns in enumerate(cells)
        ],
        "cells": [thinned(columns) for columns in cells],
        "dtype": "int8",
        "benchmarks": [],
        "prepare": {"detect": True, "impute": "median", "constant": 2.0, "clip": "none", "indicators": False},
        "neutral": {"columns": np.zeros(0, dtype=np.int64), "proportion": 0.0},
        "gate": made_gate(size.models),
        "maps": made_maps(size),
        "nets": made_nets(),
    }


def made_blocks(features: int, trees: int) -> list[bytes]:
    """A model of that many trees, fitted to noise."""
    say(f"hosted: growing {trees:,} trees on {features:,} features")
    random = np.random.default_rng(features)
    matrix = xgb.QuantileDMatrix(random.integers(0, 5, (2_000, features), dtype=np.int8), random.random(2_000))
    booster = xgb.train({**DEFAULT_PARAMS, "base_score": 0.5}, matrix, trees)
    return portable_blocks(Trees((bytes(booster.save_raw("ubj")),), ()))


def made_gate(models: int) -> dict[str, Any]:
    """A gate that keeps every model open, so that all of them run."""
    random = np.random.default_rng(2)
    return {
        "inputs": ("scores", "structure", "marginals", "agreement"),
        "quantiles": QUANTILES,
        "flat": 1e-6,
        "decimals": 12,
        "negligible": 0.0,
        "temperature": LAST_TEMPERATURE,
        "networked": 1,
        "max_active": 0,
        "ridge": 1.0,
        "warming_up": False,
        "hedge_P": np.full(4, 1 / 4),
        "experts_LM": [np.full(models, 1 / models)] * 3,
        "lagged_ML": random.normal(size=(models, LAGGED)),
        "seen_M": np.ones(models, dtype=bool),
        "signal_M": random.random(models),
        "dispersion_M": random.random(models),
        "agents_MA": np.eye(2)[np.arange(models) % 2],
    }


def made_maps(size: Size) -> dict[str, Any]:
    """Normalisers that keep every marginal statistic."""
    marginals = (MARGINALS, size.features)
    return {
        "model_center_MS": np.zeros((size.models, STATISTICS)),
        "model_scale_MS": np.ones((size.models, STATISTICS)),
        "context_center_D": np.zeros(2),
        "context_scale_D": np.ones(2),
        "kept_KF": np.ones(marginals, dtype=bool),
        "marginal_center_KF": np.full(marginals, 2.0),
        "marginal_scale_KF": np.ones(marginals),
        "components_PV": np.random.default_rng(3).normal(size=(3, MARGINALS * size.features)),
        "reduced_center_MR": np.zeros((size.models, REDUCED)),
        "reduced_scale_MR": np.ones((size.models, REDUCED)),
        "lagged_scale_L": np.ones(LAGGED),
        "agreement_scale_A": np.ones(AGREEMENT),
    }


def made_nets(nets: int = 10, hidden: int = 8) -> dict[str, Any]:
    """Ten nets of random weights, two agents."""
    random = np.random.default_rng(4)
    early, context = LAGGED + STATISTICS + REDUCED, 2 + 2 + 3
    inputs = {"gate": early, "weight": early + AGREEMENT}
    made = {"gate_bias": np.ones((nets, 2))}
    for name, count in inputs.items():
        made[f"{name}_linear"] = 0.1 * random.normal(size=(nets, count))
        made[f"{name}_hidden"] = 0.1 * random.normal(size=(nets, count + context, hidden))
        made[f"{name}_shift"] = np.zeros((nets, hidden))
        made[f"{name}_out"] = 0.1 * random.normal(size=(nets, hidden))
    return made
